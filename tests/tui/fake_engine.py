"""An engine in memory: sends the changes it is given, remembers the intents it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from saia_engine.client import ClientError, EngineUnreachable, NotFound
from saia_engine.view import Change, LogPiece
from tests.tui import sample


class FakeEngine:
    """Same methods as `EngineClient`. `refuse` holds errors for the next intents."""

    def __init__(self, tables: dict[str, sample.Rows] | None = None) -> None:
        self.tables = tables if tables is not None else sample.state()
        self.intents: list[tuple[Any, ...]] = []
        self.refuse: list[ClientError] = []
        self.reachable = True
        self.printed: bytes | bytearray | None = b"loading\nready\n"
        self.files = 1
        self.log_reads: list[tuple[int, int]] = []
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()

    async def changes(self) -> AsyncIterator[Change]:
        if not self.reachable:
            raise EngineUnreachable("no engine answers at /run/saia/operator/operator.sock")
        self._queue = asyncio.Queue()
        for change in sample.changes(self.tables):
            yield change
        while (change := await self._queue.get()) is not None:
            yield change
        raise EngineUnreachable("the engine ended the stream")

    def put(self, table: str, rows: Mapping[str, Any] | None = None, gone: list[str] | None = None) -> None:
        """Change rows, and tell whoever listens."""
        for key in gone or ():
            self.tables[table].pop(key, None)
        self.tables[table].update(rows or {})
        raw = {key: msgspec.Raw(sample.encode(row)) for key, row in (rows or {}).items()}
        self._queue.put_nowait(Change(0, table, raw, gone or []))

    def go_away(self) -> None:
        self.reachable = False
        self._queue.put_nowait(None)

    async def scale(self, service: str, replicas: int, *, confirm: bool = False) -> None:
        self._take("scale", service, replicas, confirm)

    async def clear_override(self, service: str) -> None:
        self._take("clear_override", service)

    async def drain(self, instance: str, *, confirm: bool = False) -> None:
        self._take("drain", instance, confirm)

    async def maintenance(self, proxy: str, on: bool) -> None:
        self._take("maintenance", proxy, on)

    async def instance_story(self, instance: str) -> dict[str, Any]:
        if not self.reachable:
            raise EngineUnreachable("no engine answers at /run/saia/operator/operator.sock")
        return sample.story(instance)

    async def instance_log(
        self,
        instance: str,
        *,
        stream: str = "output",
        offset: int = 0,
        most: int = 0,
        file: str = "",
        wait_s: float = 0.0,
    ) -> LogPiece:
        """As the engine reads a file; `printed` holds it, and `rotated` what it was before."""
        if not self.reachable:
            raise EngineUnreachable("no engine answers at /run/saia/operator/operator.sock")
        until = asyncio.get_running_loop().time() + wait_s
        while True:
            piece = self._piece(stream, offset, most, file)
            self.log_reads.append((offset, len(piece.data)))
            waits = wait_s and not piece.data and piece.file in ("", file) and piece.size >= offset
            if not waits or asyncio.get_running_loop().time() >= until:
                return piece
            await asyncio.sleep(0.02)

    def _piece(self, stream: str, offset: int, most: int, file: str) -> LogPiece:
        data = (
            self.printed
            if stream == "output"
            else b"2026-11-24T03:12:07Z warning  drain-asked: by hand (uid 1004)\n"
        )
        if data is None:
            raise NotFound("no_log", "there is no output (any more)")
        name = f"fd00-{self.files}" if stream == "output" else "events"
        if file not in ("", name):
            offset = 0
        start = offset if offset >= 0 else max(0, len(data) + offset)
        return LogPiece(bytes(data[start : start + most]), start, len(data), name, sample.NOW - 300)

    def _take(self, *intent: Any) -> None:
        self.intents.append(intent)
        if self.refuse:
            raise self.refuse.pop(0)
