"""The instances as a gate reaches them: each with its route, its watch and a pool of proven connections."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Protocol

from saia_engine import front
from saia_engine.front import FrontError, FrontRefused, FrontUnreachable
from saia_engine.gate.admission import Refusal
from saia_engine.gate.http1 import Connection
from saia_engine.gate.watch import Watch
from saia_engine.routes import Route
from saia_engine.wire import messages
from saia_engine.wire.sweeper import Sweeper

IDLE_S = 3.0
"""Below the 5 s after which common servers close idle connections, or a POST would meet a closed one."""


def identity(route: Route) -> tuple[int, str, int, str]:
    """What makes it another instance behind the same id."""
    return route.generation, route.host, route.port, route.secret


class Replaced(Exception):
    """Another generation took the instance's place."""


class Cancellable(Protocol):
    """A task that prepares a request, or one that is under way."""

    def cancel(self, reason: Any, /) -> object: ...


class Upstream:
    """One generation of one instance. `lost` once another generation took its place."""

    def __init__(self, route: Route, changed: Callable[[], None], sweeper: Sweeper) -> None:
        self.route = route
        self.lost = False
        self.gone = False
        """Not in the routes any more: no new request, but what is open goes on."""
        self.open: set[Cancellable] = set()
        """What is under way here; cancelled if another generation takes this one's place."""
        self._told = changed
        self._idle: dict[Connection, float] = {}
        """Until when, the next to expire first."""
        self.deadline = math.inf
        self._sweeper = sweeper
        sweeper.add(self)
        self.watch = Watch(self._connect_watch, self._watch_changed)

    @property
    def identity(self) -> tuple[int, str, int, str]:
        return identity(self.route)

    @property
    def draining(self) -> bool:
        return self.route.draining or self.watch.draining

    @property
    def offered(self) -> bool:
        """Worth telling the proxy of."""
        return self.watch.live or self.watch.young or self.draining

    async def usable(self) -> None:
        """Raises Refusal where no request may be opened here now."""
        if not (self.gone or self.draining):
            await self.watch.settled()
        if self.gone:
            raise Refusal(messages.NO_ROUTE, "this instance is not there any more")
        if self.draining:
            raise Refusal(messages.DRAINING, "this instance drains")
        if not self.watch.live:
            raise Refusal(messages.NO_ROUTE, "this instance does not answer")

    def take_idle(self) -> Connection | None:
        """A proven connection of ours alone, where a request may be opened here now and one is free."""
        if self.gone or self.draining or not self.watch.live:
            return None
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.quiet():
                return connection
            connection.abort()
        return None

    async def take(self) -> Connection:
        """The same, or a new one. Raises Refusal."""
        idle = self.take_idle()
        if idle is not None:
            return idle
        try:
            _, connection = await front.connect_protocol(Connection, **self._address(front.DATA))
        except FrontRefused as exc:
            if exc.code == "draining":
                self.watch.drains()
                raise Refusal(messages.DRAINING, "this instance drains") from None
            raise Refusal(messages.REFUSED, "this instance refused the connection") from None
        except FrontUnreachable:
            raise Refusal(messages.REFUSED, "this instance does not answer") from None
        except FrontError:
            raise Refusal(messages.NO_ROUTE, "this instance is not who it should be") from None
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next request, if it may serve one."""
        if not connection.reusable or self.draining or self.gone or self.lost:
            connection.abort()
            return
        connection.rest()
        self._idle[connection] = until = monotonic() + IDLE_S
        if self.deadline == math.inf:
            self.deadline = until

    def update(self, route: Route) -> None:
        """The same instance, as newer routes describe it."""
        self.route = route
        if self.draining:
            self.close_idle()

    def leave(self) -> None:
        """It left the routes."""
        self.gone = True
        self._sweeper.discard(self)
        self.watch.close()
        self.close_idle()

    def replace(self) -> None:
        """Another generation took its place: whatever is open here has lost its instance."""
        self.lost = True
        self.leave()
        for each in list(self.open):
            each.cancel(Replaced())

    def close_idle(self) -> None:
        idle, self._idle = self._idle, {}
        for connection in idle:
            connection.abort()

    def late(self) -> None:
        """Of the Sweeper: an idle connection may have waited long enough."""
        now = monotonic()
        for connection in [idle for idle, until in self._idle.items() if until <= now]:
            del self._idle[connection]
            connection.abort()
        self.deadline = next(iter(self._idle.values()), math.inf)

    async def _connect_watch(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await front.connect(**self._address(front.WATCH))

    def _address(self, role: str) -> dict[str, Any]:
        route = self.route
        return {
            "host": route.host,
            "port": route.port,
            "role": role,
            "secret": route.secret,
            "instance": route.instance,
            "generation": route.generation,
        }

    def _watch_changed(self) -> None:
        if self.draining:
            self.close_idle()
        self._told()


class Upstreams:
    """All instances that one proxy may reach, kept as the routes say."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._sweeper = Sweeper()
        self._by_instance: dict[str, Upstream] = {}

    def __iter__(self):
        return iter(self._by_instance.values())

    def find(self, instance: str) -> Upstream:
        """Raises Refusal."""
        upstream = self._by_instance.get(instance)
        if upstream is None:
            raise Refusal(messages.NO_ROUTE, "no such instance")
        return upstream

    def apply(self, routes: Iterable[Route]) -> None:
        wanted = {route.instance: route for route in routes}
        for instance in [known for known in self._by_instance if known not in wanted]:
            self._by_instance.pop(instance).leave()
        for instance, route in wanted.items():
            known = self._by_instance.get(instance)
            if known is not None and known.identity == identity(route):
                known.update(route)
                continue
            if known is not None:
                known.replace()
            self._by_instance[instance] = Upstream(route, self._changed, self._sweeper)

    def close(self) -> None:
        for upstream in self._by_instance.values():
            upstream.leave()
