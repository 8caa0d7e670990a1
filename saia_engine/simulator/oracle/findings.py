"""Where the checks leave what they found, and the alarm clock they share."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from saia_engine.simulator.oracle import grace
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.truth import Violation

OF_CLOCKS = frozenset({1, 10, 11, 12, 16, 20, 23})
"""Promises whose breach soon after a jump of a clock is its doing (promise 14)."""


class Findings:
    """The violations, each fault of each thing once an hour, and callbacks for later."""

    def __init__(self, ledger: Ledger) -> None:
        self.violations: list[Violation] = []
        self._ledger = ledger
        self._told: dict[tuple[int, str], float] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def report(self, promise: int, text: str, about: str) -> None:
        now = self._ledger.now
        if promise in OF_CLOCKS and now - self._ledger.jumped_at < grace.JUMP_BLAME_S:
            promise, text = 14, f"after a jump of the clock: {text}"
        if now - self._told.get((promise, about), float("-inf")) < grace.AGAIN_S:
            return
        self._told[promise, about] = now
        self.violations.append(Violation(now, promise, text))

    def later(self, at: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._timers, (at, self._number, call))

    def run_until(self, at: float) -> None:
        """Call back whoever asked for a moment before this one."""
        while self._timers and self._timers[0][0] < at:
            moment, _, call = heapq.heappop(self._timers)
            self._ledger.now = moment
            call()
