"""The engine's steady clock."""

from __future__ import annotations

import time


class SteadyClock:
    """Seconds since the epoch that never jump: the wall clock at the start, advanced by the monotonic one.

    A wall clock set forward by a day then causes no submit and no cancel (promise 14); `skew_s` tells of it.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic() + self._offset

    @property
    def skew_s(self) -> float:
        """How far the wall clock has moved against this one since the start."""
        return time.time() - self.now()
