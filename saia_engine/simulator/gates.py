"""The gates of each host, and the clients behind the proxy.

Whether a request is admitted the production gate decides, under an ear for programs that it starts: it has no way to
submit or cancel (promise 21).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from saia_engine.gate.admission import Refusal, admit
from saia_engine.routes import Route, RouteTable
from saia_engine.simulator.agents import Agent, Agents
from saia_engine.simulator.hosts import Host
from saia_engine.simulator.site import USER, Site
from saia_engine.simulator.truth import (
    CancelCalled,
    ReadRoute,
    RequestOpened,
    RequestRefused,
    RoutesRead,
    SubmitCalled,
)
from saia_engine.wire.messages import Open

READ_WITHIN_S = 1.0
CLIENT_PATIENCE_S = 60.0
LONG_SHARE = 0.05
STARTS_A_PROGRAM = frozenset({"subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"})
"""Python's audit events: (program, arguments, ...), or one line for a shell."""

_started: Callable[[Sequence[str]], None] | None = None


def _audit(event: str, args: Sequence[Any]) -> None:
    if _started is None or event not in STARTS_A_PROGRAM:
        return
    words = args[1] if event != "os.system" else str(args[0]).split()
    _started([str(word) for word in words])
    raise FileNotFoundError(words[0])


sys.addaudithook(_audit)


@contextmanager
def heard(started: Callable[[Sequence[str]], None]) -> Iterator[None]:
    """Programs that are started meanwhile are told of, and don't run."""
    global _started
    _started = started
    try:
        yield
    finally:
        _started = None


class Gate:
    """One host's gates: they know what they have read of `routes.json`, and what the agents tell them."""

    def __init__(self, site: Site, host: Host, agents: Agents) -> None:
        self.host = host
        self.table: RouteTable | None = None
        self._site = site
        self._agents = agents
        self._chance = site.chance(f"gate-{host.name}")
        self._due: Any = None
        self._told: tuple[ReadRoute, ...] | None = None
        host.on_table = self._written

    def _written(self) -> None:
        if self._due is None:
            self._due = self._site.after(self._chance.uniform(0.05, READ_WITHIN_S), self._read)

    def _read(self) -> None:
        self._due = None
        self.table = self.host.table
        routes = tuple(self._seen(route) for route in (self.table.routes if self.table else ()))
        if routes != self._told:
            self._told = routes
            self._site.emit(RoutesRead(self._site.now, self.host.name, routes))

    def _seen(self, route: Route) -> ReadRoute:
        agent = self._agents.at.get((route.host, route.port))
        return ReadRoute(
            route.instance,
            route.generation,
            route.service,
            route.admit_until,
            route.end,
            route.draining,
            agent is not None and agent.gate_secret == route.secret,
        )

    def open(self, service: str) -> Agent | None:
        """An instance that takes a request now; None where there is none."""
        now = self._site.now
        open_routes = [
            route
            for route in (self.table.routes if self.table else ())
            if route.service == service and not route.draining
        ]
        with heard(self._program):
            open_routes = [route for route in open_routes if _admits(route, now)]
        self._chance.shuffle(open_routes)
        for route in open_routes:
            agent = self._agents.at.get((route.host, route.port))
            if agent is None or not agent.reachable or agent.gate_secret != route.secret:
                continue
            if (agent.instance, agent.generation) == (
                route.instance,
                route.generation,
            ) and not agent.draining:
                return agent
        return None

    def _program(self, words: Sequence[str]) -> None:
        """The gate has started one."""
        site, name = self._site, f"gate-{self.host.name}"
        job = next((word.partition("=")[2] or word for word in words if "saia." in word), "")
        if PurePath(words[0]).name == "sbatch":
            site.emit(SubmitCalled(site.now, name, job))
        elif PurePath(words[0]).name == "scancel":
            site.emit(CancelCalled(site.now, name, 0, job, USER))


def _admits(route: Route, now: float) -> bool:
    method = "POST" if "POST" in route.methods else "GET"
    path = f"{route.paths[0] if route.paths else '/'}completions"
    try:
        admit(Open(route.instance, method, path), route, now)
    except Refusal:
        return False
    return True


@dataclass(slots=True)
class Traffic:
    """How a service is used."""

    every_s: float = 25.0
    lasts_s: float = 8.0
    longest_s: float = 600.0


class Clients:
    """They ask each service at random times, by way of a host that is up."""

    def __init__(self, site: Site, gates: dict[str, Gate], agents: Agents) -> None:
        self.away_until = 0.0
        self.front_host = "a"
        """Where the proxy connects first: the engine's."""
        self._site = site
        self._gates = gates
        self._agents = agents
        self._chance = site.chance("clients")
        self._streams = 0
        self._asking: dict[str, Any] = {}

    def use(self, services: dict[str, Traffic]) -> None:
        """From now on these services are asked."""
        for name in [name for name in self._asking if name not in services]:
            self._asking.pop(name).cancel()
        for name, traffic in services.items():
            if name not in self._asking:
                self._later(name, traffic)

    def _later(self, name: str, traffic: Traffic) -> None:
        delay = self._chance.expovariate(1.0 / traffic.every_s)
        self._asking[name] = self._site.after(delay, self._ask, name, traffic)

    def _ask(self, name: str, traffic: Traffic) -> None:
        self._later(name, traffic)
        if self._site.now < self.away_until:
            return
        gate = self._gate()
        if gate is None:
            self._site.emit(RequestRefused(self._site.now, name, "no-gate"))
            return
        agent = gate.open(name)
        if agent is None:
            has_route = gate.table is not None and any(r.service == name for r in gate.table.routes)
            self._site.emit(RequestRefused(self._site.now, name, "all-refused" if has_route else "no-route"))
            return
        self._open(agent, name, traffic)

    def _gate(self) -> Gate | None:
        first = self._gates[self.front_host]
        if first.host.up:
            return first
        return next((gate for gate in self._gates.values() if gate.host.up), None)

    def _open(self, agent: Agent, name: str, traffic: Traffic) -> None:
        self._streams += 1
        stream = self._streams
        chance = self._chance
        if chance.random() < LONG_SHARE:
            lasts_s = chance.uniform(60.0, traffic.longest_s)
        else:
            lasts_s = chance.expovariate(1.0 / traffic.lasts_s) + 0.05
        self._site.emit(RequestOpened(self._site.now, stream, name, agent.instance, agent.generation))
        how, cause = ("lost", "hang") if agent.hung else ("done", "")
        if agent.hung:
            lasts_s = CLIENT_PATIENCE_S
        elif chance.random() < 0.03:
            how, lasts_s = "client-left", lasts_s * chance.random()
        agent.streams[stream] = self._site.after(lasts_s, self._agents.end_stream, agent, stream, how, cause)
