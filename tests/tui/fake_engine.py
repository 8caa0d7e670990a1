"""An engine in memory: sends the changes it is given, remembers the intents it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Unpack

import msgspec

from saia_engine.client import ClientError, EngineUnreachable, EventPage, Intent, NotFound
from saia_engine.view import Change, LogPiece
from tests.tui import sample

HISTORY: dict[str, Any] = {
    "configured": "cccc00000003",
    "asked_for": "cccc00000003",
    "pin": None,
    "revisions": [
        {"revision": "aaaa00000001", "since": sample.NOW - 90_000, "good_at": sample.NOW - 89_000, "failed_at": None,
         "failure": "", "instances": 1, "kept": True, "spec": {}},
        {"revision": "bbbb00000002", "since": sample.NOW - 9_000, "good_at": None, "failed_at": sample.NOW - 8_000,
         "failure": "never ready\x1b[2J", "instances": 0, "kept": True, "spec": {}},
        {"revision": "cccc00000003", "since": sample.NOW - 600, "good_at": None, "failed_at": None,
         "failure": "", "instances": 1, "kept": True, "spec": {}},
    ],
}  # fmt: skip
DIFF: dict[str, Any] = {
    "file": "/etc/saia/engine.toml",
    "digest": "0123456789abcdef",
    "changed": True,
    "services": [
        {"service": "chat-large", "change": "changed", "means": ["2 replicas become 4"],
         "fields": [{"field": "replicas", "before": "2", "after": "4"}]},
    ],
    "proxies": [],
    "settings": [{"field": "poll_interval_s", "before": "15.0", "after": "30.0", "needs_restart": True}],
    "faults": [],
}  # fmt: skip


class FakeEngine:
    """Same methods as `EngineClient`. `refuse` holds errors for the next intents."""

    def __init__(self, tables: dict[str, sample.Rows] | None = None) -> None:
        self.tables = tables if tables is not None else sample.state()
        self.intents: list[tuple[Any, ...]] = []
        self.reasons: list[str] = []
        self.expected: list[dict[str, Any]] = []
        self.revision_history: dict[str, Any] = HISTORY
        self.diff: dict[str, Any] = DIFF
        self.refuse: list[ClientError] = []
        self.asked: list[tuple[Any, ...]] = []
        """Questions other than for the stream."""
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

    async def scale(self, service: str, replicas: int, **intent: Unpack[Intent]) -> None:
        self._take(intent, "scale", service, replicas)

    async def clear_override(self, service: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "clear_override", service)

    async def pause(self, service: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "pause", service)

    async def resume(self, service: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "resume", service)

    async def drain(self, instance: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "drain", instance)

    async def cancel(self, instance: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "cancel", instance)

    async def replace(self, instance: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "replace", instance)

    async def rollback(self, service: str, revision: str = "", **intent: Unpack[Intent]) -> None:
        self._take(intent, "rollback", service, revision)

    async def unpin(self, service: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "unpin", service)

    async def revisions(self, service: str) -> dict[str, Any]:
        return {**self.revision_history, "service": service}

    async def exclude(self, node: str, for_s: float, **intent: Unpack[Intent]) -> None:
        self._take(intent, "exclude", node, for_s)

    async def include(self, node: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "include", node)

    async def config_diff(self) -> dict[str, Any]:
        return self.diff

    async def apply_config(self, **intent: Unpack[Intent]) -> None:
        self._take(intent, "apply_config")

    async def maintenance(self, proxy: str, on: bool, **intent: Unpack[Intent]) -> None:
        self._take(intent, "maintenance", proxy, on)

    async def revoke_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "revoke_key", proxy, key)

    async def restore_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "restore_key", proxy, key)

    async def limit_key(
        self, proxy: str, key: str, limits: dict[str, int | None], **intent: Unpack[Intent]
    ) -> None:
        self._take(intent, "limit_key", proxy, key, limits)

    async def events(
        self, before: int | None = None, most: int = 200, *, operators: bool = False, severity: str = ""
    ) -> EventPage:
        self.asked.append(("events", before, operators, severity))
        if self.refuse:
            raise self.refuse.pop(0)
        return sample.older(before, most, operators=operators, severity=severity)

    async def history(self, table: str, row: str = "") -> dict[str, Any]:
        self.asked.append(("history", table, row))
        return sample.history(table, row, self.tables)

    async def acknowledge(self, alarm: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "acknowledge", alarm)
        self._mark(alarm, acked_by=1004, acked_at=sample.NOW)

    async def unacknowledge(self, alarm: str, **intent: Unpack[Intent]) -> None:
        self._take(intent, "unacknowledge", alarm)
        self._mark(alarm, acked_by=None, acked_at=None)

    def _mark(self, alarm: str, **marks: Any) -> None:
        self.put("alarms", {alarm: msgspec.structs.replace(self.tables["alarms"][alarm], **marks)})

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

    def _take(self, intent: Intent, *words: Any) -> None:
        """What was asked, whether it was confirmed; reason and expectation apart from it."""
        self.intents.append((*words, intent.get("confirm", False)))
        self.reasons.append(intent.get("reason", ""))
        self.expected.append(dict(intent.get("expect", {})))
        if self.refuse:
            raise self.refuse.pop(0)
