"""The engine's real journal in memory: it outlives its engine, and can be full or refuse.

An anchor connection keeps the database; an engine's own connection dies with it, and its open transaction is lost.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Callable
from typing import Any

NO_LIMIT = 1_000_000_000
_numbers = itertools.count()


class JournalDisk:
    """One host's disk with the journal on it."""

    def __init__(self) -> None:
        self._uri = ""
        self._anchor: sqlite3.Connection | None = None
        self.renew()

    def renew(self) -> None:
        """The journal is lost, or was moved away: the next engine finds none."""
        self.close()
        self._uri = f"file:saia-{os.getpid()}-{next(_numbers)}?mode=memory&cache=shared"
        self._anchor = sqlite3.connect(self._uri, uri=True, isolation_level=None)

    def connect(self, refused: Callable[[str], None]) -> JournalConnection:
        """An engine's connection; `refused` hears of each error of the disk."""
        connection = JournalConnection(self._uri, uri=True, isolation_level=None, timeout=0.0)
        connection.refused = refused
        return connection

    def fill(self) -> None:
        """No page more: SQLITE_FULL at the next growth."""
        assert self._anchor is not None
        pages = self._anchor.execute("PRAGMA page_count").fetchone()[0]
        self._anchor.execute(f"PRAGMA max_page_count={pages}")

    def mend(self) -> None:
        assert self._anchor is not None
        self._anchor.execute(f"PRAGMA max_page_count={NO_LIMIT}")

    def close(self) -> None:
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None


class JournalConnection(sqlite3.Connection):
    """Tells of each write that the disk refuses."""

    refused: Callable[[str], None]

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # type: ignore[override]
        try:
            return super().execute(sql, *parameters)
        except sqlite3.Error as exc:
            self.refused(str(exc))
            raise

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:  # type: ignore[override]
        try:
            return super().executemany(sql, parameters)
        except sqlite3.Error as exc:
            self.refused(str(exc))
            raise

    def refuse_writes(self) -> None:
        """As a read-only or failing disk does."""
        self.set_authorizer(_only_reads)


def _only_reads(action: int, *_: Any) -> int:
    writes = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
    return sqlite3.SQLITE_DENY if action in writes else sqlite3.SQLITE_OK
