"""Maintenance, drained nodes and an operator's word: who must leave, and by when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import DrainKind, Reservation
from saia_engine.planner.foresight import FAR, Outlook
from saia_engine.planner.moment import Moment
from tests.unit.planner_support import (
    CHAT,
    DUE_S,
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
    rules,
    scaled,
)


def outlook(*reservations: Reservation, nodes=("gpu01", "gpu02")) -> Outlook:
    return Outlook.of(cluster(*map(node, nodes), reservations=reservations), {}, Moment(NOW))


# ---------------------------------------------------------------- nodes that leave


@pytest.mark.parametrize("state", ["draining", "idle+drain", "drained", "down*", "fail", "failing"])
def test_who_runs_on_a_node_that_leaves_is_replaced_long_before_its_end(state: str) -> None:
    there = cluster(node("gpu01", state, reason="ECC errors"), node("gpu02"))
    found = plan(instance("a"), snapshot=there)
    assert (acts(found), rules(found)) == ([("Launch", "a")], ["node-leaves"])
    assert "ECC errors" in found.actions[0].reason.text


@pytest.mark.parametrize("state", ["mixed", "allocated", "idle", "reserved", "planned"])
def test_on_any_other_node_it_stays(state: str) -> None:
    assert acts(plan(instance("a"), snapshot=cluster(node("gpu01", state)))) == []


def test_once_its_replacement_is_proven_it_drains_as_a_hand_over_so_that_the_node_gets_free() -> None:
    there = cluster(node("gpu01", "draining"), node("gpu02"))
    found = plan(instance("a"), instance("b", replaces="a", node="gpu02"), snapshot=there)
    assert acts(found) == [("StartDrain", "a")]
    assert found.actions[0].kind is DrainKind.HANDOVER  # type: ignore[union-attr]


def test_two_on_a_node_that_leaves_are_replaced_side_by_side_one_each() -> None:
    there = cluster(node("gpu01", "draining"), node("gpu02"))
    found = plan(instance("a"), instance("b"), service=scaled(2), snapshot=there)
    assert sorted(acts(found)) == [("Launch", "a"), ("Launch", "b")]


def test_an_operator_has_one_replaced() -> None:
    found = plan(instance("a", replace_asked=True))
    assert (acts(found), rules(found)) == ([("Launch", "a")], ["replace"])


def test_also_one_whose_end_is_unknown() -> None:
    endless = instance("a", ends_in=None, replace_asked=True)
    assert acts(plan(endless)) == [("Launch", "a")]
    assert acts(plan(endless, instance("b", replaces="a"))) == [("StartDrain", "a")]
    assert acts(plan(instance("a", ends_in=None))) == []


# ---------------------------------------------------------------- maintenance


def test_a_maintenance_of_its_node_is_an_earlier_end() -> None:
    def ahead(starts_in: float) -> list[str]:
        window = maintenance(starts_in, "gpu01")
        return rules(plan(instance("a"), snapshot=cluster(reservations=[window])))

    assert ahead(DUE_S + 1) == []
    assert ahead(DUE_S) == ["replace-before-maintenance"]


def test_it_is_told_of_as_soon_as_it_is_known() -> None:
    window = maintenance(40_000, "gpu01")
    assert ("maintenance-ahead", "a") in alarms(plan(instance("a"), snapshot=cluster(reservations=[window])))
    after = maintenance(50_001, "gpu01")
    assert alarms(plan(instance("a"), snapshot=cluster(reservations=[after]))) == set()


@pytest.mark.parametrize(
    "window",
    [
        maintenance(500, "gpu02"),
        replace(maintenance(500, "gpu01"), flags=()),
        maintenance(-9000, "gpu01", lasts_s=8000),
    ],
    ids=["of another node", "not a maintenance", "over"],
)
def test_other_windows_make_nobody_leave(window: Reservation) -> None:
    assert acts(plan(instance("a"), snapshot=cluster(reservations=[window]))) == []


def test_who_runs_in_that_very_reservation_stays() -> None:
    service = replace(CHAT, launch=replace(CHAT.launch, reservation="upgrade"))
    inside = instance("a", spec=service.launch)
    found = plan(inside, service=service, snapshot=cluster(reservations=[maintenance(500, "gpu01")]))
    assert acts(found) == []


def test_a_job_without_an_end_leaves_before_a_maintenance_too() -> None:
    window = maintenance(500, "gpu01")
    found = plan(instance("a", ends_in=None), snapshot=cluster(reservations=[window]))
    assert acts(found) == [("Launch", "a")]


# ---------------------------------------------------------------- until when there is room


def test_as_long_as_one_node_stays_free_there_is_room() -> None:
    assert outlook(maintenance(500, "gpu01")).free_until(CHAT.launch) == FAR


def test_when_all_nodes_are_reserved_there_is_room_until_the_last_of_them_is() -> None:
    found = outlook(maintenance(500, "gpu01"), replace(maintenance(900, "gpu02"), name="second"))
    assert found.free_until(CHAT.launch) == NOW + 900
    assert found.free_until(replace(CHAT.launch, nodes=2)) == NOW + 500


def test_a_reservation_of_our_own_takes_no_room() -> None:
    own = replace(CHAT.launch, reservation="upgrade")
    assert outlook(maintenance(500, "gpu01", "gpu02")).free_until(own) == FAR


def test_of_partitions_only_those_that_the_job_may_use_count() -> None:
    there = outlook(maintenance(500, "gpu01", "gpu02"))
    assert there.free_until(replace(CHAT.launch, partition="gpu")) == NOW + 500
    assert there.free_until(replace(CHAT.launch, partition="unknown")) == FAR


def test_drained_and_excluded_nodes_are_no_room() -> None:
    nodes = node("gpu01"), node("gpu02", "idle+drain")
    found = Outlook.of(cluster(*nodes, reservations=[maintenance(500, "gpu01")]), {}, Moment(NOW))
    assert found.free_until(CHAT.launch) == NOW + 500


def test_two_polls_are_in_the_time_at_which_a_replacement_is_due() -> None:
    margins_s = TIMING.min_ready_s + TIMING.drain_deadline_s + TIMING.safety_margin_s
    assert TIMING.lead_floor_s + margins_s + 2 * POLL_S == DUE_S
