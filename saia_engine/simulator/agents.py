"""The agents inside the jobs, with their services and the streams they hold."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

from saia_engine.agent import endpoint_name, exit_name
from saia_engine.model import parse_token
from saia_engine.simulator.cluster import Cluster, SimJob
from saia_engine.simulator.shared_files import SharedFiles
from saia_engine.simulator.site import Site
from saia_engine.simulator.truth import AgentChanged, AgentReachable, DrainHeard, RequestEnded
from saia_engine.simulator.wishes import BROKEN

FIRST_PORT, LAST_PORT = 20000, 20999
PROBE_S = 10.0
"""How often an agent asks its service."""
FAILURES = 3
"""So many failed probes in a row make it unready."""


@dataclass(frozen=True, slots=True)
class Character:
    """How a service behaves."""

    load_s: float


@dataclass(slots=True)
class Luck:
    """What is going to befall the next agents that start; each is used up by one."""

    slow: int = 0
    crash: int = 0
    hang: int = 0
    late_file: int = 0
    torn_file: int = 0


@dataclass(slots=True, eq=False)
class Agent:
    """One generation of one instance."""

    instance: str
    generation: int
    service: str
    job: SimJob
    node: str
    port: int
    gate_secret: str
    control_secret: str
    begun: bool = False
    """Its front listens."""
    ready: bool = False
    hung: bool = False
    alive: bool = True
    """Its liveness probe's word, where it has one."""
    served: bool = False
    gone: bool = False
    reachable: bool = True
    draining: bool = False
    streams: dict[int, Any] = field(default_factory=dict)
    """Open ones, by number: their timers."""
    timer: Any = None

    def kill(self, cause: str) -> None:
        self.world.ended(self, cause, by_service=False)

    world: Any = None


class Agents:
    """All of them, by where they listen."""

    def __init__(self, site: Site, cluster: Cluster, shared: SharedFiles) -> None:
        self.site = site
        self.cluster = cluster
        self.shared = shared
        self.chance = site.chance("agents")
        self.characters: dict[str, Character] = {}
        self.luck = Luck()
        self.at: dict[tuple[str, int], Agent] = {}
        """By node and port."""
        self.silent_nodes: set[str] = set()
        self.away: list[Agent] | None = None
        """Who was started while the network is away; None while it is there."""
        cluster.spawn = self.spawn

    def spawn(self, job: SimJob) -> Agent | None:
        token = parse_token(job.name)
        instance = job.name.partition(".")[2]
        node = job.node
        if token is None or node is None:
            return None
        if self.shared.read(f"{instance}/job.sh") is None:
            self.site.after(0.5, self.cluster.process_ended, job, 127)
            return None
        agent = Agent(
            instance=instance,
            generation=job.restarts,
            service=token[2],
            job=job,
            node=node.name,
            port=self._port(node.name),
            gate_secret=_secret(self.chance),
            control_secret=_secret(self.chance),
            reachable=node.name not in self.silent_nodes and self.away is None,
            world=self,
        )
        if self.away is not None:
            self.away.append(agent)
        self.at[agent.node, agent.port] = agent
        agent.timer = self.site.after(self.chance.uniform(0.3, 2.0), self._begin, agent)
        return agent

    def _port(self, node: str) -> int:
        while (node, port := self.chance.randint(FIRST_PORT, LAST_PORT)) in self.at:
            pass
        return port

    def _begin(self, agent: Agent) -> None:
        """The front listens, the endpoint file is written, the service is started."""
        agent.begun = True
        self.tell(agent, "starting")
        if not agent.reachable:
            self.site.emit(AgentReachable(self.site.now, agent.instance, agent.generation, False))
        self._write_endpoint(agent)
        luck, chance, site = self.luck, self.chance, self.site
        load_s = self.characters[agent.service].load_s * chance.uniform(0.7, 1.4)
        if luck.slow:
            luck.slow -= 1
            site.fault("slow-load", agent.instance)
            load_s *= chance.uniform(3.0, 6.0)
        broken = agent.job.spec is not None and BROKEN in agent.job.spec.command
        if luck.crash or broken:
            if not broken:
                luck.crash -= 1
                site.fault("crash-at-start", agent.instance)
            agent.timer = site.after(chance.uniform(1.0, load_s), self.service_ended, agent, 1)
            return
        if luck.hang:
            luck.hang -= 1
            site.fault("hang-at-start", agent.instance)
            agent.hung = True
            return  # it never says that it is ready
        agent.timer = site.after(load_s, self._found_ready, agent)

    def _write_endpoint(self, agent: Agent) -> None:
        text = json.dumps(
            {
                "version": 1,
                "protocol": 1,
                "port": agent.port,
                "host": agent.node,
                "gate_secret": agent.gate_secret,
                "control_secret": agent.control_secret,
            }
        )
        path = f"{agent.instance}/{endpoint_name(agent.generation)}"
        delay_s = self.chance.uniform(0.0, 2.0)
        if self.luck.late_file:
            self.luck.late_file -= 1
            self.site.fault("endpoint-late", agent.instance)
            delay_s = self.chance.uniform(20.0, 60.0)
        if self.luck.torn_file:
            self.luck.torn_file -= 1
            self.site.fault("endpoint-torn", agent.instance)
            self.shared.write(path, text[: self.chance.randint(0, len(text) - 1)], delay_s)
            delay_s += self.chance.uniform(2.0, 30.0)
        self.shared.write(path, text, delay_s)

    def _found_ready(self, agent: Agent) -> None:
        if not agent.gone and not agent.hung:
            agent.ready, agent.alive, agent.served = True, True, True
            self.tell(agent, "ready")

    # -- what befalls it

    def hang(self, agent: Agent) -> None:
        """It accepts and never answers; the agent's own probes find out."""
        agent.hung = True
        agent.timer = self.site.after(
            FAILURES * PROBE_S * self.chance.uniform(0.8, 1.2), self._found_hung, agent
        )
        for stream in list(agent.streams):
            self.end_stream(agent, stream, "lost", "hang")

    def _found_hung(self, agent: Agent) -> None:
        if not agent.gone and agent.hung and agent.ready:
            agent.ready = False
            agent.alive = agent.job.spec is None or agent.job.spec.liveness is None
            self.tell(agent, "unready")

    def mend(self, agent: Agent) -> None:
        """Whatever it was going to suffer, it does not: it answers, or will soon."""
        self.unhang(agent)
        if agent.begun and not agent.ready and not agent.hung and not agent.gone:
            if agent.timer is not None:
                agent.timer.cancel()
            load_s = self.characters[agent.service].load_s
            agent.timer = self.site.after(self.chance.uniform(0.5, load_s), self._found_ready, agent)

    def unhang(self, agent: Agent) -> None:
        if agent.hung and not agent.gone:
            agent.hung = False
            if not agent.ready:
                agent.timer = self.site.after(self.chance.uniform(0.5, 2.0), self._found_ready, agent)

    def reach(self, agent: Agent, reachable: bool) -> None:
        if agent.reachable == reachable or agent.gone:
            return
        agent.reachable = reachable
        self.site.emit(AgentReachable(self.site.now, agent.instance, agent.generation, reachable))
        if not reachable:
            for stream in list(agent.streams):
                self.end_stream(agent, stream, "lost", "unreachable")

    def service_ended(self, agent: Agent, exit_code: int) -> None:
        """The service ended by itself: its agent follows, and with it the job."""
        if agent.gone:
            return
        record = {"version": 1, "exit_code": exit_code, "signal": None, "stopped_by": "service"}
        self.ended(agent, "service", by_service=True)
        path = f"{agent.instance}/{exit_name(agent.generation)}"
        self.shared.write(path, json.dumps(record | {"at": self.site.now}), self.chance.uniform(0.0, 5.0))
        self.cluster.process_ended(agent.job, exit_code)

    def ended(self, agent: Agent, cause: str, *, by_service: bool) -> None:
        """All its processes are gone; what was open is cut, or lost where nobody wanted it."""
        if agent.gone:
            return
        agent.gone, agent.ready = True, False
        if agent.timer is not None:
            agent.timer.cancel()
        del self.at[agent.node, agent.port]
        cut = "lost" if by_service or cause in ("fault", "node") else "cut"
        for stream in list(agent.streams):
            self.end_stream(agent, stream, cut, "service" if by_service else cause)
        self.tell(agent, "gone")

    # -- what it hears and says

    def hear(self, agent: Agent, draining: bool) -> None:
        if agent.draining != draining:
            agent.draining = draining
            self.site.emit(DrainHeard(self.site.now, agent.instance, agent.generation, draining))

    def end_stream(self, agent: Agent, stream: int, how: str, cause: str = "") -> None:
        timer = agent.streams.pop(stream, None)
        if timer is not None:
            timer.cancel()
            self.site.emit(RequestEnded(self.site.now, stream, how, cause))

    def tell(self, agent: Agent, state: str) -> None:
        self.site.emit(
            AgentChanged(self.site.now, agent.instance, agent.generation, agent.service, agent.job.id, state)
        )

    def living(self) -> list[Agent]:
        return list(self.at.values())


def _secret(chance: random.Random) -> str:
    return f"{chance.getrandbits(256):064x}"
