"""The journal without its engine: read from a copy, so that no reader ever holds up, changes or migrates it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saia_engine.store import JournalError, Store

TRIES = 3
"""An engine that writes while we copy makes a copy that is no whole journal."""


@contextmanager
def copied(journal: Path) -> Iterator[Store]:
    """The journal as it is now, with a write that was cut short undone. Raises JournalError, OSError."""
    with tempfile.TemporaryDirectory(prefix="saia-journal-") as directory:
        store = _copy(journal, Path(directory))
        try:
            yield store
        finally:
            store.close()


def _copy(journal: Path, directory: Path) -> Store:
    for attempt in range(1, TRIES + 1):
        copy = directory / f"{attempt}.db"
        shutil.copyfile(journal, copy)
        # Copied after the journal itself: what it undoes is in the copy, or never was.
        unfinished = Path(f"{journal}-journal")
        if unfinished.exists():
            shutil.copyfile(unfinished, f"{copy}-journal")
        try:
            return Store(copy)
        except JournalError as exc:
            if attempt == TRIES:
                raise JournalError(str(exc).replace(str(copy), str(journal))) from exc.__cause__
    raise AssertionError("not reached")
