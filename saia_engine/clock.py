"""The engine's steady clock."""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """Seconds since the epoch that never jump: the wall clock at the start, advanced by the monotonic one.

    A wall clock set forward by a day then causes no submit and no cancel (promise 14); `skew_s` tells of it.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        return self._monotonic() + self._offset

    @property
    def skew_s(self) -> float:
        """How far the wall clock has moved against this one since the start."""
        return self._wall() - self.now()
