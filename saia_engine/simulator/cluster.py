"""The simulated Slurm: its controller's tables, scheduler and clockwork. It believes nothing and knows no engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from saia_engine.model import Job, LaunchSpec, Node, Partition, Reservation
from saia_engine.simulator.site import USER, Site
from saia_engine.simulator.truth import (
    ControllerDown,
    ControllerUp,
    JobAccepted,
    JobChanged,
    JobForgotten,
    NodeChanged,
    ReservationMade,
)

MIN_JOB_AGE_S = 300.0
REQUEUE_WAIT_S = 121.0
SCHEDULE_EVERY_S = 30.0
FIRST_ID = 1000
GPU, CPU = "gpu", "cpu"
PARTITIONS = (GPU, CPU)
MAX_TIME_S = 24 * 3600.0
"""Of both partitions."""


class Process(Protocol):
    """What runs inside a started job."""

    def kill(self, cause: str) -> None:
        """SIGTERM to all of it."""
        ...


@dataclass(slots=True, eq=False)
class SimNode:
    name: str
    partition: str
    gpus: int
    free: int
    down: bool = False
    silent: bool = False
    """Not responding: its processes run on unseen."""
    draining: bool = False
    maintenance: bool = False
    running: dict[int, SimJob] = field(default_factory=dict)
    row: Node | None = None

    @property
    def usable(self) -> bool:
        return not (self.down or self.silent or self.draining or self.maintenance)

    @property
    def state(self) -> str:
        base = "idle" if not self.running else "mixed" if self.free else "allocated"
        if self.down:
            base = "down"
        flags = ("+drain" if self.draining else "") + ("+maintenance" if self.maintenance else "")
        return base + flags + ("*" if self.silent or self.down else "")


@dataclass(slots=True, eq=False)
class SimJob:
    id: int
    name: str
    user: str
    partition: str
    gpus: int
    limit_s: float
    submit_time: float
    priority: int
    spec: LaunchSpec | None = None
    """Of a job of ours; None: foreign."""
    lasts_s: float = math.inf
    """How long a foreign job works."""
    excluded: frozenset[str] = frozenset()
    state: str = "PENDING"
    reason: str = "Priority"
    restarts: int = 0
    node: SimNode | None = None
    start: float | None = None
    end: float | None = None
    begin: float = 0.0
    forecast: float | None = None
    held: bool = False
    stuck_s: float = 0.0
    """How long it will hang in COMPLETING."""
    final: tuple[str, str] = ("", "")
    """State and cause to come after COMPLETING."""
    process: Process | None = None
    timer: Any = None
    row: Job | None = None

    @property
    def live(self) -> bool:
        return self.state in ("PENDING", "RUNNING")


@dataclass(frozen=True, slots=True)
class Reserved:
    """A maintenance window."""

    name: str
    start: float
    end: float
    nodes: tuple[str, ...]


class Cluster:
    """`spawn` starts the process of a job of ours."""

    def __init__(self, site: Site, gpu_nodes: int = 10, gpus: int = 4, cpu_nodes: int = 4) -> None:
        self.site = site
        self.chance = site.chance("slurm")
        self.spawn: Callable[[SimJob], Process | None] = lambda job: None
        self.jobs: dict[int, SimJob] = {}
        self.nodes = {
            name: SimNode(name, partition, count, count)
            for name, partition, count in [
                *((f"gpu{n:02}", GPU, gpus) for n in range(1, gpu_nodes + 1)),
                *((f"cpu{n:02}", CPU, 0) for n in range(1, cpu_nodes + 1)),
            ]
        }
        self.reservations: dict[str, Reserved] = {}
        self.up = True
        self.boot = site.now - 86400.0
        self.restarted_at = -math.inf
        self.paused_until = 0.0
        """Stopped, not dead: what is sent to it waits."""
        self._next_id = FIRST_ID
        self._deferred: list[Callable[[], None]] = []
        self._pass_due: Any = None
        self._by_partition = {
            part: [n for n in self.nodes.values() if n.partition == part] for part in PARTITIONS
        }
        self.partition_rows = self._partition_rows()

    # -- what squeue and sinfo show

    def job_rows(self) -> tuple[Job, ...]:
        return tuple([job.row or self._row(job) for job in self.jobs.values()])

    def node_rows(self) -> tuple[Node, ...]:
        return tuple([node.row or self._node_row(node) for node in self.nodes.values()])

    def reservation_rows(self) -> tuple[Reservation, ...]:
        return tuple(
            Reservation(r.name, float(int(r.start)), float(int(r.end)), r.nodes, ("MAINT", "SPEC_NODES"))
            for r in self.reservations.values()
        )

    def _partition_rows(self) -> tuple[Partition, ...]:
        return tuple(
            Partition(name, True, MAX_TIME_S, tuple(n.name for n in self._by_partition[name]), name == GPU)
            for name in PARTITIONS
        )

    def _row(self, job: SimJob) -> Job:
        pending = job.state == "PENDING"
        job.row = Job(
            id=job.id,
            name=job.name,
            user=job.user,
            state=job.state,
            reason=job.reason if pending else "",
            partition=job.partition,
            submit_time=float(int(job.submit_time)),
            start_time=_whole(job.forecast if pending else job.start),
            end_time=None if pending else _whole(job.end),
            time_limit_s=job.limit_s,
            restarts=job.restarts,
            nodes=(job.node.name,) if job.node else (),
            gres=f"gpu:{job.gpus}" if job.gpus else "",
            gpus=job.gpus,
            cpus=1,
            priority=0 if job.held else job.priority,
        )
        return job.row

    def _node_row(self, node: SimNode) -> Node:
        node.row = Node(
            name=node.name,
            state=node.state,
            address=node.name,
            partitions=(node.partition,),
            cpus=64,
            cpus_allocated=min(64, len(node.running)),
            memory_mib=512_000,
            gpus=node.gpus,
            gpus_allocated=node.gpus - node.free,
        )
        return node.row

    # -- what sbatch and scancel do

    def accept(
        self,
        name: str,
        user: str,
        *,
        spec: LaunchSpec | None = None,
        partition: str = GPU,
        gpus: int = 0,
        limit_s: float = 3600.0,
        priority: int = 5000,
        lasts_s: float = math.inf,
        engine: str = "",
        answered: bool = True,
    ) -> SimJob:
        """Take a job; its limit is kept in whole minutes, rather more than less."""
        job = SimJob(
            id=self._next_id,
            name=name,
            user=user,
            partition=partition,
            gpus=gpus,
            limit_s=math.ceil(limit_s / 60) * 60.0,
            submit_time=self.site.now,
            priority=priority,
            spec=spec,
            lasts_s=lasts_s,
            excluded=frozenset(spec.exclude.split(",")) if spec and spec.exclude else frozenset(),
        )
        self._next_id += 1
        self.jobs[job.id] = job
        self.site.emit(
            JobAccepted(self.site.now, job.id, name, user, float(int(job.submit_time)), answered, engine)
        )
        self._changed(job, "slurm")
        self.schedule_soon()
        return job

    def cancel(self, job_id: int, name: str, user: str, cause: str) -> None:
        """As `scancel --name --user ID`: does nothing where they don't match."""
        job = self.jobs.get(job_id)
        if job is not None and job.live and (job.name, job.user) == (name, user):
            self.finish(job, "CANCELLED", cause)

    # -- what happens to jobs

    def finish(self, job: SimJob, state: str, cause: str) -> None:
        """End it, in whatever state it is: a started one by way of COMPLETING."""
        if not self.up:
            self._deferred.append(lambda: self.finish(job, state, cause))
            return
        if not job.live or self.jobs.get(job.id) is not job:
            return
        if job.node is None:
            self._over(job, state, cause)
            return
        job.state, job.final = "COMPLETING", (state, cause)
        job.end = self.site.now
        self._stop_timer(job)
        self._changed(job, cause)
        process, job.process = job.process, None
        if process is not None:
            process.kill(cause)
        if job.stuck_s:
            self.site.begin("stuck-completing", str(job.id))
        self.site.after(job.stuck_s or self.chance.uniform(0.5, 4.0), self._completed, job)

    def _completed(self, job: SimJob) -> None:
        if job.state != "COMPLETING" or self.jobs.get(job.id) is not job:
            return
        if not self.up:
            self._deferred.append(lambda: self._completed(job))
            return
        if job.stuck_s:
            self.site.end("stuck-completing", str(job.id))
            job.stuck_s = 0.0
        self._leave_node(job)
        state, cause = job.final
        if state == "REQUEUE":
            self._requeued(job, cause)
        else:
            self._over(job, state, cause)

    def _over(self, job: SimJob, state: str, cause: str) -> None:
        job.state = state
        job.end = self.site.now
        self._changed(job, cause)
        self.site.after(MIN_JOB_AGE_S, self._forget, job)
        self.schedule_soon()

    def _forget(self, job: SimJob) -> None:
        if self.jobs.get(job.id) is job and not job.live:
            del self.jobs[job.id]
            if job.user == USER:
                self.site.emit(JobForgotten(self.site.now, job.id, job.name, job.state, False))

    def requeue(self, job: SimJob, cause: str) -> None:
        """Same id, one restart more, not before two minutes."""
        self.finish(job, "REQUEUE", cause)

    def _requeued(self, job: SimJob, cause: str) -> None:
        job.state, job.reason = "PENDING", "BeginTime"
        job.restarts += 1
        job.start = job.end = job.forecast = None
        job.submit_time = self.site.now
        job.begin = self.site.now + REQUEUE_WAIT_S
        self.site.after(REQUEUE_WAIT_S + 1.0, self.schedule_soon)
        self._changed(job, cause)

    def hold(self, job: SimJob, held: bool) -> None:
        job.held = held
        job.reason = "JobHeldUser" if held else "Priority"
        self._changed(job, "foreign")
        self.schedule_soon()

    def change_limit(self, job: SimJob, limit_s: float) -> None:
        job.limit_s = math.ceil(limit_s / 60) * 60.0
        if job.start is not None:
            job.end = job.start + job.limit_s
            self._arm_limit(job)
        self._changed(job, "foreign")

    def process_ended(self, job: SimJob, exit_code: int) -> None:
        """The job's script came to its end by itself."""
        job.process = None
        self.finish(job, "COMPLETED" if exit_code == 0 else "FAILED", "service")

    # -- the scheduler

    def schedule_soon(self) -> None:
        if self._pass_due is None:
            self._pass_due = self.site.after(self.chance.uniform(0.5, 4.0), self._schedule)

    def _schedule(self) -> None:
        self._pass_due = None
        if not self.up or self.site.now < self.paused_until:
            return
        now = self.site.now
        waiting = [job for job in self.jobs.values() if job.state == "PENDING"]
        waiting.sort(key=lambda job: (-job.priority, job.id))
        shadows: dict[str, tuple[SimNode | None, float]] = {}
        for job in waiting:
            if job.held or job.begin > now:
                continue
            node = self._node_for(job, shadows.get(job.partition))
            if node is not None:
                self._start(job, node)
                continue
            first = job.partition not in shadows
            if first:
                shadows[job.partition] = self._shadow(job)
            self._wait(job, "Resources" if first else "Priority", shadows[job.partition][1], first)
        if any(not job.held for job in waiting if job.state == "PENDING"):
            self._pass_due = self.site.after(SCHEDULE_EVERY_S, self._schedule)

    def _wait(self, job: SimJob, reason: str, at: float, first: bool) -> None:
        forecast = at if first and at < math.inf else None
        if (job.reason, job.forecast) != (reason, forecast):
            job.reason, job.forecast, job.row = reason, forecast, None

    def _node_for(self, job: SimJob, shadow: tuple[SimNode | None, float] | None) -> SimNode | None:
        """The fullest node that has room, and that nothing is promised to before the job's end."""
        best: SimNode | None = None
        until = self.site.now + job.limit_s
        for node in self._by_partition[job.partition]:
            if node.free < job.gpus or not node.usable or node.name in job.excluded:
                continue
            if shadow is not None and shadow[0] is node and until > shadow[1]:
                continue
            if self._reserved(node, until):
                continue
            if best is None or (node.free, len(node.running)) < (best.free, len(best.running)):
                best = node
        return best

    def _reserved(self, node: SimNode, until: float) -> bool:
        now = self.site.now
        return any(
            r.start < until and r.end > now and node.name in r.nodes for r in self.reservations.values()
        )

    def _shadow(self, job: SimJob) -> tuple[SimNode | None, float]:
        """Where and when the first that waits will start, if all others run to their limits."""
        found: tuple[SimNode | None, float] = (None, math.inf)
        for node in self._by_partition[job.partition]:
            if not node.usable or node.gpus < job.gpus or node.name in job.excluded:
                continue
            free = node.free
            for end, gpus in sorted((other.end or math.inf, other.gpus) for other in node.running.values()):
                free += gpus
                if free >= job.gpus:
                    if end < found[1]:
                        found = (node, end)
                    break
        return found

    def _start(self, job: SimJob, node: SimNode) -> None:
        now = self.site.now
        job.state, job.reason, job.node = "RUNNING", "", node
        job.start, job.end = now, now + job.limit_s
        node.free -= job.gpus
        node.running[job.id] = job
        node.row = None
        self._arm_limit(job)
        self._changed(job, "slurm")
        if job.spec is not None:
            job.process = self.spawn(job)
        elif job.lasts_s < job.limit_s:
            self.site.after(job.lasts_s, self._foreign_done, job, job.restarts)

    def _foreign_done(self, job: SimJob, restarts: int) -> None:
        if job.state == "RUNNING" and job.restarts == restarts:
            self.finish(job, "COMPLETED", "slurm")

    def _arm_limit(self, job: SimJob) -> None:
        """Limits are kept late rather than early."""
        self._stop_timer(job)
        late = self.chance.uniform(1.0, 30.0)
        delay = max(0.0, (job.end or 0.0) - self.site.now) + late
        job.timer = self.site.after(delay, self.finish, job, "TIMEOUT", "time-limit")

    def _stop_timer(self, job: SimJob) -> None:
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None

    def _leave_node(self, job: SimJob) -> None:
        node, job.node = job.node, None
        if node is not None and node.running.pop(job.id, None) is not None:
            node.free += job.gpus
            node.row = None

    def _changed(self, job: SimJob, cause: str) -> None:
        job.row = None
        if job.user != USER:
            return
        self.site.emit(
            JobChanged(
                self.site.now,
                job.id,
                job.name,
                job.user,
                job.state,
                job.node.name if job.node else "",
                job.start,
                job.end,
                job.limit_s,
                job.restarts,
                float(int(job.submit_time)),
                cause,
            )
        )

    # -- nodes

    def node_changed(self, node: SimNode) -> None:
        node.row = None
        self.site.emit(NodeChanged(self.site.now, node.name, node.state, node.usable))
        self.schedule_soon()

    def reserve(self, window: Reserved) -> None:
        self.reservations[window.name] = window
        self.site.emit(ReservationMade(self.site.now, window.name, window.start, window.end, window.nodes))

    def unreserve(self, name: str) -> None:
        if self.reservations.pop(name, None):
            self.site.emit(ReservationMade(self.site.now, name, self.site.now, self.site.now, ()))

    # -- the controller

    def go_down(self) -> None:
        self.up = False
        self.site.emit(ControllerDown(self.site.now))

    def come_up(self, lost_state: bool) -> list[SimJob]:
        """With a new boot time; returns the jobs that it forgot, whose processes may run on."""
        now = self.site.now
        self.boot = float(int(now))
        self.restarted_at = now
        forgotten = self._lose_state() if lost_state else []
        self.up = True
        deferred, self._deferred = self._deferred, []
        self.site.emit(ControllerUp(now, lost_state))
        if not lost_state:
            for act in deferred:
                act()
        self.schedule_soon()
        return forgotten

    def _lose_state(self) -> list[SimJob]:
        forgotten = list(self.jobs.values())
        for job in forgotten:
            self._stop_timer(job)
            if job.user == USER:
                self.site.emit(JobForgotten(self.site.now, job.id, job.name, job.state, True))
        self.jobs.clear()
        for node in self.nodes.values():
            node.running.clear()
            node.free, node.row = node.gpus, None
        self.reservations.clear()
        self._next_id = FIRST_ID
        return forgotten


def _whole(at: float | None) -> float | None:
    """Slurm keeps whole seconds."""
    return None if at is None else float(int(at))
