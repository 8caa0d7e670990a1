"""One of an upstream's connections: made again whenever it is lost, and anew beside itself when its gate asks to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from saia_engine.edge.logs import get_logger
from saia_engine.edge.text import plain
from saia_proxy import relay
from saia_proxy.relay import Relay
from saia_proxy.transports import Connect, Unusable

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


BACKOFF = Backoff()
SPREAD_S = 5.0
"""Lines whose gates all ask at once are renewed within so long."""
LOOK_AGAIN_S = 1.0


class Line:
    """`run` keeps it. Each relay that it connects is told to `on_relay`; one that was renewed may end what it has in
    `longest_s`."""

    def __init__(
        self,
        name: str,
        start: Connect,
        *,
        on_relay: Callable[[Relay], object],
        handshake_s: float,
        longest_s: float,
        backoff: Backoff,
    ) -> None:
        self.last_error = ""
        self._start = start
        self._on_relay = on_relay
        self._handshake_s = handshake_s
        self._longest_s = longest_s
        self._backoff = backoff
        self._relay = ""
        """The newest one's name; empty while none could be connected."""
        self._retired: set[asyncio.Task[None]] = set()
        self._log = get_logger("tunnel").bind(upstream=name)

    async def run(self) -> None:
        """Connect, serve, connect again; until cancelled."""
        failures = 0
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._serve()
                except Unusable as exc:
                    self.last_error = str(exc)
                failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
                delay_s = self._backoff.delay(failures)
                self._log.warning(
                    "upstream down",
                    relay=self._relay,
                    reason=self.last_error,
                    retry_in_s=round(delay_s, 1),
                )
                self._relay = ""
                await asyncio.sleep(delay_s)
        finally:
            for task in self._retired:
                task.cancel()
            await asyncio.gather(*self._retired, return_exceptions=True)

    async def _serve(self) -> None:
        """From a first connection, through its renewals, to the loss of the last. Raises Unusable."""
        current = await self._connect()
        try:
            while True:
                await current.due()
                newer = await self._beside(current)
                self._retire(current)
                current = newer
        finally:
            await current.close()

    async def _beside(self, current: Relay) -> Relay:
        """A newer relay; until it is there the current one serves on. Raises Unusable where that is lost before.

        A line holds two at most: where an older one still ends its streams, the next has to wait.
        """
        failures = 0
        delay_s = random.uniform(0, SPREAD_S)
        while not await current.lost_within(delay_s):
            if self._retired:
                delay_s = LOOK_AGAIN_S
                continue
            try:
                return await self._connect()
            except Unusable as exc:
                failures += 1
                delay_s = self._backoff.delay(failures)
                self._log.warning("upstream not renewed", reason=str(exc), retry_in_s=round(delay_s, 1))
        raise current.end()

    def _retire(self, relay: Relay) -> None:
        self._log.info("upstream renewed", open=relay.streams)
        relay.retire()
        task = asyncio.create_task(relay.finish(self._longest_s))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _connect(self) -> Relay:
        """Raises Unusable."""
        made = await relay.connect(self._start, self._handshake_s)
        self._log.info("upstream connected", relay=made.name, gate=plain(made.hello.program, 60))
        self._relay = made.name
        self._on_relay(made)
        return made
