"""How many requests a second a proxy may open."""

from __future__ import annotations

from collections.abc import Callable


class Bucket:
    """Holds up to one second's worth; each request takes one."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self.per_second = per_second
        self._clock = clock
        self._level = per_second
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._level = min(self.per_second, self._level + (now - self._at) * self.per_second)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True
