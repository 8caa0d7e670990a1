"""One upstream: a gate kept connected for as long as the proxy runs, its routes and its orders."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from saia_engine.edge.logs import get_logger
from saia_engine.edge.text import plain
from saia_engine.wire.frames import NotOurPeer, WireError
from saia_engine.wire.messages import Admin, Applied, Control, Hello, KeyState, Metrics, Open, Routes
from saia_engine.wire.mux import Mux, MuxClosed, Stream
from saia_proxy.admin import Orders
from saia_proxy.routing import RoutingTable
from saia_proxy.transports import Connect, Link, Trouble, Unusable

VERSION = version("saia")
PROGRAM = f"saia-proxy/{VERSION}"
METRICS_INTERVAL_S = 1.0
STEADY_S = 30.0
"""A connection that held this long starts the back-off anew."""


@dataclass(frozen=True, slots=True)
class Backoff:
    first_s: float = 1.0
    most_s: float = 30.0

    def delay(self, failures: int) -> float:
        """Before the attempt after so many failures in a row (1 or more); jittered by a half."""
        longest = min(self.most_s, self.first_s * 2 ** min(failures - 1, 30))
        return longest * random.uniform(0.5, 1.0)


class Tunnel:
    """Owns the connection to one upstream. `run` keeps it; `open` starts a request on it.

    `on_link` is told +1 as it is connected, and -1 as it is lost; `keys` is what is told of API keys.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        table: RoutingTable,
        orders: Orders,
        keys: Callable[[], list[KeyState]] = list,
        on_link: Callable[[int], object] = lambda change: None,
        handshake_s: float = 10.0,
        backoff: Backoff = Backoff(),
    ) -> None:
        self.name = name
        self.last_error = ""
        self.connected_since: float | None = None
        self._connect = connect
        self._table = table
        self._orders = orders
        self._keys = keys
        self._on_link = on_link
        self._handshake_s = handshake_s
        self._backoff = backoff
        self._mux: Mux | None = None
        self._routes_generation = 0
        self._log = get_logger("tunnel").bind(upstream=name)

    def open(self, head: Open) -> Stream:
        """Raises MuxClosed while there is no connection, StreamReset(limit) at the bound of streams."""
        if self._mux is None:
            raise MuxClosed(self.last_error or "not connected yet")
        return self._mux.open(head)

    async def run(self) -> None:
        """Connect, serve, connect again; until cancelled."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._serve()
            except Unusable as exc:
                self.last_error = str(exc)
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            delay_s = self._backoff.delay(failures)
            self._log.warning("upstream down", reason=self.last_error, retry_in_s=round(delay_s, 1))
            await asyncio.sleep(delay_s)

    async def _serve(self) -> None:
        """One connection, from its start to its end. Raises Unusable."""
        link = await self._connect(self._make_mux)
        try:
            hello = await handshake(link, self._handshake_s)
            self._mux = link.mux
            self.connected_since = time.time()
            self._log.info("upstream connected", gate=plain(hello.program, 60))
            self._on_link(+1)
            reporter = asyncio.create_task(self._report(link.mux))
            try:
                await link.mux.wait_closed()
            finally:
                reporter.cancel()
            raise Unusable(Trouble.GATE_ENDED, plain(link.mux.closed_because, 500))
        finally:
            self._mux = None
            if self.connected_since is not None:
                self._on_link(-1)
            self.connected_since = None
            self._table.lost(self.name)
            self._orders.lost(self.name)
            await link.close()

    def _make_mux(self, write: Callable[[bytes], None]) -> Mux:
        def on_control(message: Control) -> None:
            self._control(mux, message)

        mux = Mux(write, program=PROGRAM, on_control=on_control)
        return mux

    def _control(self, mux: Mux, message: Control) -> None:
        if isinstance(message, Routes):
            self._table.update(self.name, message)
            self._routes_generation = message.generation
        elif isinstance(message, Admin):
            self._orders.apply(self.name, message)
        else:
            return
        self._acknowledge(mux)

    def _acknowledge(self, mux: Mux) -> None:
        mux.control(Applied(self._routes_generation, self._orders.acknowledged(self.name)))

    async def _report(self, mux: Mux) -> None:
        while True:
            mux.control(Metrics(VERSION, dict(self._table.queued), self._keys()))
            self._acknowledge(mux)
            await asyncio.sleep(METRICS_INTERVAL_S)


async def handshake(link: Link, timeout_s: float) -> Hello:
    """The gate's hello. Raises Unusable, which says what came instead."""
    try:
        async with asyncio.timeout(timeout_s):
            return await link.mux.ready()
    except TimeoutError:
        raise Unusable(Trouble.PROTOCOL, f"no handshake within {timeout_s:.0f} s") from None
    except NotOurPeer as exc:
        raise _not_ours(exc.seen) from None
    except WireError as exc:
        raise Unusable(Trouble.PROTOCOL, plain(exc, 300)) from None
    except MuxClosed as exc:
        raise Unusable(Trouble.GATE_ENDED, plain(exc, 500)) from None


def _not_ours(seen: bytes) -> Unusable:
    text = plain(seen.strip(), 200)
    if seen.strip() == b"saia-gate: refused":  # it tells no more to one that may have no right to know
        hint = "is this proxy's name among the engine's [proxies], and its key's line that of gate-key?"
        return Unusable(Trouble.GATE_REFUSED, f"{text}; {hint}")
    if seen.startswith(b"saia-gate: "):
        return Unusable(Trouble.GATE_REFUSED, text)
    hint = "does a shell start-up file of the gate's account print, or is its key not restricted?"
    return Unusable(Trouble.UNEXPECTED_OUTPUT, f"'{text}'; {hint}")
