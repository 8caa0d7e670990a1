"""The door of a configuration file: tables are checked one by one, and all faults kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from saia_engine.edge import words
from saia_engine.edge.faults import Fault, dotted, from_validation, nearest


class Table(BaseModel):
    """Every key has a default, so that what is sound can be checked further when the rest is not."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


AnyTable = TypeVar("AnyTable", bound=Table)
Opened = tuple[AnyTable, frozenset[str]]
Wrong = tuple[str, str, str]
"""Key, sentence, suggestion: what a rule that joins several keys finds."""


class Door:
    """Collects the faults of one file while its tables come in."""

    def __init__(self, path: Path | str) -> None:
        self.file = str(path)
        self.directory = Path(os.path.normpath(Path(path).absolute())).parent
        self.faults: list[Fault] = []

    def add(self, wrongs: Iterable[Wrong], *prefix: str | int) -> None:
        for key, text, suggestion in wrongs:
            self.faults.append(Fault(self.file, dotted(*prefix, key), text, suggestion))

    def open(self, model: type[AnyTable], data: object, *prefix: str | int) -> Opened[AnyTable]:
        """The table with what is sound of it, and the keys that are not, which keep their defaults."""
        try:
            return model.model_validate(data), frozenset()
        except ValidationError as error:
            self.faults += from_validation(error, self.file, prefix, model)
            if not isinstance(data, dict):
                return model(), frozenset(model.model_fields)
            bad = {str(detail["loc"][0]) for detail in error.errors()}
            rest = {key: value for key, value in data.items() if key not in bad}
            # A misspelt key most likely was meant to set its neighbour: no rule may rest on that one's default.
            meant = {nearest(key, model.model_fields) for key in bad}
            return model.model_validate(rest), frozenset(bad | meant)

    def named(self, model: type[AnyTable], data: object, *prefix: str) -> Opened[AnyTable]:
        """The same for a table whose name, the last of `prefix`, the operator chose."""
        try:
            words.name(prefix[-1])
        except ValueError as exc:
            self.faults.append(Fault(self.file, dotted(*prefix), f"the name {exc}"))
        return self.open(model, data, *prefix)

    def path(self, text: str) -> Path:
        """A path as the file means it: `~` expanded, relative ones from its directory.

        Links stay as they are: other hosts may resolve them otherwise.
        """
        return Path(os.path.normpath(self.directory / Path(text).expanduser()))
