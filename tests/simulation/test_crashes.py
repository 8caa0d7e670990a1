"""kill -9 at every boundary of an effect in a whole hand-over: no job is doubled, none is orphaned."""

from __future__ import annotations

import pytest

from tests.simulation.crashes import Outcome, pairs, run, singles

PAIRS_TESTED = 61
"""One pair of so many; `make sim-crashes` runs them all."""


def assert_sound(outcome: Outcome) -> None:
    assert outcome.points, "the engine never died"
    assert outcome.sound, outcome


def test_a_hand_over_without_a_crash_is_whole_and_has_every_kind_of_boundary() -> None:
    outcome = run(())
    assert outcome.sound, outcome
    assert outcome.most_live == 2
    assert outcome.boundaries >= 40


@pytest.mark.parametrize("crashes", singles(), ids=str)
def test_a_crash_at_any_boundary_doubles_and_orphans_nothing(crashes: tuple[int, ...]) -> None:
    assert_sound(run(crashes))


@pytest.mark.parametrize("crashes", list(pairs(PAIRS_TESTED)), ids=str)
def test_nor_do_two_crashes_in_a_row(crashes: tuple[int, ...]) -> None:
    assert_sound(run(crashes))
