"""The time limit of a launch: fitted to the partition, to maintenance and to the ends of the other replicas."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from saia_engine.model import Launch, Plan, Service, State
from saia_engine.planner import timeline
from saia_engine.planner.lead import Learned
from saia_engine.planner.walltime import SHORTEST_SHARE, WINDOW_MARGIN_S
from tests.unit.planner_support import (
    CHAT,
    LIMIT_S,
    NOW,
    POLL_S,
    TIMING,
    acts,
    alarms,
    cluster,
    instance,
    maintenance,
    node,
    plan,
    scaled,
)

SHORTEST_S = timeline.shortest_time_limit(TIMING, POLL_S)


def limits(found: Plan) -> list[float]:
    return [a.spec.time_limit_s for a in found.actions if isinstance(a, Launch)]


def refused(found: Plan) -> dict[str, str]:
    return dict(found.actions[0].reason.refused)


def two_nodes(*reservations, max_time_s: float | None = None):
    return cluster(node("gpu01"), node("gpu02"), reservations=reservations, max_time_s=max_time_s)


def all_reserved(starts_in: float):
    return two_nodes(maintenance(starts_in, "gpu01", "gpu02"))


# ---------------------------------------------------------------- the partition


def test_without_a_cause_it_is_the_services() -> None:
    found = plan(snapshot=two_nodes())
    assert limits(found) == [LIMIT_S]
    assert dict(found.actions[0].reason.inputs)["time_limit"] == LIMIT_S


def test_a_shorter_limit_of_the_partition_is_kept_and_told() -> None:
    found = plan(snapshot=two_nodes(max_time_s=7200))
    assert limits(found) == [7200]
    assert refused(found)["a time limit of 1440 min"] == "the partition allows 120 min"
    assert ("partition-limit", "chat") not in alarms(found)


def test_one_that_leaves_no_room_for_a_hand_over_is_an_alarm_as_long_as_it_is_so() -> None:
    short = two_nodes(max_time_s=900)
    assert ("partition-limit", "chat") in alarms(plan(snapshot=short))
    assert ("partition-limit", "chat") in alarms(plan(instance("a"), snapshot=short))
    assert ("partition-limit", "chat") not in alarms(plan(instance("a"), snapshot=two_nodes()))


def test_and_even_then_each_serves_for_a_while_before_the_next_is_launched() -> None:
    spec = replace(CHAT.launch, time_limit_s=900)

    def after(lived_s: float) -> list[tuple[str, str]]:
        times = {"created_at": NOW - lived_s, "started_at": NOW - lived_s}
        return acts(plan(instance("a", ends_in=900 - lived_s, spec=spec, **times)))

    assert after(224) == []
    assert after(225) == [("Launch", "a")]


# ---------------------------------------------------------------- maintenance


def test_it_is_clipped_to_end_before_a_maintenance_of_all_nodes() -> None:
    found = plan(snapshot=all_reserved(7200 + 30))
    assert limits(found) == [(7230 - WINDOW_MARGIN_S) // 60 * 60]
    assert refused(found)["a time limit of 1440 min"] == "would reach into a reservation of all its nodes"


def test_the_expected_wait_is_taken_off() -> None:
    found = plan(snapshot=all_reserved(7260), learned={"chat": Learned(queue_s=1200.0)})
    assert limits(found) == [7200 - 1200]


def test_with_time_min_it_is_left_to_the_scheduler() -> None:
    service = replace(CHAT, launch=replace(CHAT.launch, time_min_s=3600))
    assert limits(plan(service=service, snapshot=all_reserved(7200))) == [LIMIT_S]


@pytest.mark.parametrize("starts_in", [30, SHORTEST_S, SHORTEST_S + WINDOW_MARGIN_S + 30])
def test_it_is_never_clipped_to_less_than_a_hand_over_needs(starts_in: float) -> None:
    assert limits(plan(snapshot=all_reserved(starts_in))) == [LIMIT_S], "it waits for the end of the window"


def test_a_time_min_above_the_fitted_limit_is_dropped() -> None:
    service = replace(CHAT, launch=replace(CHAT.launch, time_min_s=36_000))
    (launch,) = plan(service=service, snapshot=two_nodes(max_time_s=7200)).actions
    assert isinstance(launch, Launch)
    assert (launch.spec.time_limit_s, launch.spec.time_min_s) == (7200, 0)


def test_what_is_fitted_is_of_the_same_revision() -> None:
    (launch,) = plan(snapshot=all_reserved(7200)).actions
    assert launch.revision == CHAT.launch.revision  # type: ignore[union-attr]


# ---------------------------------------------------------------- ends apart


def apart(ends: list[float]) -> float:
    ends = sorted(ends)
    return min(b - a for a, b in pairwise(ends))


def test_replicas_launched_together_end_apart() -> None:
    found = limits(plan(service=scaled(3)))
    assert max(found) == LIMIT_S
    assert apart(found) >= TIMING.lead_floor_s + TIMING.drain_deadline_s
    assert min(found) >= SHORTEST_SHARE * LIMIT_S


def test_one_keeps_away_from_the_ends_of_the_others() -> None:
    others = [instance("a", ends_in=LIMIT_S - 100), instance("b", ends_in=LIMIT_S - 2000)]
    (limit_s,) = limits(plan(*others, service=scaled(3)))
    assert apart([limit_s, LIMIT_S - 100, LIMIT_S - 2000]) >= 900
    assert "end together" in refused(plan(*others, service=scaled(3)))["a time limit of 1440 min"]


def test_one_that_is_replaced_or_drains_is_nobody_to_keep_away_from() -> None:
    old = instance("a", ends_in=900)
    (limit_s,) = limits(plan(old, instance("b", ends_in=40_000), service=scaled(2)))
    assert limit_s == LIMIT_S


@pytest.mark.parametrize("service", [replace(scaled(3), stagger=False), scaled(1)])
def test_who_does_not_stagger_or_has_one_replica_keeps_the_limit(service: Service) -> None:
    assert set(limits(plan(service=service))) == {LIMIT_S}


def test_a_learned_lead_has_room_in_what_is_left() -> None:
    short = replace(scaled(8), launch=replace(CHAT.launch, time_limit_s=4000))
    found = limits(plan(service=short, learned={"chat": Learned(load_s=1500.0, starts=3)}))
    needed_s = SHORTEST_S - TIMING.lead_floor_s + 1.2 * 1500
    assert min(found) >= needed_s - 60, "whole minutes"


def test_those_in_the_queue_count_with_the_end_they_are_expected_to_have() -> None:
    waiting = instance("a", State.PENDING)
    (limit_s,) = limits(plan(waiting, service=scaled(2)))
    assert abs(limit_s - LIMIT_S) >= 900


@pytest.mark.parametrize("limit_s", [1000, 1031, 5000, 86_399])
def test_a_fitted_limit_is_in_whole_minutes(limit_s: int) -> None:
    service = replace(scaled(3), launch=replace(CHAT.launch, time_limit_s=limit_s))
    assert all(found % 60 == 0 for found in limits(plan(service=service)) if found != limit_s)
