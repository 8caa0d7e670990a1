from itertools import pairwise

import pytest

from saia_tui.moments import age, clock, countdown, exact
from tests.tui.sample import NOW


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (-5, "now"), (0, "now"), (0.4, "0:00"), (95, "1:35"), (119.9, "1:59"), (120, "2m"),
     (3599, "59m"), (3600, "1h 00m"), (86_399, "23h 59m"), (190_000, "2d 4h"), (9_000_000, "104d")],
)  # fmt: skip
def test_countdown_shows_seconds_only_under_two_minutes(seconds: float | None, shown: str) -> None:
    assert countdown(seconds) == shown


def test_above_two_minutes_a_countdown_changes_once_a_minute_at_most() -> None:
    seen = [countdown(seconds) for seconds in range(3600, 120, -1)]
    assert sum(before != after for before, after in pairwise(seen)) == 3600 // 60 - 2


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (0, "<1m"), (59.9, "<1m"), (60, "1m"), (7200, "2h 00m")]
)
def test_age_is_coarse(seconds: float | None, shown: str) -> None:
    assert age(seconds) == shown


def test_exact_counts_seconds_first() -> None:
    assert (exact(12.7), exact(-1), exact(180)) == ("12 s", "0 s", "3m")


def test_clock_gives_the_date_of_another_day() -> None:
    assert clock(NOW - 60, NOW) == "03:11:07"
    assert clock(NOW - 86_400, NOW) == "  23 Nov"
