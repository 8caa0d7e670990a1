"""The steady clock, and what it makes of the controller's time."""

from __future__ import annotations

import pytest

from saia_engine.clock import ClockCheck, Disagreement, SteadyClock

DAY_S = 86_400.0


class Times:
    """The true time, and how far the host's wall clock is from it."""

    def __init__(self, wrong_s: float = 0.0) -> None:
        self.true, self.wrong_s = 1_000_000.0, wrong_s
        self.clock = SteadyClock(lambda: self.true + self.wrong_s, lambda: self.true - 5.0)
        self.check = ClockCheck(self.clock)

    def asks(self, told_s: float = 0.0, took_s: float = 0.2) -> bool:
        """An answer with the controller's time, so far from the true one."""
        self.true += 15.0
        return self.check.corrects(float(int(self.true + told_s)), took_s)


def test_a_steady_clock_goes_on_through_jumps_until_it_is_told_to_follow() -> None:
    times = Times()
    times.wrong_s = DAY_S
    assert (times.clock.now(), times.clock.skew_s) == (times.true, DAY_S)
    assert times.clock.follow_wall() == DAY_S
    assert (times.clock.now(), times.clock.skew_s) == (times.true + DAY_S, 0.0)


@pytest.mark.parametrize("told_s", [-59.0, 0.0, 59.0])
def test_within_a_minute_clocks_agree(told_s: float) -> None:
    assert not Times().asks(told_s)


@pytest.mark.parametrize("told_s", [-62.0, 62.0, -DAY_S, DAY_S])
def test_beyond_it_they_do_not(told_s: float) -> None:
    with pytest.raises(Disagreement, match=f"controller is {abs(told_s):.0f} s .* this host's"):
        Times().asks(told_s)


def test_an_answer_that_took_long_may_hold_a_time_from_its_beginning() -> None:
    assert not Times().asks(told_s=-110.0, took_s=120.0)
    with pytest.raises(Disagreement):
        Times().asks(told_s=-190.0, took_s=120.0)


def test_who_started_by_a_wrong_clock_follows_as_soon_as_it_is_mended() -> None:
    times = Times(DAY_S)
    with pytest.raises(Disagreement, match="86400 s behind this host's"):
        times.asks()
    times.wrong_s = -DAY_S
    with pytest.raises(Disagreement, match="86400 s behind the engine's and 86400 s ahead of this host's"):
        times.asks()
    times.wrong_s = 0.0
    assert times.asks()


def test_who_was_right_once_follows_only_what_lasts() -> None:
    times = Times()
    assert not times.asks()
    times.wrong_s = DAY_S
    for _ in range(20):
        with pytest.raises(Disagreement, match="follows in"):
            times.asks(DAY_S)
    assert not times.asks(), "only the wall clock is off"
    with pytest.raises(Disagreement, match="follows in 300 s"):
        times.asks(DAY_S)
    times.true += 300.0
    assert times.asks(DAY_S)
