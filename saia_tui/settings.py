"""`tui.toml`: how one operator wants the screen. The engine's configuration is another file.

Every fault is told at once, with file, key and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from saia_engine.edge.faults import ConfigFaults, Fault, from_validation, read_toml
from saia_tui import keymap
from saia_tui.terminal import Wishes

FILE_NAME = Path("saia") / "tui.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    terminal: Wishes = field(default_factory=Wishes)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys by the action's name, separated by commas; see `keymap`."""
    file: Path | None = None
    """Where they were read; None: there is no such file."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    theme: Literal["dark", "light", "ansi", "none"] | None = None
    ascii: bool | None = None
    mouse: bool | None = None
    low_bandwidth: bool | None = None
    bell: bool | None = None
    keys: dict[str, str | list[str]] = {}


def usual_file(environ: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CONFIG_HOME/saia/tui.toml`, by default below `~/.config`."""
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / FILE_NAME


def read(file: Path | None = None) -> Settings:
    """The settings of `file`, or of the usual one if that is there. Raises ConfigFaults."""
    if file is None:
        file = usual_file()
        if not file.exists():
            return Settings()
    return parse(read_toml(file), str(file), file)


def parse(content: dict[str, Any], name: str, file: Path | None = None) -> Settings:
    """Raises ConfigFaults; `name` is what the faults call the file."""
    faults: list[Fault] = []
    try:
        asked = _File.model_validate(content)
    except ValidationError as exc:
        raise ConfigFaults(from_validation(exc, name, (), _File)) from exc
    keys = {
        action: ",".join(part.strip() for part in ([value] if isinstance(value, str) else value))
        for action, value in asked.keys.items()
    }
    faults += [
        Fault(name, f"keys.{fault.action}", fault.text, fault.suggestion) for fault in keymap.faults(keys)
    ]
    if faults:
        raise ConfigFaults(faults)
    wishes = Wishes(asked.theme, asked.ascii, asked.mouse, asked.low_bandwidth, asked.bell)
    return Settings(wishes, keys, file)
