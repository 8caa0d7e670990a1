"""From what was timed to what is said: percentiles, medians over rounds, ratios between paths."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

Figures = Mapping[str, float]
"""Of one path at one load: metric -> value."""


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie, by nearest rank; 0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


def medians(rounds: Sequence[Figures]) -> dict[str, float]:
    """Of each metric over the rounds that have it."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: statistics.median(figures[name] for figures in rounds if name in figures) for name in names}


def ratios(rounds: Sequence[Figures], base: Sequence[Figures]) -> dict[str, float]:
    """Of each metric: the median of what a path has for one that `base` has, within each round.

    What else the machine did in a round fell on both, so this says more than the ratio of the medians.
    """
    each = [
        {name: value / other[name] for name, value in own.items() if other.get(name)}
        for own, other in zip(rounds, base, strict=False)
    ]
    return medians(each)
