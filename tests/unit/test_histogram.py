"""Quantiles of counts that were added up."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from saia_engine.wire.histogram import BOUNDS_S, CLASSES, quantile, trimmed

SECONDS = st.lists(st.floats(0.0, 599.0), min_size=1, max_size=60)


def counted(seconds: list[float]) -> list[int]:
    counts = [0] * CLASSES
    for each in seconds:
        counts[bisect_left(BOUNDS_S, each)] += 1
    return counts


@given(SECONDS, st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_lies_in_the_class_of_the_one_that_it_stands_for(
    seconds: list[float], part: float
) -> None:
    told = quantile(counted(seconds), part)
    rank = -(-len(seconds) * part // 1)
    true = sorted(seconds)[max(0, int(rank) - 1)]
    number = bisect_left(BOUNDS_S, true)
    assert told is not None
    assert (BOUNDS_S[number - 1] if number else 0.0) <= told <= BOUNDS_S[number]


@given(SECONDS, SECONDS)
def test_counts_of_two_workers_add_up(one: list[float], two: list[float]) -> None:
    both = [a + b for a, b in zip(counted(one), counted(two), strict=True)]
    assert quantile(both, 0.5) == quantile(counted(one + two), 0.5)


def test_nothing_has_no_quantile_and_what_is_beyond_is_told_as_the_last_bound() -> None:
    assert quantile([0] * CLASSES, 0.5) is None and quantile([], 0.5) is None
    assert quantile([*counted([599.0])[:-1], 5], 0.95) == BOUNDS_S[-1]


@given(st.lists(st.integers(0, 3), max_size=CLASSES))
def test_what_is_sent_loses_only_zeros_at_its_end(counts: list[int]) -> None:
    sent = trimmed(counts)
    assert counts == sent + [0] * (len(counts) - len(sent)) and (not sent or sent[-1])
