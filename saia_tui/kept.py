"""What the screen keeps from one run to the next: sections of plain values in one small JSON file.

    kept = Kept(kept_file())
    kept.get("columns")                 # what was put there, or None
    kept.put("columns", {"jobs": ...})  # raises NotKept
    kept.fault                          # why the file was passed over; empty where it was fine

Whoever reads a section checks its form: the file may be of another version, or written by hand.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saia_engine.edge.files import write_atomically

LARGEST_FILE = 256 * 1024
"""Bytes."""


class NotKept(Exception):
    """The file can't be written; the text says why. The value holds until the program ends."""


def kept_file(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_STATE_HOME/saia/tui.json`; by default below `~/.local/state`."""
    base = environment.get("XDG_STATE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    state = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return state / "saia" / "tui.json"


class Kept:
    """Sections by name. Without a file they are kept until the program ends."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._sections, self.fault = ({}, "") if file is None else _read(file)

    def get(self, section: str) -> Any:
        return self._sections.get(section)

    def put(self, section: str, value: Any) -> None:
        """Keep a value that JSON can hold, or forget the section (None). Raises NotKept."""
        self._change(self._sections, section, value)
        if self.file is None:
            return
        sections, _ = _read(self.file)  # another screen may have written other sections since
        self._change(sections, section, value)
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self.file, json.dumps(sections, indent=1).encode() + b"\n", mode=0o600)
        except OSError as exc:
            raise NotKept(f"{self.file} can't be written: {exc.strerror or exc}") from exc
        self._sections, self.fault = sections, ""

    @staticmethod
    def _change(sections: dict[str, Any], section: str, value: Any) -> None:
        if value is None:
            sections.pop(section, None)
        else:
            sections[section] = value


def _read(file: Path) -> tuple[dict[str, Any], str]:
    """The sections, and what is wrong with the file; one that is not there yet is fine."""
    try:
        # Not to wait for ever where somebody put a pipe.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return {}, f"{file} is passed over: it is not a file"
            data = opened.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}, ""
    except OSError as exc:
        return {}, f"{file} is passed over: {exc.strerror or exc}"
    if len(data) > LARGEST_FILE:
        return {}, f"{file} is passed over: it has more than {LARGEST_FILE // 1024} KiB"
    try:
        sections = json.loads(data)
    except (ValueError, RecursionError):
        return {}, f"{file} is passed over: it is damaged"
    if not isinstance(sections, dict):
        return {}, f"{file} is passed over: it holds no sections"
    return sections, ""
