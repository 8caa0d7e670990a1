"""A small engine in memory behind the real API: it keeps what it is told, and shows it in its tables."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saia_engine.api.hub import Hub
from saia_engine.api.port import Order, Refused
from saia_engine.api.server import serving
from saia_engine.instance_logs import LogQuestion
from saia_engine.record.desk import RecordDesk
from saia_engine.reports import GateReport
from saia_engine.view import (
    AlarmView,
    EngineView,
    EventView,
    InstanceView,
    JobView,
    LogPiece,
    ProxyView,
    ServiceView,
)

OVER: dict[str, Any] = {
    "instance": {
        "id": "i1.hpc.chat.dddd0004",
        "service": "chat",
        "spec": {"time_limit_s": 7200},
        "revision": "aaaa00000001",
        "created_at": 1_700_000_000.0,
        "state": "failed",
        "state_since": 1_700_000_900.0,
        "replaces": "i1.hpc.chat.aaaa0001",
        "generation": 1,
        "job_id": 4711,
        "submit_time": 1_700_000_001.0,
        "node": "gpu03",
        "started_at": 1_700_000_060.0,
        "end_time": 1_700_007_260.0,
        "first_ready_at": None,
        "drain": None,
        "ended_at": 1_700_000_900.0,
        "outcome": "the service exited with code 1",
        "end_state": "FAILED",
        "log_tail": "loading \x1b[31mmodel\nCUDA out of memory",
    },
    "log": "/shared/instances/i1.hpc.chat.dddd0004/output.log",
    "events": [
        {
            "seq": 1,
            "at": 1_700_000_000.0,
            "code": "launch",
            "severity": "info",
            "subject": "i1.hpc.chat.dddd0004",
            "text": "too-few: 1 of 2 replicas are there or on their way",
            "uid": None,
            "detail": {
                "rule": "too-few",
                "inputs": {"have": 1, "wanted": 2, "lead_s": 600.0, "until": 1_700_000_010.0},
                "refused": [
                    ["waiting for gpu01", "it is drained for a maintenance that begins before the end"]
                ],
            },
        },
        {
            "seq": 7,
            "at": 1_700_000_900.0,
            "code": "instance-failed",
            "severity": "warning",
            "subject": "i1.hpc.chat.dddd0004",
            "text": "the service exited with code 1",
            "uid": 0,
            "detail": {},
        },
    ],
}
HISTORY: dict[str, Any] = {
    "service": "chat",
    "configured": "cccc00000003",
    "asked_for": "cccc00000003",
    "pin": None,
    "revisions": [
        {
            "revision": "aaaa00000001",
            "since": 1_700_000_000.0,
            "good_at": 1_700_000_100.0,
            "failed_at": None,
            "failure": "",
            "instances": 2,
            "kept": True,
            "spec": {"command": ["serve"], "gres": "gpu:1"},
        },
        {
            "revision": "cccc00000003",
            "since": 1_700_009_000.0,
            "good_at": None,
            "failed_at": None,
            "failure": "",
            "instances": 0,
            "kept": True,
            "spec": {"command": ["serve", "--new"], "gres": "gpu:2"},
        },
    ],
}


KEYS: dict[str, Any] = {
    "proxy": "cloud",
    "now": 1_700_000_600.0,
    "connected": True,
    "revision": 7,
    "acknowledged": False,
    "keys": [
        {
            "name": "alice",
            "ordered": {
                "revoked": True,
                "concurrency": 0,
                "per_minute": 30,
                "uid": 1000,
                "at": 1_700_000_000.0,
            },
            "in_force": True,
            "said": {
                "name": "alice",
                "models": "llama-3 service:\x1b[31mapp",
                "revoked": True,
                "concurrency": 0,
                "per_minute": 30,
                "in_flight": 1,
                "requests": 120,
                "refused": 3,
            },
        },
        {
            "name": "carol",
            "ordered": {
                "revoked": True,
                "concurrency": None,
                "per_minute": None,
                "uid": 0,
                "at": 1_700_000_599.0,
            },
            "in_force": False,
            "said": None,
        },
    ],
}


DIFF: dict[str, Any] = {
    "file": "/etc/saia/engine.toml",
    "digest": "0123456789abcdef",
    "changed": True,
    "services": [
        {
            "service": "chat",
            "change": "changed",
            "fields": [
                {"field": "replicas", "before": "2", "after": "3"},
                {"field": "launch.environment.TOKEN", "before": "", "after": "(not shown)"},
            ],
            "means": ["2 replicas become 3"],
        },
        {"service": "old\x1b[2J", "change": "removed", "fields": [], "means": ["it ends"]},
    ],
    "proxies": [{"proxy": "cloud", "change": "new", "fields": []}],
    "settings": [
        {"field": "submits_per_hour", "before": "120", "after": "240", "needs_restart": False},
        {"field": "poll_interval_s", "before": "15.0", "after": "30.0", "needs_restart": True},
    ],
    "faults": [],
}


class FakeEngine:
    def __init__(self, record: Path = Path("/nonexistent")) -> None:
        self.hub = Hub()
        self.record = RecordDesk(record)
        now = time.time()
        self.min_available = {"chat": 1, "embed": 0}
        self.configured = {"chat": 2, "embed": 1}
        self.overrides: dict[str, tuple[int, int]] = {}
        self.drained: list[tuple[int, str]] = []
        self.paused: dict[str, tuple[int, str]] = {}
        self.cancelled: list[tuple[int, str]] = []
        self.reasons: list[str] = []
        self.diff: dict[str, Any] = DIFF
        self.in_maintenance: dict[str, bool] = {"cloud": False}
        self.key_orders: dict[str, dict[str, Any]] = {}
        self.reports: list[GateReport] = []
        self.revision = 0
        self.replaced: list[tuple[int, str]] = []
        self.good = {"chat": ["aaaa00000001"], "embed": []}
        self.bad = {"chat": ["bbbb00000002"], "embed": []}
        self.pins: dict[str, tuple[str, int]] = {}
        self.excluded: dict[str, tuple[float, str, int]] = {}
        self.nodes = {"gpu01": "idle", "Gpu_02.x": "idle"}
        self.frozen = False
        self.acked: dict[str, tuple[int, str]] = {}
        self.printed = {"i1.hpc.chat.aaaa0001": b"loading\x1b[31m\nready \xff\n"}
        self.log_questions: list[LogQuestion] = []
        self._events: list[tuple[int, str, str]] = []
        self.hub.publish(
            "engine",
            {
                "engine": EngineView(
                    installation="i1",
                    cluster="hpc",
                    kind="slurm",
                    version="0.1.0",
                    pid=1,
                    host="login1",
                    started_at=now,
                    now=now,
                    poll_interval_s=15.0,
                    snapshot_at=now,
                )
            },
        )
        self.instances = {
            name: InstanceView(
                id=name, service="chat", state=state, since=now, end=end, job_id=job, node="gpu01"
            )
            for name, state, end, job in (
                ("i1.hpc.chat.aaaa0001", "ready", now + 3600, 11),
                ("i1.hpc.chat.bbbb0002", "ready", now + 7200, 12),
                ("i1.hpc.chat.bbcc0003", "starting", None, 13),
            )
        }
        self.hub.publish("instances", self.instances)
        self.show()

    def show(self) -> None:
        self.hub.publish(
            "services",
            {
                name: ServiceView(
                    name=name,
                    models=[],
                    replicas=self.overrides.get(name, (replicas, 0))[0],
                    configured_replicas=replicas,
                    min_available=self.min_available[name],
                    override_by_uid=self.overrides[name][1] if name in self.overrides else None,
                )
                for name, replicas in self.configured.items()
            },
        )
        self.hub.publish(
            "proxies",
            {n: ProxyView(name=n, services=["*"], maintenance=on) for n, on in self.in_maintenance.items()},
        )
        self.hub.publish(
            "events",
            {
                str(seq): EventView(
                    seq=seq, at=0.0, code=code, severity="info", subject=subject, text="asked for", uid=uid
                )
                for seq, (uid, code, subject) in enumerate(self._events)
            },
        )

    def alarm(self, text: str, severity: str = "critical") -> None:
        row = AlarmView(code="a", severity=severity, subject="s", text=text, since=0.0)
        self.hub.publish("alarms", {"a:s": row})

    @property
    def acts(self) -> FakeEngine:
        return self

    def scale(self, order: Order, service: str, replicas: int) -> dict[str, Any]:
        self._known(self.configured, service)
        self._unchanged(order, replicas=self.overrides.get(service, (self.configured[service],))[0])
        if replicas < self.min_available[service] and not order.confirm:
            raise Refused("needs_confirmation", f"{service} would have fewer than min_available", 409)
        self.overrides[service] = (replicas, order.uid)
        self._note(order, "scale", service)
        return {"service": service, "replicas": replicas}

    async def clear_override(self, order: Order, service: str) -> dict[str, Any]:
        self._known(self.configured, service)
        self.overrides.pop(service, None)
        self._note(order, "clear-override", service)
        return {"service": service, "replicas": self.configured[service]}

    def pause(self, order: Order, service: str) -> dict[str, Any]:
        self._known(self.configured, service)
        if not order.confirm:
            raise Refused("needs_confirmation", f"{service} would be stopped")
        self.paused[service] = (order.uid, order.reason)
        self._note(order, "paused", service)
        return {"service": service, "before": self.configured[service], "replicas": 0}

    def resume(self, order: Order, service: str) -> dict[str, Any]:
        self._known(self.paused, service)
        del self.paused[service]
        self._note(order, "resumed", service)
        return {"service": service, "before": 0, "replicas": self.configured[service]}

    async def drain(self, order: Order, instance: str) -> dict[str, Any]:
        self._known(self.instances, instance)
        row = self.instances[instance]
        self._unchanged(order, state=row.state, generation=row.generation)
        self.drained.append((order.uid, instance))
        self._note(order, "drain", instance)
        return {"instance": instance}

    def cancel(self, order: Order, instance: str) -> dict[str, Any]:
        self._known(self.instances, instance)
        if not order.confirm:
            raise Refused("needs_confirmation", "all that is open on it is cut")
        self.cancelled.append((order.uid, instance))
        self._note(order, "drain", instance)
        return {"instance": instance}

    def replace(self, order: Order, instance: str) -> dict[str, Any]:
        self._known(self.instances, instance)
        self.replaced.append((order.uid, instance))
        return {"instance": instance}

    def rollback(self, order: Order, service: str, revision: str) -> dict[str, Any]:
        self._known(self.configured, service)
        fits = [r for r in (*self.good[service], *self.bad[service]) if r.startswith(revision)]
        if not fits:
            raise Refused("not_possible", f"{service} has no earlier revision to go back to")
        if revision and fits[0] in self.bad[service] and not order.confirm:
            raise Refused("needs_confirmation", f"revision {fits[0]} of {service} has failed: never ready")
        self.pins[service] = (fits[0], order.uid)
        return {"service": service, "revision": fits[0], "instead_of": "cccc00000003"}

    async def unpin(self, order: Order, service: str) -> dict[str, Any]:
        self._known(self.pins, service)
        del self.pins[service]
        return {"service": service, "revision": "cccc00000003"}

    def exclude(self, order: Order, node: str, for_s: float) -> dict[str, Any]:
        self._known(self.nodes, node)
        if len(self.excluded) + 1 == len(self.nodes) and not order.confirm:
            raise Refused("needs_confirmation", f"without {node} there is no node left")
        self.excluded[node] = (for_s, order.reason, order.uid)
        return {"node": node, "until": for_s}

    def include(self, order: Order, node: str) -> dict[str, Any]:
        self._known(self.excluded, node)
        del self.excluded[node]
        return {"node": node}

    def unfreeze(self, order: Order) -> dict[str, Any]:
        if not self.frozen:
            raise Refused("not_frozen", "nothing is frozen")
        if not order.confirm:
            raise Refused("needs_confirmation", "what runs all the same would run twice")
        self.frozen = False
        return {"unfrozen": True}

    def acknowledge(self, order: Order, alarm: str) -> dict[str, Any]:
        if self.hub.row("alarms", alarm) is None:
            raise Refused("not_found", f"there is no alarm {alarm}", 404)
        self.acked[alarm] = (order.uid, order.reason)
        return {"alarm": alarm, "uid": order.uid, "at": 0.0}

    def unacknowledge(self, order: Order, alarm: str) -> dict[str, Any]:
        self._known(self.acked, alarm)
        del self.acked[alarm]
        return {"alarm": alarm}

    def config_diff(self) -> dict[str, Any]:
        return self.diff

    def apply_config(self, order: Order) -> dict[str, Any]:
        self._unchanged(order, digest=self.diff["digest"])
        self._note(order, "config-reloaded", "config")
        return self.diff

    def known_instances(self) -> dict[str, Any]:
        return {"instances": [*self.instances, OVER["instance"]["id"], "i1.hpc.gone.eeee0005"]}

    async def instance_story(self, instance: str) -> dict[str, Any]:
        self._known({OVER["instance"]["id"]: OVER}, instance)
        return OVER

    async def instance_log(self, instance: str, asked: LogQuestion) -> LogPiece:
        self._known(self.printed, instance)
        self.log_questions.append(asked)
        text = (
            self.printed[instance] if asked.stream == "output" else b"2026-11-27T03:12:07Z info launch: x\n"
        )
        start = asked.offset if asked.offset >= 0 else max(0, len(text) + asked.offset)
        return LogPiece(text[start : start + asked.most], start, len(text), "fd00-1", 1_700_000_000.25)

    def service_story(self, service: str) -> dict[str, Any]:
        self._known({**self.configured, "gone": 0}, service)
        return {**HISTORY, "service": service, "replicas": 2, "override": None, "instances": [], "events": []}

    def revisions(self, service: str) -> dict[str, Any]:
        self._known(self.configured, service)
        return HISTORY

    def maintenance(self, order: Order, proxy: str, on: bool) -> dict[str, Any]:
        self._known(self.in_maintenance, proxy)
        self.in_maintenance[proxy] = on
        self.revision += 1
        self._note(order, "maintenance", proxy)
        return {"proxy": proxy, "maintenance": on}

    def order_key(
        self, order: Order, proxy: str, key: str, changes: Mapping[str, bool | int | None]
    ) -> dict[str, Any]:
        self._known(self.in_maintenance, proxy)
        before = self.key_orders.get(key, {"revoked": False, "concurrency": None, "per_minute": None})
        self.key_orders[key] = {**before, **changes}
        self._note(order, "key-ordered", proxy)
        known = {"alice": True, "bob": None}.get(key, False)
        return {"proxy": proxy, "key": key, "known": known, "revision": 1, **self.key_orders[key]}

    def keys(self, proxy: str) -> dict[str, Any]:
        self._known(self.in_maintenance, proxy)
        return KEYS

    def events(self, before: int, most: int, operators: bool, severities: Sequence[str]) -> dict[str, Any]:
        found = [
            EventView(
                seq=seq,
                at=0.0,
                code="scale",
                severity="info",
                subject="chat",
                text=f"{operators} {severities}",
            )
            for seq in range(min(before, 1000) - 1, 0, -1)
        ]
        return {"events": found[:most], "before": found[most - 1].seq if len(found) >= most else 0}

    def history(self, table: str, row: str) -> dict[str, Any]:
        if row:
            self._known({"chat": 0, "cloud/al ice": 0}, row)
            return {"step_s": 10.0, "end": 100.0, "row": row, "figures": {"requests_per_s": [1.0, None]}}
        return {"step_s": 10.0, "end": 100.0, "rows": {table: [0.5]}}

    def plan(self) -> dict[str, Any]:
        return {
            "actions": [
                {"act": "launch", "subject": "chat", "rule": "missing", "text": "1 of 2", "inputs": {}}
            ],
            "waiting": [],
            "alarms": [],
        }

    def report(self, report: GateReport) -> dict[str, Any]:
        if report.proxy not in self.in_maintenance:
            raise Refused("not_found", f"there is no proxy {report.proxy}", 404)
        self.reports.append(report)
        return {"revision": self.revision, "maintenance": self.in_maintenance[report.proxy]}

    def _known(self, table: dict[str, Any], name: str) -> None:
        if name not in table:
            raise Refused("not_found", f"there is no {name}", 404)

    def _unchanged(self, order: Order, **facts: Any) -> None:
        for name, seen in order.seen.items():
            if facts[name] != seen:
                raise Refused("changed", f"{name} was {seen}, and is {facts[name]} now")

    def _note(self, order: Order, code: str, subject: str) -> None:
        self._events.append((order.uid, code, subject))
        self.reasons.append(order.reason)
        self.show()


@dataclass
class Served:
    engine: FakeEngine
    directory: Path

    @property
    def operator(self) -> Path:
        return self.directory / "run" / "operator" / "operator.sock"

    @property
    def gate(self) -> Path:
        return self.directory / "run" / "gate" / "gate.sock"

    @property
    def record(self) -> Path:
        return self.directory / "record"


@asynccontextmanager
async def served(operators_group: str = "", gate_group: str = "") -> AsyncIterator[Served]:
    """The fake engine behind the real server, in a short directory of its own."""
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="saia-api."))
    directory.chmod(0o711)
    served = Served(FakeEngine(directory / "record"), directory)
    try:
        async with serving(
            served.engine,
            operator_socket=served.operator,
            gate_socket=served.gate,
            operators_group=operators_group,
            gate_group=gate_group,
        ):
            yield served
    finally:
        shutil.rmtree(directory)


def jobs(count: int, reason: str = "") -> dict[str, JobView]:
    return {
        str(n): JobView(
            id=n, name=f"train-{n}", user="alice", state="RUNNING", reason=reason, partition="gpu", gpus=4
        )
        for n in range(count)
    }
