"""Slurm in memory behind the engine's port, with each of its lies at a switch, and the agents of its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from saia_engine.clock import SteadyClock
from saia_engine.front import Endpoint
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.lease import Lease
from saia_engine.model import (
    AgentStatus,
    Instance,
    Job,
    LaunchSpec,
    Node,
    Partition,
    Reservation,
    Service,
    Snapshot,
    State,
    Timing,
)
from saia_engine.probes import Target
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.revision_files import RevisionFiles
from saia_engine.slurm.port import JobRequest, SlurmUnavailable, SubmitRejected, SubmitUnknown
from saia_engine.store import Event, Store

POLL_S = 15.0
LIMIT_S = 3600
SPEC = LaunchSpec(command=("serve",), environment=(("TOKEN", "s3cret"),), time_limit_s=LIMIT_S)
TIMING = Timing(
    lead_floor_s=300, min_ready_s=10, drain_deadline_s=120, admission_margin_s=60, safety_margin_s=30
)
CHAT = Service("chat", SPEC, TIMING, replicas=2, min_available=1)


class MemorySlurm:
    """Starts what is submitted at the next `observe`."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.jobs: dict[int, Job] = {}
        self.next_id = 1
        self.boot = 5.0
        self.clock_ahead_s = 0.0
        self.wall_ahead_s = 0.0
        """Of the engine's host."""
        self.told_ahead_s: float | None = 0.0
        """How far ahead of the true time the controller's clock is; None: it does not tell."""
        self.unavailable = ""
        self.hidden: set[int] = set()
        self.submit_outcomes: list[str] = []
        """Of the next submits: `rejected`, `unknown` (it did not run), `ran` (unknown, but it did)."""
        self.starts = True
        self.submits: list[str] = []
        self.cancels: list[tuple[int, str]] = []
        self.during_submit = lambda: None
        self.specs: dict[int, LaunchSpec] = {}
        self.nodes: dict[str, Node] = {}
        """Empty: all runs on gpu01, which nobody shows."""
        self.reservations: tuple[Reservation, ...] = ()
        self.queue_s = 0.0
        self.crashes: Callable[[Job, LaunchSpec], bool] = lambda job, spec: False
        """Asked one poll after a start."""

    async def observe(self) -> Snapshot:
        if self.unavailable:
            raise SlurmUnavailable(self.unavailable)
        for job in self.jobs.values():
            if job.state == "PENDING" and self.starts and not job.reason.startswith("JobHeld"):
                self._start(job)
            elif job.state == "RUNNING" and self.crashes(job, self.specs.get(job.id, SPEC)):
                self.change(job.id, state="FAILED", reason="NonZeroExitCode", end_time=self.now)
            elif job.state == "RUNNING" and job.end_time and job.end_time <= self.now:
                self.change(job.id, state="TIMEOUT")
        shown = tuple(job for job in self.jobs.values() if job.id not in self.hidden)
        nodes = tuple(self.nodes.values())
        partitions = (Partition("gpu", nodes=tuple(self.nodes), default=True),) if nodes else ()
        told = 0.0 if self.told_ahead_s is None else float(int(self.now + self.told_ahead_s))
        return Snapshot(
            self.now + self.clock_ahead_s, shown, nodes, self.boot, self.reservations, partitions, told
        )

    def _start(self, job: Job) -> None:
        node = self._place(job)
        if node and self.now - job.submit_time >= self.queue_s:
            ends = self.now + (job.time_limit_s or 0)
            self.change(job.id, state="RUNNING", start_time=self.now, end_time=ends, nodes=(node,))

    def _place(self, job: Job) -> str:
        """The least used node that is not excluded, drained, or reserved before the job would end."""
        if not self.nodes:
            return "gpu01"
        excluded = self.specs.get(job.id, SPEC).exclude.split(",")
        ends = self.now + (job.time_limit_s or 0)
        closed = {n for r in self.reservations if r.start < ends and r.end > self.now for n in r.nodes}
        used = Counter(j.nodes[0] for j in self.live() if j.nodes)
        free = [n for n in self.nodes.values() if n.usable and n.name not in {*excluded, *closed}]
        return min((n.name for n in free), key=lambda n: (used[n], n), default="")

    async def submit(self, request: JobRequest) -> int:
        self.submits.append(request.name)
        self.during_submit()
        outcome = self.submit_outcomes.pop(0) if self.submit_outcomes else "taken"
        if outcome == "rejected":
            raise SubmitRejected("Invalid partition name specified")
        if outcome == "unknown":
            raise SubmitUnknown("sbatch timed out")
        job_id = self.add(request.name, time_limit_s=request.spec.time_limit_s)
        self.specs[job_id] = request.spec
        if outcome == "ran":
            raise SubmitUnknown("sbatch timed out")
        return job_id

    async def cancel(self, job_id: int, name: str) -> None:
        self.cancels.append((job_id, name))
        job = self.jobs.get(job_id)
        if job is not None and job.name == name and not job.ended:
            self.change(job_id, state="CANCELLED", end_time=self.now)

    async def close(self) -> None:
        pass

    def add(self, name: str, **fields) -> int:
        job_id = self.next_id
        self.next_id += 1
        self.jobs[job_id] = Job(
            **{
                "id": job_id,
                "name": name,
                "user": "svc",
                "state": "PENDING",
                "submit_time": self.now,
                "time_limit_s": LIMIT_S,
                **fields,
            }
        )
        return job_id

    def change(self, job_id: int, **fields) -> None:
        self.jobs[job_id] = replace(self.jobs[job_id], **fields)

    def requeue(self, job_id: int) -> None:
        restarts = self.jobs[job_id].restarts + 1
        self.change(
            job_id,
            state="PENDING",
            restarts=restarts,
            nodes=(),
            start_time=None,
            end_time=None,
            submit_time=self.now,
        )

    def live(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.ended]


class Ears:
    """In place of Probes: what the agents of running jobs say, as long as they can be reached."""

    def __init__(self, slurm: MemorySlurm) -> None:
        self.statuses: dict[str, AgentStatus] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.faults: dict[str, str] = {}
        self.listening_since: dict[str, float] = {}
        self.targets: dict[str, Target] = {}
        self.open: dict[str, int] = {}
        self.unreachable: set[str] = set()
        self.unready: set[str] = set()
        self.hanging: set[str] = set()
        self.load_s: Callable[[str], float] = lambda name: 0.0
        """From its job's start to readiness, by instance."""
        self._slurm = slurm

    def watch(self, targets: Iterable[Target]) -> None:
        wanted = {target.instance: target for target in targets}
        for name, target in wanted.items():
            known = self.targets.get(name)
            if known is None or known.generation != target.generation:
                self.statuses.pop(name, None)
                self.listening_since[name] = self._slurm.now
        for name in self.targets.keys() - wanted.keys():
            self.statuses.pop(name, None)
        self.targets = wanted

    def listen(self) -> None:
        running = {job.name: job for job in self._slurm.jobs.values() if job.state == "RUNNING"}
        for name, target in self.targets.items():
            job = running.get(f"saia.{name}")
            if job is not None and name not in self.unreachable:
                loaded = self._slurm.now >= (job.start_time or 0.0) + self.load_s(name)
                self.statuses[name] = AgentStatus(
                    self._slurm.now,
                    ready=loaded and name not in self.unready and name not in self.hanging,
                    draining=target.drain,
                    open_connections=self.open.get(name, 0),
                    verified=True,
                    alive=name not in self.hanging,
                    fault="no answer within 20 s" if name in self.hanging else "",
                )


class Bench:
    """A reconciler with a real journal, lease and instance directories, over a Slurm in memory."""

    def __init__(
        self, directory: Path, service: Service | None = CHAT, slurm: MemorySlurm | None = None
    ) -> None:
        self.directory = directory
        self.slurm = slurm or MemorySlurm()
        self.services = {service.name: service} if service else {}
        self.dirs = InstanceDirs(directory / "instances")
        self.lease = Lease.acquire(directory, directory)
        self.start()

    def one_replica(self, **changes: Any) -> None:
        """One is enough, of a service so changed."""
        self.services["chat"] = replace(CHAT, replicas=1, **changes)
        self.reconciler.configure(self.services, 120)

    def start(self, submits_per_hour: int = 120, installation: str = "k7f3") -> None:
        """The engine's first, or next, start."""
        self.ears = Ears(self.slurm)
        self.events: list[Event] = []
        self.store = Store(self.directory / "state.db")
        self.reconciler = Reconciler(
            identity=Identity(installation, "hpc", "svc"),
            services=self.services,
            poll_interval_s=POLL_S,
            submits_per_hour=submits_per_hour,
            slurm=self.slurm,
            store=self.store,
            specs=RevisionFiles(self.directory / "revisions"),
            lease=self.lease,
            dirs=self.dirs,
            probes=self.ears,  # type: ignore[arg-type]
            clock=SteadyClock(lambda: self.slurm.now + self.slurm.wall_ahead_s, lambda: self.slurm.now),
            on_event=self.events.append,
        )

    def restart(self, **options) -> None:
        self.store.close()
        self.start(**options)

    async def polls(self, count: int = 1) -> None:
        for _ in range(count):
            self.slurm.now += POLL_S
            self.ears.listen()
            await self.reconciler.poll()

    async def settled(self) -> list[Instance]:
        """Polls until as many are ready as wanted."""
        for _ in range(20):
            await self.polls()
            ready = self.of(State.READY)
            if len(ready) >= sum(s.replicas for s in self.reconciler.desired.services.values()):
                return ready
        raise AssertionError(self.reconciler.instances)

    def of(self, *states: State) -> list[Instance]:
        return [i for i in self.reconciler.instances.values() if i.state in states]

    def live(self) -> list[Instance]:
        return [i for i in self.reconciler.instances.values() if i.live]

    def codes(self) -> list[str]:
        return [event.code for event in self.events]

    def alarmed(self) -> set[str]:
        return {code for code, _ in self.reconciler.alarms.current}
