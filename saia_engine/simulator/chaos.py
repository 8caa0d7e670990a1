"""The faults: what goes wrong, when, and how it ends. Each kind is a method of `Chaos` and a row of `KINDS`.

Times of calm come in between, in which all that was broken is mended and there is room, so that liveness shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from saia_engine.model import parse_token
from saia_engine.simulator.agents import Agent
from saia_engine.simulator.agents import Luck as AgentLuck
from saia_engine.simulator.cluster import GPU, REQUEUE_WAIT_S, SCHEDULE_EVERY_S, Reserved, SimJob, SimNode
from saia_engine.simulator.hosts import EngineProcess
from saia_engine.simulator.keeper import Keeper
from saia_engine.simulator.operators import Operators
from saia_engine.simulator.site import INSTALLATION, USER
from saia_engine.simulator.slurm_window import Luck as WindowLuck
from saia_engine.simulator.truth import FaultsStopped, RoomPromised
from saia_engine.simulator.wishes import LOAD_S
from saia_engine.simulator.world import World

FAULTS_PER_HOUR = 16.0
CYCLE_S = 6 * 3600.0
CALM_SHARE = 1.0 / 6.0
"""Of a cycle: so much of it is calm."""
DAY_S = 86400.0
BOOTS_WRONG_SHARE = 0.3
"""Of the jumps of a clock: so many come with a restart of the engine, as with its host's."""
LONG_AWAY_SHARE = 0.25
"""Of the times without a network: in so many all who serve would be past their deadline."""
HANG_TOGETHER_SHARE = 0.4
"""Of the hangs: so many befall all instances of a service, as from one poisonous request."""
ROOM_GPUS = 26
"""Free for ours in a calm: twice all that is wanted."""

WINDOW = {
    "squeue-failed": ("squeue_failed", 4),
    "squeue-empty": ("squeue_empty", 2),
    "squeue-stale": ("squeue_stale", 1),
    "squeue-truncated": ("squeue_truncated", 2),
    "squeue-slow": ("squeue_slow", 3),
    "squeue-late": ("squeue_late", 2),
    "sbatch-timeout": ("sbatch_timeout", 2),
    "sbatch-delayed": ("sbatch_delayed", 1),
    "sbatch-lost": ("sbatch_lost", 2),
    "sbatch-rejected": ("sbatch_rejected", 2),
    "sbatch-slow": ("sbatch_slow", 2),
    "scancel-lost": ("scancel_lost", 2),
    "scancel-failed": ("scancel_failed", 2),
}
"""Kinds that befall the next commands: the luck's field, and how many at most."""
STARTS = {
    "slow-load": "slow",
    "crash-at-start": "crash",
    "hang-at-start": "hang",
    "endpoint-late": "late_file",
    "endpoint-torn": "torn_file",
}
"""Kinds that befall the next agents that start."""


class Chaos:
    """Strikes a world at random, with a weight for each kind. `only` limits it to some kinds."""

    def __init__(
        self,
        world: World,
        keeper: Keeper,
        operators: Operators,
        per_hour: float = FAULTS_PER_HOUR,
        cycle_s: float = CYCLE_S,
        only: frozenset[str] = frozenset(),
    ) -> None:
        self.world = world
        self.site = world.site
        self.chance = world.site.chance("chaos")
        self.keeper = keeper
        self.operators = operators
        self.per_hour = per_hour
        self.calm_s = cycle_s * CALM_SHARE
        self.chaos_s = cycle_s - self.calm_s
        self.kinds = [kind for kind in KINDS if not only or kind in only]
        self.weights = [KINDS[kind][0] for kind in self.kinds]
        self.next: Any = None
        self.hold_next = 0
        self.ends: dict[int, tuple[Any, Callable[[], None]]] = {}
        """How each running fault ends: its timer, and the act."""
        self._numbers = 0
        self._accept = world.cluster.accept
        world.cluster.accept = self._accepted  # type: ignore[method-assign]

    # -- the course of a run

    def begin(self) -> None:
        """Chaos, then calm, and so on."""
        self.world.crowded = True
        self.operators.begin()
        self._later()
        self.site.after(self.chaos_s, self.calm)

    def _later(self) -> None:
        if self.per_hour > 0 and self.kinds:
            self.next = self.site.after(self.chance.expovariate(self.per_hour / 3600.0), self._strike)

    def _strike(self) -> None:
        self._later()
        kind = self.chance.choices(self.kinds, self.weights)[0]
        KINDS[kind][1](self, kind)

    def calm(self) -> None:
        """All is mended; when an engine acts, that is said."""
        if self.next is not None:
            self.next.cancel()
        self.operators.stop()
        self.hold_next = 0
        self.world.window.luck = WindowLuck()
        self.world.agents.luck = AgentLuck()
        for timer, end in list(self.ends.values()):
            timer.cancel()
            end()
        self.ends.clear()
        self._make_room()
        self._mend_services()
        self.keeper.mend()
        self.site.after(1.0, self._say_calm, self.site.now + self.calm_s)

    def _say_calm(self, until: float) -> None:
        engine = self.world.engine
        if engine is None or not engine.acts or engine.stopped_acting:
            self.site.after(5.0, self._say_calm, max(until, self.site.now + self.calm_s / 2))
            return
        now = self.site.now
        self.site.emit(FaultsStopped(now))
        load_s = max(LOAD_S.values()) * 1.5 + 10.0
        self.site.emit(RoomPromised(now, REQUEUE_WAIT_S + SCHEDULE_EVERY_S + 10.0, load_s))
        self.site.after(until - now, self.begin)

    def _make_room(self) -> None:
        """Foreign jobs that want GPUs go, the newest first, until there is room."""
        world = self.world
        world.crowded = False
        foreign = [job for job in world.cluster.jobs.values() if job.spec is None and job.gpus and job.live]
        ours = sum(job.gpus for job in world.cluster.jobs.values() if job.spec is not None and job.live)
        total = sum(node.gpus for node in world.cluster.nodes.values())
        used = ours + sum(job.gpus for job in foreign)
        for job in reversed(foreign):
            if job.state == "PENDING" or total - used < ROOM_GPUS - ours // 2:
                world.cluster.finish(job, "CANCELLED", "foreign")
                used -= job.gpus

    def _mend_services(self) -> None:
        agents = self.world.agents
        for agent in agents.living():
            agents.reach(agent, True)
            agents.mend(agent)
        for job in list(self.world.cluster.jobs.values()):
            if job.held:
                self.world.cluster.hold(job, False)
            job.stuck_s = min(job.stuck_s, 5.0)

    def lasting(self, kind: str, subject: str, seconds: float, end: Callable[[], None]) -> None:
        """A fault that has begun and will end: by time, or by the calm."""
        self._numbers += 1
        number = self._numbers
        self.site.begin(kind, subject)

        def over() -> None:
            self.ends.pop(number, None)
            end()
            self.site.end(kind, subject)

        self.ends[number] = (self.site.after(seconds, over), over)

    # -- whom it strikes

    def ours(self, *states: str) -> list[SimJob]:
        return [
            job for job in self.world.cluster.jobs.values() if job.spec is not None and job.state in states
        ]

    def one_running(self) -> SimJob | None:
        running = self.ours("RUNNING")
        return self.chance.choice(running) if running else None

    def one_agent(self) -> Agent | None:
        ready = [agent for agent in self.world.agents.living() if agent.ready and agent.reachable]
        return self.chance.choice(ready) if ready else None

    def one_node(self) -> SimNode | None:
        """One with a job of ours, for the most part."""
        usable = [node for node in self.world.cluster.nodes.values() if node.usable]
        busy = [node for node in usable if any(job.spec is not None for job in node.running.values())]
        pool = busy if busy and self.chance.random() < 0.8 else usable
        return self.chance.choice(pool) if pool else None

    def engine(self) -> EngineProcess | None:
        engine = self.world.engine
        return engine if engine is not None and engine.acts and not engine.stopped_acting else None

    # -- commands and starts

    def window(self, kind: str) -> None:
        name, most = WINDOW[kind]
        luck = self.world.window.luck
        setattr(luck, name, getattr(luck, name) + self.chance.randint(1, most))

    def start(self, kind: str) -> None:
        luck = self.world.agents.luck
        setattr(luck, STARTS[kind], getattr(luck, STARTS[kind]) + self.chance.choice([1, 1, 1, 3]))

    # -- the controller

    def controller_restart(self, kind: str) -> None:
        cluster = self.world.cluster
        if not cluster.up:
            return
        lost = kind == "controller-cold"
        cluster.go_down()
        self.lasting(kind, "slurm", self.chance.uniform(3.0, 90.0), lambda: self._controller_up(lost))

    def _controller_up(self, lost: bool) -> None:
        luck = self.world.window.luck
        forgotten = self.world.cluster.come_up(lost)
        if not lost and self.chance.random() < 0.5:
            luck.squeue_empty += 1  # it answers before it has read its state
        for job in forgotten:
            if job.process is not None:
                # The nodes end what their controller does not know, sooner or later.
                self.site.after(self.chance.uniform(5.0, 180.0), job.process.kill, "fault")

    def controller_stopped(self, kind: str) -> None:
        cluster = self.world.cluster
        seconds = self.chance.uniform(5.0, 60.0)
        cluster.paused_until = self.site.now + seconds

        def go_on() -> None:
            cluster.paused_until = self.site.now
            cluster.schedule_soon()

        self.lasting(kind, "slurm", seconds, go_on)

    # -- nodes

    def node_down(self, kind: str) -> None:
        node = self.one_node()
        if node is None:
            return
        node.down = True
        self.world.agents.silent_nodes.add(node.name)
        for agent in self._agents_on(node):
            self.world.agents.ended(agent, "node", by_service=False)
        self.world.cluster.node_changed(node)
        for job in list(node.running.values()):
            # Slurm keeps it RUNNING for a while.
            self.site.after(self.chance.uniform(0.0, 60.0), self._lost_with_node, job)
        self.lasting(kind, node.name, self.chance.uniform(300.0, 2400.0), lambda: self._node_back(node))

    def _lost_with_node(self, job: SimJob) -> None:
        if job.state != "RUNNING":
            return
        if self.chance.random() < 0.5:
            self.world.cluster.requeue(job, "fault")
        else:
            self.world.cluster.finish(job, "NODE_FAIL", "fault")

    def _node_back(self, node: SimNode) -> None:
        node.down = node.silent = node.draining = False
        self.world.agents.silent_nodes.discard(node.name)
        for agent in self._agents_on(node):
            self.world.agents.reach(agent, True)
        self.world.cluster.node_changed(node)

    def node_drain(self, kind: str) -> None:
        node = self.one_node()
        if node is None:
            return
        node.draining = True
        self.world.cluster.node_changed(node)
        self.lasting(kind, node.name, self.chance.uniform(600.0, 5400.0), lambda: self._node_back(node))

    def node_flaps(self, kind: str) -> None:
        """It does not answer for a while, and its jobs go on."""
        node = self.one_node()
        if node is None:
            return
        node.silent = True
        self.world.agents.silent_nodes.add(node.name)
        for agent in self._agents_on(node):
            self.world.agents.reach(agent, False)
        self.world.cluster.node_changed(node)
        self.lasting(kind, node.name, self.chance.uniform(5.0, 120.0), lambda: self._node_back(node))

    def _agents_on(self, node: SimNode) -> list[Agent]:
        return [agent for agent in self.world.agents.living() if agent.node == node.name]

    def maintenance(self, kind: str) -> None:
        """A window on one or two nodes, most likely of ours, announced half an hour to three hours ahead."""
        nodes = [node for node in self.world.cluster.nodes.values() if node.usable and node.partition == GPU]
        if len(nodes) < 6 or self.world.cluster.reservations:
            return
        nodes.sort(key=lambda node: not any(job.spec is not None for job in node.running.values()))
        chosen = self.chance.sample(nodes[:4], self.chance.choice([1, 2]))
        start = self.site.now + self.chance.uniform(1800.0, 3 * 3600.0)
        window = Reserved(
            f"maint{int(self.site.now)}", start, start + 1800.0, tuple(node.name for node in chosen)
        )
        self.world.cluster.reserve(window)
        opened = self.site.after(start - self.site.now, self._maintenance_begins, chosen)

        def over() -> None:
            opened.cancel()
            self.world.cluster.unreserve(window.name)
            for node in chosen:
                if node.maintenance:
                    node.maintenance = False
                    self.world.cluster.node_changed(node)

        self.lasting(kind, window.name, window.end - self.site.now, over)

    def _maintenance_begins(self, nodes: list[SimNode]) -> None:
        for node in nodes:
            node.maintenance = True
            for job in list(node.running.values()):
                self.world.cluster.finish(job, "CANCELLED", "foreign")
            self.world.cluster.node_changed(node)

    # -- jobs

    def _accepted(self, *args: Any, **kwargs: Any) -> SimJob:
        job = self._accept(*args, **kwargs)
        if job.spec is not None and self.hold_next:
            self.hold_next -= 1
            self.world.cluster.hold(job, True)
            self.lasting(
                "job-held", str(job.id), self.chance.uniform(60.0, 1200.0), lambda: self._release(job)
            )
        return job

    def _release(self, job: SimJob) -> None:
        if job.held and job.live and self.world.cluster.jobs.get(job.id) is job:  # else it is forgotten
            self.world.cluster.hold(job, False)

    def hold(self, kind: str) -> None:
        self.hold_next += 1

    def requeue(self, kind: str) -> None:
        job = self.one_running()
        if job is not None and self.world.cluster.up:
            self.site.fault(kind, str(job.id))
            self.world.cluster.requeue(job, "foreign")

    def preempt(self, kind: str) -> None:
        job = self.one_running()
        if job is not None and self.world.cluster.up:
            self.site.fault(kind, str(job.id))
            if self.chance.random() < 0.5:
                self.world.cluster.requeue(job, "fault")
            else:
                self.world.cluster.finish(job, "PREEMPTED", "fault")

    def limit(self, kind: str) -> None:
        job = self.one_running()
        if job is None or job.start is None or not self.world.cluster.up:
            return
        used = self.site.now - job.start
        limit_s = used + self.chance.uniform(60.0, 1800.0)
        if kind == "limit-longer":
            limit_s = job.limit_s + self.chance.uniform(600.0, 7200.0)
        elif limit_s >= job.limit_s:
            return
        self.site.fault(kind, str(job.id))
        self.world.cluster.change_limit(job, limit_s)

    def foreign_scancel(self, kind: str) -> None:
        live = self.ours("RUNNING", "PENDING")
        if live and self.world.cluster.up:
            job = self.chance.choice(live)
            self.site.fault(kind, str(job.id))
            self.world.cluster.finish(job, "CANCELLED", "foreign")

    def stuck_completing(self, kind: str) -> None:
        job = self.one_running()
        if job is not None:
            job.stuck_s = self.chance.uniform(60.0, 400.0)

    # -- services

    def hang(self, kind: str) -> None:
        first = self.one_agent()
        if first is None:
            return
        alike = [a for a in self.world.agents.living() if a.service == first.service and a.ready]
        seconds = self.chance.uniform(60.0, 3600.0)
        for agent in alike if self.chance.random() < HANG_TOGETHER_SHARE else [first]:
            self.world.agents.hang(agent)
            self.lasting(kind, agent.instance, seconds, partial(self.world.agents.unhang, agent))

    def die(self, kind: str) -> None:
        agent = self.one_agent()
        if agent is not None:
            self.site.fault(kind, agent.instance)
            self.world.agents.service_ended(agent, self.chance.choice([1, 137, 0]))

    def silent(self, kind: str) -> None:
        agent = self.one_agent()
        if agent is None:
            return
        self.world.agents.reach(agent, False)
        seconds = self.chance.uniform(3.0, 180.0)
        self.lasting(kind, agent.instance, seconds, lambda: self.world.agents.reach(agent, True))

    # -- engines

    def deaf(self, kind: str) -> None:
        """The engine's host can't reach the nodes; gates on it can't either."""
        agents = self.world.agents
        if agents.away is not None:
            return
        hit = [agent for agent in agents.living() if agent.reachable]
        for agent in hit:
            agents.reach(agent, False)
        agents.away = []

        def over() -> None:
            started, agents.away = agents.away or [], None
            for agent in (*hit, *started):
                if agent.node not in agents.silent_nodes:
                    agents.reach(agent, True)

        long = self.chance.random() < LONG_AWAY_SHARE
        self.lasting(kind, "network", self.chance.uniform(*((240.0, 900.0) if long else (3.0, 60.0))), over)

    def clock_jump(self, kind: str) -> None:
        """Until it is mended, engines that start on this host start by the wrong clock."""
        engine = self.engine()
        if engine is None or engine.host.skew_s:
            return
        engine.host.skew_s = self.chance.choice([DAY_S, -DAY_S])

        def over() -> None:
            engine.host.skew_s = 0.0

        self.lasting(kind, engine.host.name, self.chance.uniform(60.0, 3600.0), over)
        if self.chance.random() < BOOTS_WRONG_SHARE:
            engine.die("stopped")

    def journal_full(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None:
            engine.host.disk.fill()
            self._broken_journal(kind, engine)

    def journal_refuses(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None and engine.journal is not None:
            engine.journal.refuse_writes()
            self._broken_journal(kind, engine)

    def _broken_journal(self, kind: str, engine: EngineProcess) -> None:
        host = engine.host

        def over() -> None:
            host.disk.mend()
            self.keeper.restart(host.name, engine)

        self.lasting(kind, engine.name, self.chance.uniform(30.0, 900.0), over)

    def journal_lost(self, kind: str) -> None:
        engine = self.engine()
        if engine is None:
            return
        self.site.fault(kind, engine.name)
        engine.die("stopped")
        engine.host.lose_journal()

    def routes_refused(self, kind: str) -> None:
        engine = self.engine()
        if engine is None:
            return
        seconds = self.chance.uniform(10.0, 300.0)
        host = engine.host
        host.routes_refused_until = self.site.now + seconds

        def over() -> None:
            host.routes_refused_until = 0.0

        self.lasting(kind, host.name, seconds, over)

    def lease_away(self, kind: str) -> None:
        seconds = self.chance.uniform(5.0, 120.0)
        lease = self.world.lease
        lease.away_until = self.site.now + seconds

        def over() -> None:
            lease.away_until = 0.0

        self.lasting(kind, "shared", seconds, over)

    def engine_crash(self, kind: str) -> None:
        """At one of its next effects."""
        engine = self.engine()
        if engine is not None and not engine.crash_at:
            engine.crash_at = self.chance.randint(1, 60)
            engine.crash_kind = kind

    def engine_kill(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None:
            self.site.fault(kind, engine.name)
            engine.die("crashed")

    def engine_restart(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None:
            self.site.fault(kind, engine.name)
            engine.die("stopped")

    def second_engine(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None:
            self.site.fault(kind, engine.host.name)
            self.world.start_engine(engine.host.name)

    def other_host(self, kind: str) -> None:
        engine = self.engine()
        if engine is not None:
            self.site.fault(kind, self.keeper.other(engine.host.name))
            self.world.start_engine(self.keeper.other(engine.host.name))

    def takeover(self, kind: str) -> None:
        """The other host takes over: from one that is lost, or by an operator's mistake from one that lives."""
        engine = self.engine()
        if engine is None or not self.world.hosts[self.keeper.other(engine.host.name)].up:
            return
        self.site.fault(kind, engine.host.name)
        if kind == "host-lost":
            host = engine.host
            host.up = False
            engine.die("host-lost")
            self.site.after(self.chance.uniform(1800.0, 7200.0), self._host_back, host)
        self.keeper.take_over(self.keeper.other(engine.host.name))

    def _host_back(self, host: Any) -> None:
        host.up = True

    # -- clients

    def proxy_away(self, kind: str) -> None:
        clients = self.world.clients
        seconds = self.chance.uniform(30.0, 600.0)
        clients.away_until = self.site.now + seconds

        def over() -> None:
            clients.away_until = 0.0

        self.lasting(kind, "cloud", seconds, over)

    # -- forgery

    def impostor(self, kind: str) -> None:
        """Somebody names a job as one of ours is named: with another user, it is none of ours."""
        live = self.ours("RUNNING", "PENDING")
        if live and self.world.cluster.up:
            job = self.chance.choice(live)
            self.site.fault(kind, job.name)
            self.world.cluster.accept(job.name, "user7", partition="cpu", limit_s=1800.0, lasts_s=1200.0)

    def stranger(self, kind: str) -> None:
        """A job under our own user with our token that no engine made."""
        if self.world.cluster.up:
            name = f"saia.{INSTALLATION}.hpc.chat.{self.chance.getrandbits(32):08x}"
            assert parse_token(name)
            self.site.fault(kind, name)
            self.world.cluster.accept(name, USER, partition="cpu", limit_s=1800.0, lasts_s=900.0)


Act = Callable[[Chaos, str], None]
KINDS: dict[str, tuple[float, Act]] = {
    **dict.fromkeys(WINDOW, (1.0, Chaos.window)),
    **dict.fromkeys(STARTS, (0.7, Chaos.start)),
    "controller-restart": (1.0, Chaos.controller_restart),
    "controller-cold": (0.5, Chaos.controller_restart),
    "controller-stopped": (1.0, Chaos.controller_stopped),
    "node-down": (0.7, Chaos.node_down),
    "node-drain": (0.7, Chaos.node_drain),
    "node-flaps": (1.0, Chaos.node_flaps),
    "maintenance": (2.0, Chaos.maintenance),
    "stuck-completing": (0.7, Chaos.stuck_completing),
    "job-held": (0.7, Chaos.hold),
    "requeue": (1.0, Chaos.requeue),
    "preempted": (0.7, Chaos.preempt),
    "limit-shorter": (1.0, Chaos.limit),
    "limit-longer": (0.7, Chaos.limit),
    "foreign-scancel": (1.0, Chaos.foreign_scancel),
    "hang": (1.0, Chaos.hang),
    "service-dies": (1.5, Chaos.die),
    "agent-silent": (1.5, Chaos.silent),
    "network-away": (1.2, Chaos.deaf),
    "clock-jump": (0.7, Chaos.clock_jump),
    "journal-full": (0.3, Chaos.journal_full),
    "journal-refuses": (0.3, Chaos.journal_refuses),
    "journal-lost": (0.3, Chaos.journal_lost),
    "routes-refused": (0.5, Chaos.routes_refused),
    "lease-away": (0.7, Chaos.lease_away),
    "engine-crash": (2.0, Chaos.engine_crash),
    "engine-kill": (0.7, Chaos.engine_kill),
    "engine-restart": (0.7, Chaos.engine_restart),
    "second-engine": (0.4, Chaos.second_engine),
    "other-host": (0.4, Chaos.other_host),
    "takeover": (0.25, Chaos.takeover),
    "host-lost": (0.25, Chaos.takeover),
    "proxy-away": (0.4, Chaos.proxy_away),
    "impostor": (0.3, Chaos.impostor),
    "stranger": (0.2, Chaos.stranger),
}
"""Weight and act of each kind."""
