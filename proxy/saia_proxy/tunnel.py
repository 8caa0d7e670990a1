"""One upstream: several connections to its gate, which of them a request takes, and whose word counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from saia_engine.wire.messages import Applied, Metrics, Open, Routes
from saia_engine.wire.mux import MuxClosed, Stream
from saia_proxy.admin import Orders
from saia_proxy.line import BACKOFF, Backoff, Line
from saia_proxy.relay import VERSION, Relay
from saia_proxy.routing import RoutingTable
from saia_proxy.transports import Connect

METRICS_INTERVAL_S = 1.0
TOGETHER = 4
"""A connection may have this part more streams than another, one in so many, where they cost less there."""


class Tunnel:
    """Owns the connections to one upstream. `run` keeps them; `open` starts a request on one.

    `on_link` is told +1 as one is connected, and -1 as one is lost; `on_round_trip` how many seconds a
    ping took on one. A gate that was upgraded gets new ones, and has `longest_s` for the streams of the old.
    `metrics` is what is told of us.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        table: RoutingTable,
        orders: Orders,
        metrics: Callable[[], Metrics] = lambda: Metrics(VERSION),
        connections: int = 1,
        on_link: Callable[[int], object] = lambda change: None,
        on_round_trip: Callable[[float], None] = lambda seconds: None,
        handshake_s: float = 10.0,
        longest_s: float = 3600.0,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self.name = name
        self._table = table
        self._orders = orders
        self._metrics = metrics
        self._on_link = on_link
        self._on_round_trip = on_round_trip
        self._lines = [
            Line(
                name,
                connect,
                on_relay=self._joined,
                handshake_s=handshake_s,
                longest_s=longest_s,
                backoff=backoff,
            )
            for _ in range(connections)
        ]
        self._relays: list[Relay] = []
        """Those that are connected, in the order in which they came."""
        self._latest: Relay | None = None
        """Which opened the newest stream."""
        self._teller: Relay | None = None
        """Whose routes are in force."""
        self._in_force: Routes | None = None

    def open(self, head: Open) -> Stream:
        """Raises MuxClosed while there is no connection, StreamReset(limit) at the bound of streams."""
        relays = self._in_use()
        if not relays:
            raise MuxClosed(self._last_error())
        self._latest = min(relays, key=self._load)
        return self._latest.mux.open(head)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(line.run())
            group.create_task(self._report())

    def _load(self, relay: Relay) -> tuple[int, float]:
        """Streams; of equals the one that was used last, whose gate is still warm, then at random.

        What opens in one turn of the loop shares a packet, if that is not too uneven.
        """
        streams = relay.streams
        load = streams - (streams // TOGETHER if relay.mux.gathering else 0)
        return load, -1.0 if relay is self._latest else random.random()

    def _in_use(self) -> list[Relay]:
        return [relay for relay in self._relays if not relay.retired]

    def _last_error(self) -> str:
        return next((line.last_error for line in self._lines if line.last_error), "not connected yet")

    # -- what happens to relays

    def _joined(self, relay: Relay) -> None:
        relay.on_change = self._apply
        relay.on_lost = lambda: self._lost(relay)
        relay.on_round_trip = self._on_round_trip
        self._relays.append(relay)
        self._on_link(+1)
        self._apply()
        self._tell_metrics()

    def _lost(self, relay: Relay) -> None:
        self._relays.remove(relay)
        self._on_link(-1)
        self._apply()

    def _apply(self) -> None:
        """Puts in force what the relays in use say: of several the newest word.

        One that is not connected counts for nothing, so an engine that began anew, at a lower number, is heard as
        soon as each of them has read its table.
        """
        relays = self._in_use()
        if not relays:
            self._teller = self._in_force = None
            self._table.lost(self.name)
            self._orders.lost(self.name)
            return
        # Of equally new ones the same as before: a relay that has just begun offers instances it has not tried yet.
        teller = max(relays, key=lambda relay: (relay.routes.generation, relay is self._teller))
        if teller is not self._teller:
            self._teller = teller
            self._tell_metrics()
        routes = teller.routes
        if routes is not self._in_force:
            self._in_force = routes
            self._table.update(self.name, routes)
        orders = [relay.admin for relay in relays if relay.admin is not None]
        if orders:
            self._orders.apply(self.name, max(orders, key=lambda order: order.revision))
        self._acknowledge()

    def _acknowledge(self) -> None:
        generation = self._in_force.generation if self._in_force is not None else 0
        applied = Applied(generation, self._orders.acknowledged(self.name))
        for relay in tuple(self._relays):
            relay.mux.control(applied)

    # -- what is told of us

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(METRICS_INTERVAL_S)
            self._tell_metrics()
            self._acknowledge()

    def _tell_metrics(self) -> None:
        """The engine adds up what relays tell, so one alone tells more than the version."""
        whole, brief = self._metrics(), Metrics(VERSION)
        for relay in tuple(self._relays):
            relay.mux.control(whole if relay is self._teller else brief)
