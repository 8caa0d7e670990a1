"""How long a request may take: in all, and in what it is doing now."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from saia_engine.wire.sweeper import Sweeper

LeftS = Callable[[], float]
"""Seconds until the present phase has taken too long; asked again when that time may have come."""


class Deadlines:
    """Calls `expire` with the words for what took too long, again and again until `close`. Times in seconds."""

    def __init__(self, sweeper: Sweeper, total_s: float, expire: Callable[[str], None]) -> None:
        self.deadline = self._total_at = monotonic() + total_s
        self._sweeper = sweeper
        self._expire = expire
        self._left_s: LeftS | None = None
        self._words = ""
        sweeper.add(self)

    def enter(self, words: str, left_s: LeftS) -> None:
        """A new phase, in place of the one before."""
        self._words, self._left_s = words, left_s
        self.deadline = min(self._total_at, monotonic() + left_s())

    def leave(self) -> None:
        """Only the time in all counts."""
        self._left_s = None
        self.deadline = self._total_at

    def endless(self) -> None:
        """Only phases count from here on."""
        self._total_at = math.inf

    def close(self) -> None:
        self._sweeper.discard(self)

    def late(self) -> None:
        """Of the Sweeper: the time may have come, unless something was heard since."""
        now = monotonic()
        if now >= self._total_at:
            self._expire("in all")
        elif self._left_s is not None and (left_s := self._left_s()) > 0:
            self.deadline = min(self._total_at, now + left_s)
        else:
            self._expire(self._words)
