"""How long a request may take: in all, and in what it is doing now. One timer for both, hardly ever set anew."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic

LeftS = Callable[[], float]
"""Seconds until the present phase has taken too long; asked again when that time may have come."""


class Deadlines:
    """Calls `expire` once, with the words for what took too long. Times in seconds."""

    def __init__(self, total_s: float, expire: Callable[[str], None]) -> None:
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._total_at = monotonic() + total_s
        self._left_s: LeftS | None = None
        self._late = ""
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def enter(self, late: str, left_s: LeftS) -> None:
        """A new phase, in place of the one before."""
        self._late, self._left_s = late, left_s
        self._set(monotonic() + left_s())

    def leave(self) -> None:
        """Only the time in all counts."""
        self._left_s = None
        self._set(self._total_at)

    def endless(self) -> None:
        """Only phases count from here on."""
        self._total_at = math.inf

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due = math.inf

    def _set(self, at: float) -> None:
        """One that is due earlier looks for itself what comes then."""
        due = min(at, self._total_at)
        if due < self._due:
            self.cancel()
            self._due = due
            self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._look)

    def _look(self) -> None:
        self._timer, self._due = None, math.inf
        now = monotonic()
        left_s = self._left_s() if self._left_s is not None else math.inf
        if now >= self._total_at:
            self._expire("in all")
        elif left_s <= 0:
            self._expire(self._late)
        else:
            self._set(now + left_s)
