"""The lines of all services, and the places that are given out in them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from saia_proxy.balancer import Target
from saia_proxy.config import Queues
from saia_proxy.health import Use
from saia_proxy.metrics import Metrics
from saia_proxy.routing import LOOK_AGAIN_S, Offer, RoutingTable
from saia_proxy.waiting import Line, Ticket, serve


class Place:
    """An instance that a request may go to now. It counts as under way there from here until it leaves."""

    def __init__(self, target: Target, table: RoutingTable, left: Callable[[], None]) -> None:
        self.target = target
        self._left = left
        self._way = table.ways[target.upstream]
        self._way.in_flight += 1
        self._under_way = table.use(target)
        self._use = self._under_way.__enter__()

    def __enter__(self) -> Use:
        return self._use

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._under_way.__exit__(None, None, None)
        self._way.in_flight -= 1
        self._left()


class Queue:
    """The lines of all services; only touched from the event loop."""

    def __init__(self, table: RoutingTable, rules: Queues, metrics: Metrics) -> None:
        self.table = table
        self.rules = rules
        self.metrics = metrics
        self.ranks = itertools.count()
        self.closed = False
        self._lines: dict[str, Line[Place]] = {}
        self.loop = asyncio.get_running_loop()
        self._look: asyncio.TimerHandle | None = None
        table.on_change = self.serve

    def take(self, offer: Offer, affinity: bytes) -> Place | None:
        target = self.table.choose(offer, affinity)
        return None if target is None else Place(target, self.table, self.serve)

    def waiting(self, service: str) -> int:
        line = self._lines.get(service)
        return len(line) if line is not None else 0

    def line(self, service: str) -> Line[Place]:
        if service not in self._lines:
            self._lines = {
                name: line for name, line in self._lines.items() if line or name in self.table.services
            }
            self._lines[service] = Line(self.rules.of(service).max_waiting)
        return self._lines[service]

    def enter(self, line: Line[Place], ticket: Ticket[Place]) -> None:
        if not line:
            line.pace.begin(self.loop.time())
        line.enter(ticket)
        self.serve()
        if self._look is None:
            self._look = self.loop.call_later(LOOK_AGAIN_S, self._look_again)

    def serve(self) -> None:
        """Whoever waits and can go, goes."""
        if self.table.queued:
            serve([line for line in self._lines.values() if line])

    def close(self) -> None:
        """The proxy stops: nobody waits any more."""
        self.closed = True
        for line in self._lines.values():
            line.close()

    def _look_again(self) -> None:
        """Some places come with time alone: after a refusal, or as an ejection ends."""
        self._look = None
        if self.table.queued:
            self._look = self.loop.call_later(LOOK_AGAIN_S, self._look_again)
            self.serve()
