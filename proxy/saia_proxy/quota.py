"""How much a key may ask for: requests at once, and requests a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from saia_proxy.config import ApiKey
from saia_proxy.errors import ApiError

WINDOW_S = 60.0


@dataclass(slots=True)
class Usage:
    """One key's requests: those under way, and those of this window and the one before."""

    in_flight: int = 0
    requests: int = 0
    """Admitted, in all."""
    refused: int = 0
    """By its own limits, in all."""
    window: int = 0
    now: int = 0
    before: int = 0

    def roll(self, window: int) -> None:
        if window != self.window:
            self.before = self.now if window == self.window + 1 else 0
            self.window, self.now = window, 0

    def wait_s(self, per_minute: int, at: float) -> float:
        """Until one more is within the limit: 0 or less, and it is now.

        The last minute's requests are those of this window and, as if evenly spread, the part of the one
        before that it still covers (a "sliding window counter").
        """
        elapsed = at % WINDOW_S
        if self.now + self.before * (1 - elapsed / WINDOW_S) + 1 <= per_minute:
            return 0.0
        if (
            self.now + 1 > per_minute
        ):  # this window alone is too much: in the next one its share must fall enough
            return WINDOW_S - elapsed + WINDOW_S * (1 - (per_minute - 1) / self.now)
        return WINDOW_S * (1 - (per_minute - 1 - self.now) / self.before) - elapsed


class Quotas:
    """Counts each key's requests; only touched from the event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.usage: dict[str, Usage] = {}
        """By the key's name."""

    @contextmanager
    def admit(self, key: ApiKey) -> Iterator[None]:
        """Counts one request as under way. Raises ApiError (429) where the key's limits forbid it."""
        usage = self.usage.setdefault(key.name, Usage())
        now = self._clock()
        usage.roll(int(now // WINDOW_S))
        if key.concurrency and usage.in_flight >= key.concurrency:
            usage.refused += 1
            text = f"This API key has {key.concurrency} requests under way, as many as it may."
            raise ApiError(429, "too_many_concurrent_requests", text, retry_after_s=1)
        wait_s = usage.wait_s(key.per_minute, now) if key.per_minute else 0.0
        if wait_s > 0:
            usage.refused += 1
            text = f"This API key may make {key.per_minute} requests a minute."
            raise ApiError(429, "rate_limit_exceeded", text, retry_after_s=max(1, math.ceil(wait_s)))
        usage.now += 1
        usage.requests += 1
        usage.in_flight += 1
        try:
            yield
        finally:
            usage.in_flight -= 1
