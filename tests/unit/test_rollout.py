"""From one revision to the next: steps, proof, failure and the way back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import Drain, DrainKind, Instance, Plan, Revert, Rolling, Service, State
from saia_engine.planner import rollout
from saia_engine.planner.brakes import STEADY_S
from tests.unit.planner_support import (
    CHAT,
    NOW,
    WANTED,
    acts,
    alarms,
    draining,
    ended,
    instance,
    plan,
    revision,
    rules,
    scaled,
    waits,
)

GOOD = revision("old", since=NOW - 90_000, good_at=NOW - 80_000)
ROLLING = (GOOD, revision())
"""What is wanted is not proven yet; `old` is the last good one."""


def rolling(replicas: int, min_available: int = 0, **knobs) -> Service:
    return replace(scaled(replicas, min_available), rolling=Rolling(**knobs))


def old(name: str, state: State = State.READY, **fields) -> Instance:
    return instance(name, state, revision="old", **fields)


def new(name: str, state: State = State.READY, **fields) -> Instance:
    known = {"revision": WANTED, "created_at": NOW - 500, "started_at": NOW - 400}
    return instance(name, state, **{**known, **fields})


def failed(name: str, ago_s: float, **fields) -> Instance:
    return ended(name, State.FAILED, ago_s, **{"revision": WANTED, "outcome": "exit code 1", **fields})


def roll(*fleet: Instance, service: Service = CHAT, revisions=ROLLING, **known) -> Plan:
    return plan(*fleet, service=service, revisions=revisions, **known)


# ---------------------------------------------------------------- steps


def test_a_new_revision_is_launched_beside_an_old_one_with_its_reason() -> None:
    found = roll(old("a"))
    assert acts(found) == [("Launch", "a")]
    reason = found.actions[0].reason
    assert reason.rule == "rollout"
    assert dict(reason.inputs)["max_surge"] == 1
    assert "replace all old ones at once" in dict(reason.refused)


def test_where_all_runs_what_is_wanted_nothing_is_rolled() -> None:
    assert acts(roll(new("a"), revisions=(revision(good_at=NOW - 10),))) == []


def test_one_that_slurm_does_not_show_is_not_rolled() -> None:
    ghost = old("a", State.LOST, created_at=NOW - 90_000)
    for service in (scaled(2), rolling(2, max_unavailable=1)):
        assert acts(roll(ghost, new("b"), service=service)) == []
        assert acts(roll(replace(ghost, state=State.READY), new("b"), service=service)) != []


@pytest.mark.parametrize("surge", [1, 2, 3, 5])
def test_no_more_than_max_surge_are_above_the_number_wanted(surge: int) -> None:
    found = roll(old("a"), old("b"), old("c"), service=rolling(3, max_surge=surge))
    assert len(acts(found)) == min(3, surge)


def test_one_surge_at_a_time() -> None:
    assert acts(roll(old("a"), old("b"), new("c", State.PENDING, replaces="a"), service=scaled(2))) == []


def test_a_replacement_of_before_that_is_kept_for_now_counts_as_surge() -> None:
    service = rolling(2, min_available=2)
    kept = bad("c", replaces="a")
    found = roll(new("a", State.UNREADY), bad("b"), kept, service=service, revisions=BACK)
    assert acts(found) == []


def test_an_old_one_that_waits_in_the_queue_is_dropped_and_launched_anew() -> None:
    assert acts(roll(old("a", State.PENDING))) == [("StartDrain", "a"), ("Launch", "")]


def test_what_is_to_replace_by_an_old_revision_is_kept_where_it_is_due() -> None:
    fleet = [old("a", ends_in=500), old("b", State.PENDING, replaces="a")]
    assert acts(roll(*fleet)) == []
    assert acts(roll(replace(fleet[0], end_time=NOW + 50_000), fleet[1])) == [
        ("StartDrain", "b"),
    ]


def test_who_is_due_is_replaced_once_and_for_that_reason() -> None:
    found = roll(old("a", ends_in=500))
    assert (acts(found), rules(found)) == ([("Launch", "a")], ["replace-before-end"])


def test_with_max_unavailable_an_old_one_goes_first_and_its_slot_is_filled() -> None:
    service = rolling(2, max_surge=0, max_unavailable=1)
    found = roll(old("a", ends_in=40_000), old("b"), service=service)
    assert acts(found) == [("StartDrain", "a"), ("Launch", "")]
    assert found.actions[0].kind is DrainKind.ROLLOUT  # type: ignore[union-attr]


def test_no_second_one_goes_while_the_first_is_missing() -> None:
    service = rolling(2, max_surge=0, max_unavailable=1)
    assert acts(roll(old("b"), new("c", State.STARTING), service=service)) == []


def test_a_replacement_that_is_ready_since_a_moment_lets_no_other_one_go() -> None:
    fleet = [old("a"), old("b"), old("c"), new("d", replaces="a", ready_since=NOW - 1)]
    assert acts(roll(*fleet, service=scaled(3))) == []
    assert acts(roll(*fleet, service=rolling(3, max_unavailable=0, max_surge=1))) == []


def test_nor_does_one_that_has_a_slot_but_has_not_proven_itself() -> None:
    service = rolling(2, max_surge=0, max_unavailable=1)
    assert acts(roll(old("b"), new("c", ready_since=NOW - 9), service=service)) == []


def test_max_unavailable_never_undercuts_min_available() -> None:
    service = rolling(2, min_available=2, max_surge=0, max_unavailable=1)
    found = roll(old("a"), old("b"), service=service)
    assert acts(found) == []
    assert "min-available" in waits(found)


def test_surge_and_unavailable_work_together() -> None:
    service = rolling(3, max_surge=1, max_unavailable=1)
    found = roll(old("a", ends_in=30_000), old("b", ends_in=40_000), old("c"), service=service)
    assert acts(found) == [("StartDrain", "b"), ("Launch", "a"), ("Launch", "")]


def test_an_old_one_that_is_not_ready_anyway_goes_within_what_may_be_missing() -> None:
    service = rolling(2, max_surge=0, max_unavailable=1)
    found = roll(old("a", State.UNREADY), old("b"), service=service)
    assert acts(found) == [("StartDrain", "a"), ("Launch", "")]


def test_the_old_one_drains_once_the_new_one_is_proven_as_part_of_the_rollout() -> None:
    found = roll(old("a"), new("b", replaces="a", ready_since=NOW - 10))
    drains = [a for a in found.actions if a.reason.rule == "replacement-ready"]
    assert [(a.instance, a.kind) for a in drains] == [("a", DrainKind.ROLLOUT)]  # type: ignore[union-attr]
    assert acts(roll(old("a"), new("b", replaces="a", ready_since=NOW - 9))) == []


def test_the_surplus_is_not_rolled_but_drained() -> None:
    found = roll(old("a", ends_in=30_000), old("b", ends_in=40_000), service=scaled(1))
    assert acts(found) == [("StartDrain", "a"), ("Launch", "b")]


def test_a_twin_of_an_old_revision_is_drained_once() -> None:
    fleet = [old("a"), new("b", State.STARTING, replaces="a"), old("c", State.PENDING, replaces="a")]
    assert acts(roll(*fleet)) == [("StartDrain", "c")]


# ---------------------------------------------------------------- proof


def test_a_revision_is_good_once_all_replicas_have_proven_themselves() -> None:
    fleet = [new("a", ready_since=NOW - 50), new("b", ready_since=NOW - 10)]
    found = roll(*fleet, service=scaled(2))
    assert (acts(found), rules(found)) == ([("Settle", WANTED)], ["rollout-done"])


@pytest.mark.parametrize(
    "second",
    [
        new("b", ready_since=NOW - 9),
        new("b", State.UNREADY),
        new("b", State.STARTING),
        draining("b", revision=WANTED),
    ],
    ids=["young", "unready", "starting", "draining"],
)
def test_one_that_has_not_keeps_it_open(second: Instance) -> None:
    assert ("Settle", WANTED) not in acts(roll(new("a"), second, service=scaled(2)))


def test_one_that_runs_the_old_keeps_it_open() -> None:
    assert ("Settle", WANTED) not in acts(roll(new("a"), old("b"), service=scaled(2)))


def test_what_is_good_is_said_once() -> None:
    assert acts(roll(new("a"), revisions=(GOOD, revision(good_at=NOW - 5)))) == []


def test_nothing_is_proven_by_a_service_scaled_to_none() -> None:
    assert acts(roll(service=scaled(0))) == []


# ---------------------------------------------------------------- failure


def crashes(count: int, **fields) -> list[Instance]:
    return [failed(f"x{n}", 400 + n, **fields) for n in range(count)]


def test_three_crashes_send_it_back_to_the_last_good_one_and_launch_no_more_of_it() -> None:
    found = roll(old("a"), *crashes(3))
    (revert,) = found.actions
    assert isinstance(revert, Revert)
    assert (revert.revision, revert.to, revert.reason.rule) == (WANTED, "old", "rollout-failed")
    assert "exit code 1" in revert.reason.text


def test_nor_does_it_launch_what_is_missing_before_it_has_gone_back() -> None:
    found = roll(*crashes(3))
    assert acts(found) == [("Revert", WANTED)]
    assert waits(found) == ["going-back"]


def test_two_crashes_do_not() -> None:
    assert acts(roll(old("a"), *crashes(2))) == [("Launch", "a")]


@pytest.mark.parametrize(
    "fields",
    [
        {"end_state": "NODE_FAIL"},
        {"end_state": "PREEMPTED"},
        {"end_state": "CANCELLED"},
        {"absent_since": NOW - 450},
        {"revision": "old"},
        {"created_at": NOW - 1001},
        {"served": True, "first_ready_at": NOW - 500 - STEADY_S},
    ],
    ids=["node", "preempted", "scancel", "vanished", "another's", "of before", "after long service"],
)
def test_ends_that_do_not_speak_against_it(fields: dict) -> None:
    assert not any(isinstance(a, Revert) for a in roll(old("a"), *crashes(3, **fields)).actions)


def test_crashes_after_a_short_readiness_count_too() -> None:
    flash = crashes(3, served=True, first_ready_at=NOW - 420)
    assert acts(roll(old("a"), *flash)) == [("Revert", WANTED)]


def test_and_those_that_hung_whenever() -> None:
    hung = crashes(3, served=True, first_ready_at=NOW - 950, drain=Drain(DrainKind.UNHEALTHY, NOW - 500))
    assert acts(roll(old("a"), *hung)) == [("Revert", WANTED)]


def late(by_s: float, **fields) -> Plan:
    service = rolling(1, healthy_deadline_s=600)
    starting = new(
        "b",
        State.STARTING,
        replaces="a",
        started_at=NOW - 600 - by_s,
        state_since=NOW - 600 - by_s,
    )
    return roll(old("a"), replace(starting, **fields), service=service)


def test_one_that_is_not_healthy_in_time_fails_the_rollout() -> None:
    assert acts(late(0)) == []
    assert acts(late(1)) == [("Revert", WANTED)]


def test_the_time_runs_from_when_it_was_seen_to_start_where_slurms_clock_is_behind() -> None:
    assert acts(late(86400, state_since=NOW - 100)) == []


def test_an_engine_that_has_not_listened_yet_judges_nobody() -> None:
    service = rolling(1, healthy_deadline_s=600)
    starting = new("b", State.STARTING, replaces="a", started_at=NOW - 1000, state_since=NOW - 1000)
    assert acts(roll(old("a"), starting, service=service, listening={})) == []
    assert acts(roll(old("a"), starting, service=service, listening={"b": NOW - 60})) == []
    assert acts(roll(old("a"), starting, service=service, listening={"b": NOW - 61})) == [("Revert", WANTED)]


def stalled(revisions, *fleet: Instance) -> Plan:
    return roll(old("a"), *fleet, service=rolling(1, progress_deadline_s=600), revisions=revisions)


def test_without_a_step_forward_for_too_long_it_has_failed() -> None:
    since = (GOOD, revision(since=NOW - 3000))
    hanging = new("b", State.UNREADY, replaces="a", created_at=NOW - 2000, started_at=NOW - 1900)
    assert acts(stalled(since, replace(hanging, first_ready_at=NOW - 600))) == []
    assert acts(stalled(since, replace(hanging, first_ready_at=NOW - 601))) == [("Revert", WANTED)]


def test_waiting_in_slurms_queue_is_no_failure() -> None:
    since = (GOOD, revision(since=NOW - 30_000))
    assert acts(stalled(since, new("b", State.PENDING, replaces="a", created_at=NOW - 29_000))) == []


def test_an_attempt_that_failed_is_no_step_forward() -> None:
    since = (GOOD, revision(since=NOW - 3000))
    again = failed("x", 10, lived_s=50)
    hanging = new(
        "b",
        State.UNREADY,
        replaces="a",
        created_at=NOW - 2000,
        started_at=NOW - 1900,
        first_ready_at=NOW - 700,
    )
    assert acts(stalled(since, hanging, again)) == [("Revert", WANTED)]


def test_without_a_good_one_there_is_nowhere_to_go_and_it_says_so() -> None:
    found = roll(*crashes(3), revisions=(revision(),))
    (revert, *_) = found.actions
    assert isinstance(revert, Revert)
    assert revert.to == ""
    assert ("go back", "no other revision has ever proven itself") in revert.reason.refused
    after = roll(*crashes(3), revisions=(revision(failed_at=NOW - 1, failure="exit code 1"),))
    assert acts(after) == [("Launch", "")], "it goes on, slowed by the back-off"
    assert ("rollout-failed", "chat") in alarms(after)


def test_without_auto_revert_it_stops_where_it_is_and_the_alarm_says_why() -> None:
    service = rolling(2, auto_revert=False)
    found = roll(old("a"), old("b"), *crashes(3), service=service)
    assert next((type(a).__name__, getattr(a, "to", None)) for a in found.actions) == ("Revert", "")
    stopped = roll(
        old("a"), old("b"), service=service, revisions=(GOOD, revision(failed_at=NOW - 1, failure="x"))
    )
    assert acts(stopped) == []
    (alarm,) = [a for a in stopped.alarms if a.code == "rollout-failed"]
    assert "auto_revert is off" in alarm.text


def test_a_revision_that_was_good_once_is_not_reverted() -> None:
    again = (revision("other", good_at=NOW - 5000), revision(good_at=NOW - 70_000))
    assert ("Revert", WANTED) not in acts(roll(*crashes(4), revisions=again))


def test_a_failed_one_that_proves_itself_after_all_is_good() -> None:
    found = roll(new("a"), revisions=(revision(failed_at=NOW - 50, failure="slow"),))
    assert acts(found) == [("Settle", WANTED)]


# ---------------------------------------------------------------- back


BACK = (replace(revision("bad"), failed_at=NOW - 1, failure="x"), revision(good_at=NOW - 80_000))
"""The failed one was asked for before; wanted is the good one again."""


def bad(name: str, state: State = State.READY, **fields) -> Instance:
    return instance(name, state, **{"revision": "bad", "created_at": NOW - 500, **fields})


@pytest.mark.parametrize("state", [State.PENDING, State.STARTING, State.UNREADY, State.READY])
def test_on_the_way_back_who_was_to_replace_a_good_one_goes_at_once(state: State) -> None:
    found = roll(new("a"), bad("b", state, replaces="a"), revisions=BACK)
    assert acts(found) == [("StartDrain", "b")]


def test_but_not_where_it_alone_serves() -> None:
    service = rolling(1, min_available=1)
    found = roll(new("a", State.UNREADY), bad("b", replaces="a"), revisions=BACK, service=service)
    assert acts(found) == []
    assert "min-available" in waits(found)


def test_a_bad_one_that_has_a_slot_is_rolled_back_like_any_other() -> None:
    assert acts(roll(bad("a"), revisions=BACK)) == [("Launch", "a")]


def test_a_good_one_never_drains_for_a_bad_one_in_the_plan_that_goes_back() -> None:
    found = roll(old("a"), new("b", replaces="a"), old("c"), *crashes(3), service=scaled(2))
    assert acts(found) == [("Revert", WANTED)]


def test_the_last_good_one_is_the_newest_other_one() -> None:
    history = (revision("r1", good_at=NOW - 9), revision("r2", good_at=NOW - 99), revision("r3"), revision())
    found = roll(old("a"), *crashes(3), revisions=history)
    assert found.actions[0].to == "r2"  # type: ignore[union-attr]


# ---------------------------------------------------------------- told


def test_a_rollout_is_told_as_a_sentence() -> None:
    record = revision()
    assert rollout.told(record, [new("a"), old("b")], 2) == f"{WANTED}: 1 of 2 ready"
    assert rollout.told(replace(record, good_at=NOW), [new("a")], 1) == ""
    failed_one = replace(record, failed_at=NOW, failure="exit code 1")
    assert rollout.told(failed_one, [], 1) == f"{WANTED} failed: exit code 1"
