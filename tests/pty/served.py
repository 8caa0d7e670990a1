"""`python -m tests.pty.served DIRECTORY [--quiet]`: the sample state behind the engine's own API.

Intents are written to `intents.jsonl` in the directory. `--quiet`: nothing in the state moves for minutes.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from saia_engine.api.hub import Hub
from saia_engine.api.port import Order
from saia_engine.api.server import serving
from saia_engine.reports import GateReport
from tests.tui import sample


class SampleEngine:
    """Answers as an engine would whose state is the sample."""

    def __init__(self, directory: Path, tables: dict[str, sample.Rows]) -> None:
        self.hub = Hub()
        self._intents = directory / "intents.jsonl"
        self._alarms = {key: _sendable(row) for key, row in tables["alarms"].items()}
        for name, rows in tables.items():
            self.hub.publish(name, {key: _sendable(row) for key, row in rows.items()})

    @property
    def acts(self) -> SampleEngine:
        return self

    def scale(self, order: Order, service: str, replicas: int) -> dict[str, Any]:
        return self._take("scale", service, replicas)

    def clear_override(self, order: Order, service: str) -> dict[str, Any]:
        return self._take("clear_override", service)

    def drain(self, order: Order, instance: str) -> dict[str, Any]:
        return self._take("drain", instance)

    def maintenance(self, order: Order, proxy: str, on: bool) -> dict[str, Any]:
        return self._take("maintenance", proxy, on)

    def acknowledge(self, order: Order, alarm: str) -> dict[str, Any]:
        row = msgspec.structs.replace(self._alarms[alarm], acked_by=order.uid, acked_at=sample.NOW)
        self._alarms = {**self._alarms, alarm: row}
        self.hub.publish("alarms", self._alarms)
        return self._take("acknowledge", alarm)

    def order_key(
        self, order: Order, proxy: str, key: str, changes: Mapping[str, bool | int | None]
    ) -> dict[str, Any]:
        return self._take("order_key", proxy, key, dict(changes))

    def keys(self, proxy: str) -> dict[str, Any]:
        return {}

    def plan(self) -> dict[str, Any]:
        return {}

    def report(self, report: GateReport) -> dict[str, Any]:
        return {"revision": 0, "maintenance": False}

    def __getattr__(self, act: str) -> Callable[..., dict[str, Any]]:
        """All other acts."""
        return lambda order, *target: self._take(act, *target)

    def _take(self, *intent: Any) -> dict[str, Any]:
        with self._intents.open("a") as file:
            file.write(json.dumps(intent) + "\n")
        return {}


def _sendable(row: msgspec.Struct) -> msgspec.Struct:
    return msgspec.json.decode(sample.encode(row), type=type(row))


def quiet() -> dict[str, sample.Rows]:
    """The sample without anything under two minutes, and without traffic."""
    tables = sample.state()
    for table, field in (("services", "next_end"), ("instances", "end"), ("jobs", "end_time")):
        for key, row in tables[table].items():
            if (at := getattr(row, field)) is not None:
                tables[table][key] = msgspec.structs.replace(row, **{field: at + 10_000.0})
    for key, row in tables["services"].items():
        tables["services"][key] = msgspec.structs.replace(row, requests_per_s=0.0)
    return tables


async def serve(directory: Path, tables: dict[str, sample.Rows]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine: Any = SampleEngine(directory, tables)
    async with serving(
        engine,
        operator_socket=directory / "operator" / "operator.sock",
        gate_socket=directory / "gate" / "gate.sock",
    ):
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), quiet() if "--quiet" in sys.argv else sample.state()))
