"""What requests leave behind as they end: their figures, and their lines in the access log.

Both come a moment later, for many requests at once, so that no client waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from time import monotonic

from saia_proxy import access_log
from saia_proxy.exchange import Exchange
from saia_proxy.metrics import Metrics
from saia_proxy.telemetry import Telemetry

SOON_S = 0.005


class Records:
    """`models` are those that there are: no other text becomes a label."""

    def __init__(
        self, metrics: Metrics, models: Callable[[], Container[str]], telemetry: Telemetry | None = None
    ) -> None:
        self._metrics = metrics
        self._telemetry = telemetry
        self._models = models
        self._loop = asyncio.get_running_loop()
        self._ended: list[Exchange] = []
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    def began(self) -> None:
        self._under_way += 1
        self._soon()

    def ended(self, exchange: Exchange, *, told: bool) -> None:
        """Only what is `told` of is counted and logged."""
        self._under_way -= 1
        if told:
            exchange.ended_at = monotonic()
            self._ended.append(exchange)
        elif self._telemetry is not None:
            self._telemetry.drop(exchange)
        self._soon()

    def flush(self) -> None:
        """All that is known so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        models = self._models()
        self._metrics.in_flight.set(self._under_way)
        for exchange in ended:
            self._metrics.finished(exchange, exchange.model if exchange.model in models else "")
            if self._telemetry is not None:
                self._telemetry.end(exchange)
        access_log.finished(ended)

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(SOON_S, self._now)

    def _now(self) -> None:
        self._timer = None
        self.flush()
