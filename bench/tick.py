"""What one tick costs: squeue's and sinfo's text, as the parser meets it, through the real reconciler.

    python -m bench.tick [--jobs 1000 ...] [--services 10 ...] [--ticks 5] [--json FILE]

A tick parses the text (`parse`), folds it into the records (`fold`), plans (`plan`), and, for those who look
on, makes the rows of the state stream (`show`). All services stand as they should, as they do most of the time.
Times are seconds of processor time, on one core, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from saia_engine import rows
from saia_engine.api.hub import Hub
from saia_engine.clock import SteadyClock
from saia_engine.edge import logs
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.lease import Lease
from saia_engine.model import AgentStatus, Instance, LaunchSpec, Service, Snapshot, State, Timing, WaitSample
from saia_engine.planner.lead import shape
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.relays import Relays
from saia_engine.revision_files import RevisionFiles
from saia_engine.slurm import text
from saia_engine.slurm.port import JobRequest
from saia_engine.store import Store

USER = "svc"
REPLICAS = 2
POLL_S = 15.0
STARTS = 10
"""Of each service, in the last days."""
NODES = 500
NOW = 1_795_516_645.0
LIMIT_S = 86_400
TARGET = (10_000, 200, 0.5)
"""So many foreign jobs and services of ours within so many seconds of parse, fold and plan."""
RESERVATION = (
    "ReservationName=maint StartTime=1795900000 EndTime=1795950000 Duration=13:53:20 Nodes=gpu[0001-0010]"
    " NodeCnt=10 CoreCnt=640 Features=(null) PartitionName=(null) Flags=MAINT,IGNORE_JOBS,SPEC_NODES"
    " TRES=cpu=640 Users=root Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE\n"
)
"""As `scontrol --oneliner show reservation` prints it."""
RESULTS = Path(__file__).parent / "results-tick.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one tick."""

    parse: float
    fold: float
    plan: float
    show: float

    @property
    def tick(self) -> float:
        return self.parse + self.fold + self.plan


# ---------------------------------------------------------------- what Slurm prints


def squeue(foreign: int, ours: Iterable[Instance], nonce: str, seed: int) -> str:
    """Foreign jobs as a busy site has them: half of them wait, some have ended, some span nodes."""
    dice = random.Random(seed)
    lines = [_foreign_row(number, dice, nonce) for number in range(1, foreign + 1)]
    lines += [_own_row(instance, nonce) for instance in ours]
    dice.shuffle(lines)
    return "\n".join(lines) + "\n"


def row(plain: Iterable[object], texts: Iterable[str], nonce: str) -> str:
    return "".join(f"{value}|{nonce}|" for value in ("|".join(map(str, plain)), *texts))


def _foreign_row(number: int, dice: random.Random, nonce: str) -> str:
    submitted = int(NOW) - dice.randrange(200_000)
    state = dice.choices(("PENDING", "RUNNING", "COMPLETED", "COMPLETING", "FAILED"), (50, 40, 7, 1, 2))[0]
    user = f"user{dice.randrange(300)}"
    limit_h = dice.choice((1, 4, 12, 24, 72))
    limit = f"{limit_h // 24}-{limit_h % 24:02}:00:00" if limit_h >= 24 else f"{limit_h}:00:00"
    nodes = dice.choices((1, 2, 4, 16), (85, 8, 5, 2))[0]
    gpus = dice.choice((1, 2, 4))
    gpus_all = f"gres/gpu={nodes * gpus},gres/gpu:a100={nodes * gpus}"
    tres = f"cpu={nodes * 16},mem={nodes * 64000}M,node={nodes},billing={nodes * 16},{gpus_all}"
    reason, listed, start, end = "None", "", "N/A", "N/A"
    if state == "PENDING":
        reason = dice.choice(
            (
                "Priority",
                "Resources",
                "Dependency",
                "QOSMaxJobsPerUserLimit",
                "Nodes required for job are DOWN, DRAINED or reserved",
            )
        )
        tres = ""
    else:
        first = dice.randrange(1, NODES - nodes)
        listed = f"gpu{first:04}" if nodes == 1 else f"gpu[{first:04}-{first + nodes - 1:04}]"
        start, end = str(submitted + 600), str(submitted + 600 + limit_h * 3600)
    name = dice.choice(("train", "eval-run", "sweep_{}", "jupyter", "nf-align_{}", "bash")).format(number)
    plain = (
        number,
        state,
        submitted,
        start,
        end,
        limit,
        0,
        nodes,
        nodes * 16,
        4_294_900_000 - number,
        user,
        "gpu",
        listed,
    )
    return row(plain, (tres, "", f"gres:gpu:a100:{gpus}", reason, name), nonce)  # fmt: skip


def _own_row(i: Instance, nonce: str) -> str:
    start, end = int(i.started_at or 0), int(i.end_time or 0)
    plain = (
        i.job_id,
        "RUNNING",
        int(i.submit_time),
        start,
        end,
        "1-00:00:00",
        0,
        1,
        8,
        4_294_901_759,
        USER,
        "gpu",
        i.node,
    )
    tres = "cpu=8,mem=64000M,node=1,billing=8,gres/gpu=1,gres/gpu:a100=1"
    return row(plain, (tres, "", "gres:gpu:a100:1", "None", i.job_name), nonce)  # fmt: skip


def sinfo(nonce: str) -> str:
    lines = []
    for number in range(1, NODES + 1):
        plain = (
            f"gpu{number:04}",
            "mixed",
            f"gpu{number:04}",
            "48/16/0/64",
            512_000,
            "gpu*",
            "up",
            "3-00:00:00",
        )
        lines.append(row(plain, ("gpu:a100:4(S:0-1)", "gpu:a100:3(IDX:0-2)", "none"), nonce))
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the engine around it


class PrintedSlurm:
    """The Slurm port on text made beforehand; it notes what parsing took."""

    calls = 0

    def __init__(self, foreign: int, ours: list[Instance]) -> None:
        self._foreign = foreign
        self._ours = ours
        self._seed = 0
        self.parse_s = 0.0
        self.next_answer()

    def next_answer(self) -> None:
        """Another nonce and another queue, so that no cache knows the rows."""
        self._seed += 1
        self._nonce = secrets.token_hex(8)
        self._queue = squeue(self._foreign, self._ours, self._nonce, self._seed)
        self._info = sinfo(self._nonce)

    async def observe(self) -> Snapshot:
        began = time.process_time()
        jobs = text.jobs(self._queue, self._nonce)
        nodes = text.nodes(self._info, self._nonce)
        partitions = text.partitions(self._info, self._nonce)
        reserved = text.reservations(RESERVATION)
        boot = text.boot_time("BOOT_TIME               = 1795000000\n")
        self.parse_s = time.process_time() - began
        return Snapshot(NOW, jobs, nodes, boot, reserved, partitions)

    async def submit(self, request: JobRequest) -> int:
        raise AssertionError(f"{request.name} is submitted, though all stands as it should")

    async def cancel(self, job_id: int, name: str) -> None:
        raise AssertionError(f"job {job_id} is cancelled, though all stands as it should")

    async def close(self) -> None:
        pass


class Ears:
    """In place of the probes: every agent has just said that all is well."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self.endpoints: dict[str, object] = {}
        self.faults: dict[str, str] = {}
        self.listening_since: dict[str, float] = {}
        word = AgentStatus(NOW, ready=True, open_connections=3, verified=True)
        self.statuses = {i.id: word for i in instances}

    def watch(self, targets: Iterable[object]) -> None:
        for _ in targets:
            pass


def fleet(count: int) -> tuple[dict[str, Service], list[Instance]]:
    """So many services with their replicas, all ready."""
    services, instances = {}, []
    for number in range(count):
        name = f"service-{number}"
        spec = LaunchSpec(command=("serve", name), gres="gpu:a100:1", time_limit_s=LIMIT_S)
        services[name] = Service(name, spec, Timing(), REPLICAS, 1)
        for replica in range(REPLICAS):
            serial = number * REPLICAS + replica
            started = NOW - 7200 - serial
            instances.append(
                Instance(
                    id=f"bench.hpc.{name}.{serial:08x}",
                    service=name,
                    spec=spec,
                    revision=spec.revision,
                    created_at=started - 60,
                    state=State.READY,
                    state_since=started + 300,
                    job_id=1_000_000 + serial,
                    submit_time=int(started - 60),
                    user=USER,
                    node=f"gpu{1 + serial % NODES:04}",
                    started_at=int(started),
                    end_time=int(started) + LIMIT_S,
                    ready_since=started + 300,
                    served=True,
                    first_ready_at=started + 300,
                )
            )
    return services, instances


async def ticks(foreign: int, services: int, count: int, directory: Path) -> list[Cost]:
    wanted, instances = fleet(services)
    slurm, ears = PrintedSlurm(foreign, instances), Ears(instances)
    store = Store(directory / "state.db")
    store.save(*instances)
    _remember_starts(store, wanted)
    reconciler = Reconciler(
        identity=Identity("bench", "hpc", USER),
        services=wanted,
        poll_interval_s=POLL_S,
        submits_per_hour=1_000_000,
        slurm=slurm,
        store=store,
        specs=RevisionFiles(directory / "revisions"),
        lease=Lease.acquire(directory, directory),
        dirs=InstanceDirs(directory / "instances"),
        probes=cast(Any, ears),
        clock=SteadyClock(lambda: NOW, lambda: NOW),
    )
    hub, relays = Hub(), Relays()
    costs = []
    for _ in range(count + 1):
        slurm.next_answer()
        gc.collect()
        began = time.process_time()
        await reconciler.poll()
        polled_s = time.process_time() - began
        plan_s = _seconds(reconciler.preview)
        if costs and reconciler.last_plan.actions:
            raise AssertionError(f"acts in a settled fleet: {reconciler.last_plan.actions[:3]}")
        show_s = _seconds(lambda: _show(reconciler, ears, hub, relays, wanted))
        costs.append(Cost(slurm.parse_s, polled_s - slurm.parse_s - plan_s, plan_s, show_s))
    store.close()
    return costs[1:]  # the first fills caches and journal


def _remember_starts(store: Store, services: dict[str, Service]) -> None:
    """Past starts of each service, from which its lead time is learned."""
    for number, (name, service) in enumerate(services.items()):
        for start in range(STARTS):
            at = NOW - 86_400 * start
            store.add_sample(WaitSample(at, name, shape(service.launch), 60.0 + number, 200.0))


def _seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _show(reconciler: Reconciler, ears: Ears, hub: Hub, relays: Relays, wanted: dict[str, Service]) -> None:
    snapshot, records = reconciler.snapshot, reconciler.instances
    assert snapshot is not None
    on_top = {"pins": reconciler.pins, "leads": reconciler.leads, "rollouts": reconciler.rollouts}
    hub.publish("services", rows.services(wanted, wanted, {}, records, relays, NOW, pauses={}, **on_top))
    hub.publish("instances", rows.instances(records, ears.statuses, wanted, {}, {}, NOW))
    hub.publish("nodes", rows.nodes(snapshot, records, ears.statuses, reconciler.exclusions, NOW))
    hub.publish("jobs", rows.jobs(snapshot, {i.job_id: i.id for i in records.values()}))


# ---------------------------------------------------------------- figures


def measure(foreign: int, services: int, count: int) -> Cost:
    """The median of each part over some ticks."""
    with tempfile.TemporaryDirectory(prefix="saia-bench-") as directory:
        costs = asyncio.run(ticks(foreign, services, count, Path(directory)))
    return Cost(
        *(
            statistics.median(getattr(cost, part) for cost in costs)
            for part in ("parse", "fold", "plan", "show")
        )
    )


def main() -> int:
    options = argparse.ArgumentParser(prog="bench.tick", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    options.add_argument("--services", type=int, nargs="+", default=[10, 100, 200, 1_000])
    options.add_argument("--ticks", type=int, default=5)
    options.add_argument("--json", type=Path, default=RESULTS)
    asked = options.parse_args()
    logs.set_up(file=Path("/dev/null"))
    found = []
    print(
        f"{'jobs':>7} {'services':>8} {'parse':>8} {'fold':>8} {'plan':>8} {'tick':>8} {'show':>8}   seconds"
    )
    for services in asked.services:
        for foreign in asked.jobs:
            cost = measure(foreign, services, asked.ticks)
            figures = "".join(f"{s:9.4f}" for s in (cost.parse, cost.fold, cost.plan, cost.tick, cost.show))
            print(f"{foreign:7} {services:8}{figures}", flush=True)
            found.append({"foreign_jobs": foreign, "services": services, **asdict(cost), "tick": cost.tick})
    asked.json.write_text(json.dumps(_report(found, asked.ticks), indent=1) + "\n", encoding="utf-8")
    missed = [
        row
        for row in found
        if (row["foreign_jobs"], row["services"]) == TARGET[:2] and row["tick"] > TARGET[2]
    ]
    if missed:
        print(f"missed: {TARGET[0]} jobs and {TARGET[1]} services within {TARGET[2]} s a tick")
    return 1 if missed else 0


def _report(found: list[dict[str, float]], count: int) -> dict[str, Any]:
    return {
        "what": "seconds of processor time of one tick, medians; replicas of each service and nodes are fixed",
        "replicas": REPLICAS,
        "nodes": NODES,
        "ticks": count,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": [{key: round(value, 5) for key, value in row.items()} for row in found],
    }


if __name__ == "__main__":
    sys.exit(main())
