"""Whether the code that this process runs is still the installed one. Standard library alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from saia_engine import gate

LOOK_S = 5.0
SETTLED_S = 1.0
"""Files that do not change for so long are no installation half way."""

PACKAGE = Path(gate.__file__).parents[1]
Stamps = dict[str, tuple[int, int, int] | None]
"""What tells one state of a file from another; None where there is no file."""


def installed() -> Stamps:
    """All of our package."""
    return _stamps(map(str, PACKAGE.rglob("*.py")))


async def follow(before: Stamps, replaced: Callable[[], None]) -> None:
    """Calls back each time code that this process runs was replaced since `before`.

    Looks in a thread: a shared file system may hang.
    """
    files = loaded()
    known = {file: before.get(file) for file in files}
    while True:
        await asyncio.sleep(LOOK_S)
        found = await asyncio.to_thread(_stamps, files)
        if found == known:
            continue
        await asyncio.sleep(SETTLED_S)
        if await asyncio.to_thread(_stamps, files) == found:
            known = found
            replaced()


def loaded() -> list[str]:
    """The files of our package that this process runs."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted(file for file in files if file and Path(file).is_relative_to(PACKAGE))


def _stamps(files: Iterable[str]) -> Stamps:
    return {file: _stamp(file) for file in files}


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
