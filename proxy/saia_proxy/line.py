"""One of an upstream's connections, made again whenever it is lost."""

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


class Line:
    """`run` keeps it. Each relay that it connects is told to `on_relay`."""

    def __init__(
        self,
        name: str,
        start: Connect,
        *,
        on_relay: Callable[[Relay], object],
        handshake_s: float,
        backoff: Backoff,
    ) -> None:
        self.last_error = ""
        self._start = start
        self._on_relay = on_relay
        self._handshake_s = handshake_s
        self._backoff = backoff
        self._log = get_logger("tunnel").bind(upstream=name)

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
        current = await self._connect()
        try:
            await current.mux.wait_closed()
            raise current.end()
        finally:
            await current.close()

    async def _connect(self) -> Relay:
        """Raises Unusable."""
        made = await relay.connect(self._start, self._handshake_s)
        self._log.info("upstream connected", gate=plain(made.hello.program, 60))
        self._on_relay(made)
        return made
