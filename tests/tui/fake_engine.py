"""An engine in memory: sends the changes it is given, remembers the intents it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from saia_engine.client import ClientError, EngineUnreachable
from saia_engine.view import Change
from tests.tui import sample


class FakeEngine:
    """Same methods as `EngineClient`. `refuse` holds errors for the next intents."""

    def __init__(self, tables: dict[str, sample.Rows] | None = None) -> None:
        self.tables = tables if tables is not None else sample.state()
        self.intents: list[tuple[Any, ...]] = []
        self.refuse: list[ClientError] = []
        self.reachable = True
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

    async def acknowledge(self, alarm: str) -> None:
        self._take("acknowledge", alarm)
        self._mark(alarm, acked_by=1004, acked_at=sample.NOW)

    async def unacknowledge(self, alarm: str) -> None:
        self._take("unacknowledge", alarm)
        self._mark(alarm, acked_by=None, acked_at=None)

    def _mark(self, alarm: str, **marks: Any) -> None:
        self.put("alarms", {alarm: msgspec.structs.replace(self.tables["alarms"][alarm], **marks)})

    async def instance_story(self, instance: str) -> dict[str, Any]:
        if not self.reachable:
            raise EngineUnreachable("no engine answers at /run/saia/operator/operator.sock")
        return sample.story(instance)

    def _take(self, *intent: Any) -> None:
        self.intents.append(intent)
        if self.refuse:
            raise self.refuse.pop(0)
