"""The production engine in the simulator, without its chaos, behind the scenarios' port: hours pass in seconds."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from saia_engine.model import Instance as Record
from saia_engine.model import Override
from saia_engine.reconciler import Reconciler
from saia_engine.simulator.agents import Agent, Character
from saia_engine.simulator.cluster import Reserved, SimJob
from saia_engine.simulator.hosts import EngineProcess
from saia_engine.simulator.site import INSTALLATION, USER
from saia_engine.simulator.slurm_text import OLD
from saia_engine.simulator.slurm_window import POLL_S
from saia_engine.simulator.truth import Event as Happening
from saia_engine.simulator.truth import RequestEnded
from saia_engine.simulator.world import World
from saia_engine.store import Event as JournalEvent
from tests.scenarios.port import Event, Instance, Job, NeverHappened, Watched

SERVICE = "chat"
REPLICAS = 2
LOAD_S = 2.0
PATIENCE = 4.0
"""Limits are meant for a site that polls every two seconds; this one does so every fifteen."""
ASK_EVERY_S = 0.5
LOOK_EVERY_S = 0.5
REQUEST_EVERY_S = 0.3
REQUEST_LASTS_S = (0.05, 6.0)
CONTROLLER_AWAY_S = 4.0
CONTROLLER_STOPPED_S = 12.0
"""Longer than a command waits for its answer, and over before the next poll."""
NODES_END_FORGOTTEN_S = 1.0
NOTICED_S = 2.0
"""So long after an instance was found ready the gate has read of it."""
FOREIGN = "foreign"
UID = 1000
Answer = TypeVar("Answer")


class SimulatedSite:
    """One world of one seed; Slurm's text passes the real reader."""

    replicas = REPLICAS
    poll_s = POLL_S

    def __init__(self, seed: int, dialect: str = OLD) -> None:
        self.heard: list[JournalEvent] = []
        self.world = World(seed, [self], dialect)
        self.ended: dict[int, tuple[str, str]] = {}
        """Requests: how they ended, and why."""
        self.numbers = itertools.count(1)
        world = self.world
        world.watchers.on_journal = lambda engine, event: self.heard.append(event)
        world.agents.characters[SERVICE] = Character(LOAD_S)
        world.file.written.tables = {
            SERVICE: {
                "command": ["serve", "--port", "{port}"],
                "gpus": 4,
                "partition": "gpu",
                "replicas": REPLICAS,
                "min_available": 1,
                "time_limit": "1h",
                "lead_floor": "10s",
                "min_ready": "2s",
                "drain_deadline": "20s",
                "admission_margin": "10s",
                "safety_margin": "5s",
            }
        }
        refused = world.file.take()
        assert not refused, refused
        world.tell_wish()
        assert world.start_engine("a") is not None

    def see(self, event: Happening) -> None:
        if isinstance(event, RequestEnded):
            self.ended[event.stream] = (event.how, event.cause)

    def finish(self, at: float) -> None:
        pass

    def run(self, scenario: Coroutine[Any, Any, Answer]) -> Answer:
        """Let time pass until it has ended."""
        task = self.world.site.loop.create_task(scenario)
        while not task.done():
            self.world.run_until(self.now() + 1.0)
        return task.result()

    def close(self) -> None:
        self.world.close()

    # -- time

    def now(self) -> float:
        return self.world.site.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def wait_until(
        self, what: str, holds: Callable[[], Awaitable[bool]], limit_s: float = 60.0
    ) -> None:
        deadline = self.now() + limit_s * PATIENCE
        while not await holds():
            if self.now() > deadline:
                told = [f"{e.at:.1f} {e.code} {e.subject}: {e.text}" for e in self.heard[-40:]]
                jobs = [str(job) for job in await self.jobs()]
                raise NeverHappened("\n".join([f"waited in vain for {what}", *jobs, *told]))
            await asyncio.sleep(ASK_EVERY_S)

    async def next_poll(self) -> None:
        def newest() -> float:
            snapshot = self._reconciler.snapshot
            return snapshot.taken_at if snapshot and not self._reconciler.slurm_fault else 0.0

        before = newest()
        while newest() in (0.0, before):  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    # -- what can be seen

    @property
    def _engine(self) -> EngineProcess:
        engine = self.world.engine
        assert engine is not None
        return engine

    @property
    def _reconciler(self) -> Reconciler:
        reconciler = self._engine.reconciler
        assert reconciler is not None
        return reconciler

    async def jobs(self) -> tuple[Job, ...]:
        return self.queue()

    def queue(self) -> tuple[Job, ...]:
        return tuple(
            Job(
                job.id,
                job.name,
                job.state,
                job.node.name if job.node else "",
                job.limit_s,
                job.start or 0.0,
            )
            for job in self.world.cluster.jobs.values()
            if job.user == USER
            and job.name.startswith(f"saia.{INSTALLATION}.")
            and (job.live or job.state == "COMPLETING")
        )

    def instance(self, name: str) -> Record | None:
        return self._reconciler.instances.get(name)

    async def instances(self) -> tuple[Instance, ...]:
        known = sorted(self._reconciler.instances.values(), key=lambda i: i.started_at or i.created_at)
        return tuple(
            Instance(i.id, str(i.state), i.job_id, i.node, i.replaces, i.generation, i.end_time)
            for i in known
        )

    async def events(self) -> tuple[Event, ...]:
        return tuple(Event(e.seq, e.code, e.subject, e.severity) for e in self.heard)

    async def watch(self) -> SimulatedWatch:
        return SimulatedWatch(self)

    # -- operator

    async def scale(self, replicas: int) -> None:
        override = Override(SERVICE, replicas, UID, self.now())
        self._engine.told(lambda reconciler: reconciler.set_override(override))

    # -- Slurm's people

    def _job(self, job_id: int) -> SimJob:
        return self.world.cluster.jobs[job_id]

    async def requeue(self, job_id: int) -> None:
        self.world.cluster.requeue(self._job(job_id), FOREIGN)

    async def hold(self, job_id: int) -> None:
        self.world.cluster.hold(self._job(job_id), True)

    async def release(self, job_id: int) -> None:
        self.world.cluster.hold(self._job(job_id), False)

    async def set_limit(self, job_id: int, seconds: float) -> None:
        self.world.cluster.change_limit(self._job(job_id), seconds)

    async def cancel(self, job_id: int) -> None:
        self.world.cluster.finish(self._job(job_id), "CANCELLED", FOREIGN)

    async def drain_node(self, name: str) -> None:
        self._node(name, draining=True)

    async def resume_node(self, name: str) -> None:
        self._node(name, draining=False)

    def _node(self, name: str, **flags: bool) -> None:
        node = self.world.cluster.nodes[name]
        for flag, value in flags.items():
            setattr(node, flag, value)
        self.world.cluster.node_changed(node)

    async def reserve(self, node: str, after_s: float) -> None:
        start = self.now() + after_s
        self.world.cluster.reserve(Reserved(node, start, start + 3600.0, (node,)))

    async def unreserve(self, node: str) -> None:
        self.world.cluster.unreserve(node)

    # -- faults

    async def node_down(self, name: str) -> None:
        self.world.agents.silent_nodes.add(name)
        for agent in [agent for agent in self.world.agents.living() if agent.node == name]:
            self.world.agents.ended(agent, FOREIGN, by_service=False)
        self._node(name, down=True)
        for job in list(self.world.cluster.nodes[name].running.values()):
            self.world.cluster.requeue(job, FOREIGN)

    async def node_up(self, name: str) -> None:
        self.world.agents.silent_nodes.discard(name)
        self._node(name, down=False)

    async def kill_controller(self) -> None:
        self.world.cluster.go_down()
        await asyncio.sleep(CONTROLLER_AWAY_S)
        self.world.cluster.come_up(lost_state=False)

    async def cold_restart(self) -> None:
        self.world.cluster.go_down()
        await asyncio.sleep(NODES_END_FORGOTTEN_S)
        for job in self.world.cluster.come_up(lost_state=True):
            if job.process is not None:
                self.world.site.after(NODES_END_FORGOTTEN_S, job.process.kill, FOREIGN)

    async def stop_controller(self) -> None:
        # What is sent to it meanwhile is taken up when it was said to go on, so it does not before.
        self.world.cluster.paused_until = self.now() + CONTROLLER_STOPPED_S

    async def continue_controller(self) -> None:
        await self.sleep(self.world.cluster.paused_until - self.now())
        self.world.cluster.schedule_soon()


class SimulatedWatch:
    """Clients at the gate, and an eye on the controller's table and on the agents themselves."""

    def __init__(self, site: SimulatedSite) -> None:
        self._site = site
        self._chance = site.world.site.chance("scenario-clients")
        self._asked: list[int] = []
        self._refused = 0
        self._most_live = 0
        self._twins: set[str] = set()
        self._stopping = False
        self._tasks = [asyncio.ensure_future(loop) for loop in (self._keep_asking(), self._keep_looking())]

    async def end(self) -> Watched:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        while not all(stream in self._site.ended for stream in self._asked):  # noqa: ASYNC110
            await asyncio.sleep(ASK_EVERY_S)
        ends = [self._site.ended[stream] for stream in self._asked]
        failed = [cause for how, cause in ends if how != "done"]
        cut = sum(cause == FOREIGN for cause in failed)
        return Watched(
            most_live=self._most_live,
            twins=len(self._twins),
            requests=len(self._asked) + self._refused,
            lost=len(failed) - cut + self._refused,
            cut=cut,
        )

    async def _keep_asking(self) -> None:
        world, gate = self._site.world, self._site.world.gates["a"]
        while not self._stopping:
            await asyncio.sleep(REQUEST_EVERY_S)
            agent = gate.open(SERVICE)
            if agent is not None:
                stream = next(self._site.numbers)
                self._asked.append(stream)
                lasts_s = self._chance.uniform(*REQUEST_LASTS_S)
                agent.streams[stream] = world.site.after(
                    lasts_s, world.agents.end_stream, agent, stream, "done", ""
                )
            elif any(self._healthy(each) for each in world.agents.living()):
                self._refused += 1

    def _healthy(self, agent: Agent) -> bool:
        known = self._site.instance(agent.instance)
        since = known.ready_since if known is not None else None
        seen = since is not None and self._site.now() - since > NOTICED_S
        return seen and agent.ready and not agent.draining

    async def _keep_looking(self) -> None:
        while not self._stopping:
            names = [job.name for job in self._site.queue() if job.state != "COMPLETING"]
            self._most_live = max(self._most_live, len(names))
            self._twins.update(name for name in names if names.count(name) > 1)
            await asyncio.sleep(LOOK_EVERY_S)
