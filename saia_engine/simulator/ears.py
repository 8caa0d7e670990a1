"""In place of the engine's probes: the same words from simulated agents over a simulated network.

It keeps what the probes promise: an endpoint file is read until it is whole, its host is the agent's word only,
a control connection needs the right secret, the wish to drain is told again and again, and one request through
the front proves the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from saia_engine.front import Endpoint, EndpointFault
from saia_engine.model import AgentStatus
from saia_engine.probes import SILENT_S, Target
from saia_engine.simulator.agents import FIRST_PORT, LAST_PORT, Agent, Agents
from saia_engine.simulator.shared_files import SimDirs
from saia_engine.simulator.site import Site

EVERY_S = 5.0
DRAIN_EVERY_S = 1.0
RETRY_S = 1.0
SLOW_SHARE = 0.05
"""Of the answers: so many are slow."""
SLOW_S = 3.0


@dataclass(slots=True, eq=False)
class _Line:
    """One target's conversation."""

    target: Target
    timer: Any = None
    verified: bool = False
    agent: Agent | None = None
    """Whom the last answer came from."""


class SimEars:
    """The `Ears` of one engine."""

    def __init__(
        self,
        site: Site,
        agents: Agents,
        dirs: SimDirs,
        now: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        self.statuses: dict[str, AgentStatus] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.faults: dict[str, str] = {}
        self.listening_since: dict[str, float] = {}
        self.deaf_until = 0.0
        """The engine's host is cut off from the nodes before."""
        self._site = site
        self._agents = agents
        self._dirs = dirs
        self._now = now
        self._on_change = on_change
        self._chance = site.chance("ears")
        self._lines: dict[str, _Line] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        wanted = {target.instance: target for target in targets}
        for name, line in list(self._lines.items()):
            new = wanted.get(name)
            if new is None or (new.generation, new.address) != (line.target.generation, line.target.address):
                self._let_go(name, line)
            elif new.drain != line.target.drain:
                line.target = new
                self._next(line, 0.01)
            else:
                line.target = new
        for name, target in wanted.items():
            if name not in self._lines:
                self.listening_since[name] = self._now()
                line = self._lines[name] = _Line(target)
                self._next(line, self._chance.uniform(0.0, 0.1))

    def _let_go(self, name: str, line: _Line) -> None:
        line.timer.cancel()
        del self._lines[name]
        for known in (self.statuses, self.endpoints, self.faults, self.listening_since):
            known.pop(name, None)

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        for line in self._lines.values():
            line.timer.cancel()
        self._lines.clear()

    def _next(self, line: _Line, delay_s: float) -> None:
        if line.timer is not None:
            line.timer.cancel()
        line.timer = self._site.after(delay_s, self._turn, line)

    def _turn(self, line: _Line) -> None:
        name = line.target.instance
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            endpoint = self._read(line.target)
        agent = None if endpoint is None else self._reached(line.target, endpoint)
        if endpoint is None or agent is None:
            self._next(line, RETRY_S)
            return
        self.endpoints[name] = endpoint
        self._clear(name, "agent")
        self._agents.hear(agent, line.target.drain)
        late = self._chance.random() < SLOW_SHARE
        self._next(line, DRAIN_EVERY_S if line.target.drain else EVERY_S)
        if late:
            self._site.after(self._chance.uniform(0.0, SLOW_S), self._answer, line, agent, self._said(agent))
        else:
            self._answer(line, agent, self._said(agent))

    def _said(self, agent: Agent) -> tuple[bool, bool, int, bool, bool]:
        return agent.ready, agent.draining, len(agent.streams), agent.alive, agent.served

    def _answer(self, line: _Line, agent: Agent, said: tuple[bool, bool, int, bool, bool]) -> None:
        name = line.target.instance
        if self._lines.get(name) is not line or agent.gone or not agent.reachable:
            return
        ready, draining, opened, alive, served = said
        if line.agent is not agent:
            line.agent, line.verified = agent, False
        if ready and not draining and not line.verified:
            line.verified = not agent.hung
        before = self.statuses.get(name)
        self.statuses[name] = AgentStatus(
            self._now(), ready, draining, opened, line.verified, alive=alive, served=served
        )
        if (
            before is None
            or (before.ready, before.draining, before.verified)
            != (
                ready,
                draining,
                line.verified,
            )
            or (draining and opened != before.open_connections)
        ):
            self._on_change()

    def _read(self, target: Target) -> Endpoint | None:
        try:
            endpoint = self._dirs.endpoint(target.instance, target.generation)
        except EndpointFault as exc:
            self._fault(target.instance, f"endpoint file: {exc}")
            return None
        if endpoint is None:
            return None
        if not FIRST_PORT <= endpoint.port <= LAST_PORT:
            self._fault(target.instance, f"endpoint file: port {endpoint.port} is outside port_range")
            return None
        self._clear(target.instance, "endpoint file")
        return endpoint

    def _reached(self, target: Target, endpoint: Endpoint) -> Agent | None:
        agent = self._agents.at.get((target.address, endpoint.port))
        if agent is None or not agent.reachable or self._site.now < self.deaf_until:
            if self._silent(target.instance):
                self._fault(target.instance, "agent: no whole handshake")
            return None
        if (agent.control_secret, agent.instance) != (endpoint.control_secret, target.instance):
            self._fault(target.instance, "agent: the answer proves no knowledge of the secret")
            return None
        return agent

    def _silent(self, name: str) -> bool:
        status = self.statuses.get(name)
        since = self.listening_since.get(name, 0.0) if status is None else status.seen_at
        return self._now() - since > SILENT_S

    def _fault(self, name: str, text: str) -> None:
        if self.faults.get(name) != text:
            self.faults[name] = text
            self._on_change()

    def _clear(self, name: str, kind: str) -> None:
        if self.faults.get(name, "").startswith(f"{kind}:"):
            del self.faults[name]
            self._on_change()
