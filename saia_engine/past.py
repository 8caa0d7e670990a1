"""Counts that only grow, their rates now, and the last hour of what followed from them in equal steps."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from operator import sub

SNAPSHOT_S = 5.0
RATE_S = 10.0
"""Rates are those of so long."""
TIMES_S = 60.0
"""Distributions are those of so long: fewer requests would tell little."""
STEP_S = 10.0
KEPT = 360
"""Steps: one hour."""


class Growth:
    """A row of counts. `snapshot` is called every few seconds; between two of them counts may be added at any time."""

    def __init__(self, size: int, now: float) -> None:
        self.counts = [0] * size
        self._recent: deque[tuple[float, tuple[int, ...]]] = deque([(now, tuple(self.counts))])

    def add(self, more: Sequence[int]) -> None:
        self.counts = [count + new for count, new in zip(self.counts, more, strict=True)]

    def snapshot(self, now: float) -> None:
        before = self._recent[-1][1]
        counts = tuple(self.counts)
        self._recent.append((now, before if counts == before else counts))
        while len(self._recent) > 2 and self._recent[1][0] <= now - TIMES_S:
            self._recent.popleft()

    def since(self, seconds: float, now: float) -> tuple[float, list[int]]:
        """What was added in about so many seconds (at least, where it is known), and in how many that was."""
        at, before = self._recent[0]
        for at, before in reversed(self._recent):  # noqa: B007
            if at <= now - seconds:
                break
        return max(now - at, 1.0), list(map(sub, self.counts, before))


class History:
    """The last `KEPT` steps of some figures, the newest last; a step without one is None."""

    def __init__(self) -> None:
        self._length = 0
        self._values: dict[str, array[float]] = {}

    def add(self, figures: Mapping[str, float | None]) -> None:
        """One step more."""
        for name in figures:
            if name not in self._values:
                self._values[name] = array("f", [math.nan] * self._length)
        self._length = min(self._length + 1, KEPT)
        for name, values in self._values.items():
            value = figures.get(name)
            values.append(math.nan if value is None else value)
            del values[: -self._length]

    def of(self, name: str) -> list[float | None]:
        return [None if math.isnan(value) else brief(value) for value in self._values.get(name, ())]

    @property
    def names(self) -> list[str]:
        return list(self._values)


def brief(value: float) -> float:
    """With three digits that count, so that noise is no change."""
    return float(f"{value:.3g}")
