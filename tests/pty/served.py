"""`python -m tests.pty.served DIRECTORY [--quiet|--hostile]`: the sample state behind the engine's own API.

Intents are written to `intents.jsonl` in the directory. `--quiet`: nothing in the state moves for minutes.
`--hostile`: what strangers can choose is hostile.
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
from saia_engine.instance_logs import LogQuestion
from saia_engine.record.desk import RecordDesk
from saia_engine.reports import GateReport
from saia_engine.view import LogPiece
from tests.tui import sample
from tests.tui.hostile import CORPUS


class SampleEngine:
    """Answers as an engine would whose state is the sample."""

    def __init__(self, directory: Path, tables: dict[str, sample.Rows]) -> None:
        self.hub = Hub()
        self.record = RecordDesk(directory / "record")
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

    def pause(self, order: Order, service: str) -> dict[str, Any]:
        return self._take("pause", service)

    def resume(self, order: Order, service: str) -> dict[str, Any]:
        return self._take("resume", service)

    def cancel(self, order: Order, instance: str) -> dict[str, Any]:
        return self._take("cancel", instance)

    def replace(self, order: Order, instance: str) -> dict[str, Any]:
        return self._take("replace", instance)

    def rollback(self, order: Order, service: str, revision: str) -> dict[str, Any]:
        return self._take("rollback", service, revision)

    def unpin(self, order: Order, service: str) -> dict[str, Any]:
        return self._take("unpin", service)

    def exclude(self, order: Order, node: str, for_s: float) -> dict[str, Any]:
        return self._take("exclude", node, for_s)

    def include(self, order: Order, node: str) -> dict[str, Any]:
        return self._take("include", node)

    def unfreeze(self, order: Order) -> dict[str, Any]:
        return self._take("unfreeze")

    def apply_config(self, order: Order) -> dict[str, Any]:
        return self._take("apply_config")

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

    def config_diff(self) -> dict[str, Any]:
        return {}

    def known_instances(self) -> dict[str, Any]:
        return {"instances": list(sample.instances())}

    def service_story(self, service: str) -> dict[str, Any]:
        return {}

    def revisions(self, service: str) -> dict[str, Any]:
        return {}

    def instance_story(self, instance: str) -> dict[str, Any]:
        story = sample.story(instance)
        story["events"].append({**story["events"][0], "text": "".join(CORPUS)})
        for event in story["events"]:
            event["text"] = event["text"].encode("utf-8", "backslashreplace").decode()
        return story

    async def instance_log(self, instance: str, asked: LogQuestion) -> LogPiece:
        data = "\n".join(CORPUS).encode("utf-8", "surrogatepass") + b"\nthe end of it\n"
        start = asked.offset if asked.offset >= 0 else max(0, len(data) + asked.offset)
        if start >= len(data):
            await asyncio.sleep(asked.wait_s)
        return LogPiece(data[start : start + asked.most], start, len(data), "1-1")

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


def hostile() -> dict[str, sample.Rows]:
    """One job, node, alarm and event for each string of the corpus, and hostile words in the other tables."""
    tables = sample.state()
    for number, bad in enumerate(CORPUS):
        job = next(iter(sample.jobs(0).values()))
        job_id = 60_000 + number
        tables["jobs"][str(job_id)] = msgspec.structs.replace(
            job,
            id=job_id,
            name=bad,
            user=bad[:40],
            reason=bad,
            partition=bad,
            nodes="",
            instance="",
            state="PENDING",
        )
        node = sample.nodes()["gpu06"]
        tables["nodes"][f"n{number}"] = msgspec.structs.replace(
            node, name=f"n{number}", reason=bad, state=bad[:30]
        )
        alarm = next(iter(sample.alarms().values()))
        tables["alarms"][f"a{number}"] = msgspec.structs.replace(
            alarm, code=f"a{number}", subject=bad, text=bad
        )
        event = sample.events()["900"]
        tables["events"][str(1000 + number)] = msgspec.structs.replace(
            event, seq=1000 + number, subject=bad, text=bad
        )
        proxy = sample.proxies()["cloud"]
        tables["proxies"][f"p{number}"] = msgspec.structs.replace(
            proxy, name=f"p{number}", said_version=bad, peer=bad
        )
    for key, row in tables["instances"].items():
        tables["instances"][key] = msgspec.structs.replace(row, outcome="".join(CORPUS)[:500], node=CORPUS[0])
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
    tables = quiet() if "--quiet" in sys.argv else hostile() if "--hostile" in sys.argv else sample.state()
    asyncio.run(serve(Path(sys.argv[1]), tables))
