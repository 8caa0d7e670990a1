"""`routes.json` as a gate follows it: read again when it changed; a bad one keeps the last good one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from saia_engine import routes
from saia_engine.gate.journal import note, shown
from saia_engine.routes import RoutesFault, RouteTable

POLL_S = 0.5


class RoutesFile:
    """Raises RoutesFault where there is no good table to begin with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()
        self.table = routes.load(path)

    async def follow(self, changed: Callable[[RouteTable], None]) -> None:
        """Calls back with each new table. Reads in a thread: a shared file system may hang for minutes."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                table = await asyncio.to_thread(self._read_if_changed)
            except RoutesFault as fault:
                note(f"kept the last good routes: {shown(str(fault))}")
                continue
            if table is not None:
                self.table = table
                changed(table)

    def _read_if_changed(self) -> RouteTable | None:
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        return routes.load(self._path)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_ino, found.st_mtime_ns, found.st_size
