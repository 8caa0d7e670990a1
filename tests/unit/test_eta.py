"""When the next instance of a service may be ready, as far as anybody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import Instance, LaunchSpec, State
from saia_engine.planner.eta import eta
from saia_engine.planner.lead import Learned

NOW = 1_000_000.0
PENDING = Instance("i", "chat", LaunchSpec(), "r", NOW - 100, state=State.PENDING, submit_time=NOW - 95)
STARTING = replace(PENDING, state=State.STARTING, started_at=NOW - 30)
KNOWN = Learned(queue_s=400.0, load_s=120.0, starts=3)


def test_slurms_forecast_comes_before_what_was_learned():
    assert eta([replace(PENDING, forecast_at=NOW + 1000)], KNOWN, NOW) == NOW + 1120
    assert eta([PENDING], KNOWN, NOW) == NOW + 420
    assert eta([replace(PENDING, state=State.SUBMITTED, submit_time=0.0)], KNOWN, NOW) == NOW + 420


def test_without_a_known_load_it_is_when_it_may_start():
    assert eta([replace(PENDING, forecast_at=NOW + 1000)], Learned(), NOW) == NOW + 1000
    assert eta([PENDING], Learned(queue_s=400.0), NOW) == NOW + 300


def test_one_that_starts_has_its_load_before_it():
    assert eta([STARTING], KNOWN, NOW) == NOW + 90


@pytest.mark.parametrize(
    ("instance", "learned"),
    [
        (PENDING, Learned()),
        (STARTING, Learned(queue_s=400.0)),
        (replace(PENDING, held=True), KNOWN),
        (replace(PENDING, reason="JobHeldUser"), KNOWN),
        (replace(PENDING, generation=1), KNOWN),
        (replace(PENDING, created_at=NOW - 5000), KNOWN),
        (replace(PENDING, forecast_at=NOW - 200), KNOWN),
        (replace(STARTING, started_at=NOW - 500), KNOWN),
    ],
)
def test_what_is_not_known_or_overdue_is_not_told(instance: Instance, learned: Learned):
    assert eta([instance], learned, NOW) is None
    assert eta([], learned, NOW) is None


def test_the_first_of_several_counts_and_stands_still():
    late = replace(PENDING, forecast_at=NOW + 9000)
    assert eta([late, STARTING, replace(PENDING, created_at=NOW - 9999)], KNOWN, NOW) == NOW + 90
    moments = {eta([late, PENDING], KNOWN, NOW + passed) for passed in range(0, 420, 7)}
    assert moments == {NOW + 420}
    jitter = {eta([replace(PENDING, forecast_at=NOW + 1000 + d)], KNOWN, NOW) for d in (1, 2, 9.9)}
    assert jitter == {NOW + 1130}
