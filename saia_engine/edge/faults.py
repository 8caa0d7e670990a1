"""Faults of a configuration file: all at once, each with file, key, what is wrong and what to do."""

from __future__ import annotations

import difflib
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from saia_engine.edge.text import clean

LARGEST_FILE = 1024**2

_SENTENCES = {
    "missing": "is required",
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_parsing_size": "is far too large",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "extra_forbidden": "unknown key",
}
_BOUNDS = {
    "greater_than_equal": ("must be at least {}", "ge"),
    "less_than_equal": ("must be at most {}", "le"),
    "too_short": ("needs at least {}", "min_length"),
    "too_long": ("has room for {} at most", "max_length"),
    "string_too_short": ("must not be empty", "min_length"),
    "string_too_long": ("is longer than {} characters", "max_length"),
    "literal_error": ("must be {}", "expected"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Its texts are safe to show; values of the file are in it only where they can't be secret."""

    file: str
    key: str
    """Dotted path, such as `services.chat.replicas`; empty for the file as a whole."""
    text: str
    suggestion: str = ""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, clean(getattr(self, name), 1000))

    def __str__(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.text}" + (f"; {self.suggestion}" if self.suggestion else "")


class ConfigFaults(Exception):
    """The file can't be used. Prints as one line for each fault."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was most likely meant; empty if none is near."""
    return next(iter(difflib.get_close_matches(word[:100], sorted(known), n=1, cutoff=0.7)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean ...?` for the nearest; else all that are known, where they are few."""
    names = sorted(known)
    near = nearest(word, names)
    if near:
        return f"did you mean {near}?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= 8 else ""


def dotted(*parts: str | int) -> str:
    """`services.chat.models[0]`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables. Raises ConfigFaults where it is missing, unreadable, not text or not TOML."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigFaults([Fault(str(path), "", "is not a regular file")])
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ConfigFaults([Fault(str(path), "", "there is no such file")]) from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigFaults([Fault(str(path), "", f"cannot be read: {reason}")]) from None
    if len(data) > LARGEST_FILE:
        raise ConfigFaults([Fault(str(path), "", "is larger than 1 MiB, so it is no configuration file")])
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        fault = Fault(str(path), "", "is not UTF-8 text")
    except RecursionError:
        fault = Fault(str(path), "", "is nested too deeply")
    except ValueError as exc:
        fault = Fault(str(path), "", f"is not valid TOML: {exc}")
    raise ConfigFaults([fault])


def from_validation(
    error: ValidationError, file: str, prefix: tuple[str | int, ...], model: type[BaseModel]
) -> list[Fault]:
    """pydantic's errors on one table (`prefix` is its path, `model` its fields) as faults."""
    faults = []
    for detail in error.errors(include_url=False):
        location = (*prefix, *detail["loc"])
        suggestion = ""
        if detail["type"] == "extra_forbidden":
            known = _table_at(model, detail["loc"][:-1]).model_fields
            suggestion = did_you_mean(str(detail["loc"][-1]), known)
        elif detail["type"] == "literal_error" and isinstance(detail["input"], str):
            words = [
                word.strip("' ") for word in detail.get("ctx", {})["expected"].replace(" or ", ",").split(",")
            ]
            near = nearest(detail["input"], words)
            suggestion = f"did you mean {near}?" if near else ""
        faults.append(Fault(file, dotted(*location), _sentence(detail), suggestion))
    return faults


def _table_at(model: type[BaseModel], location: Iterable[str | int]) -> type[BaseModel]:
    """The table inside another that a location names."""
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        kinds = (annotation, *get_args(annotation))
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return model


def _sentence(detail: Mapping[str, Any]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind in _BOUNDS:
        sentence, name = _BOUNDS[kind]
        return sentence.format(context[name])
    return _SENTENCES.get(kind) or str(detail["msg"])
