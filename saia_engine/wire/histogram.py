"""Counts of durations by classes, which add up over workers and proxies, and the quantiles that they tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BOUNDS_S: Final = (
    0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0,
    7.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""A class, `bisect_left(BOUNDS_S, seconds)`, holds what is at most its bound; beyond the last is one more. They are
part of the protocol: other bounds would need fields of other names."""
CLASSES: Final = len(BOUNDS_S) + 1


def trimmed(counts: Sequence[int]) -> list[int]:
    """Without the zeros at its end, as it is sent."""
    end = len(counts)
    while end and not counts[end - 1]:
        end -= 1
    return list(counts[:end])


def quantile(counts: Sequence[int], part: float) -> float | None:
    """So many seconds (interpolated within a class) that this part of all took no longer; None where there are none.

    What lies beyond the last bound is told as that bound.
    """
    total = sum(counts)
    if total <= 0:
        return None
    rank, below = part * total, 0
    for number, count in enumerate(counts[: len(BOUNDS_S)]):
        if count and below + count >= rank:
            low = BOUNDS_S[number - 1] if number else 0.0
            return low + (BOUNDS_S[number] - low) * max(0.0, rank - below) / count
        below += count
    return BOUNDS_S[-1]
