"""The rules of the plan, one by one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from saia_engine.model import (
    AgentStatus,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Instance,
    Launch,
    StartDrain,
    State,
    Timing,
    WithdrawDrain,
)
from saia_engine.planner import decide, timeline, worries
from saia_engine.planner.brakes import BACKOFF_FIRST_S, BACKOFF_MAX_S, backoff_until
from tests.unit.planner_support import (
    CHAT,
    DUE_S,
    NOW,
    POLL_S,
    TIMING,
    acts,
    alarms,
    draining,
    ended,
    instance,
    plan,
    rules,
    scaled,
    status,
    waits,
)

# ---------------------------------------------------------------- as many as wanted


def test_nothing_is_done_where_all_is_as_it_should_be() -> None:
    made = plan(instance("a"))
    assert (made.actions, made.alarms, made.waiting) == ((), (), ())


def test_what_is_missing_is_launched() -> None:
    found = plan(service=scaled(2))
    assert acts(found) == [("Launch", ""), ("Launch", "")]
    assert rules(found) == ["too-few", "too-few"]


@pytest.mark.parametrize(
    "state",
    [State.INTENDED, State.SUBMITTED, State.PENDING, State.STARTING, State.UNREADY, State.LOST],
)
def test_a_slot_is_filled_by_whoever_may_still_come_or_come_back(state: State) -> None:
    assert acts(plan(instance("a", state))) == []


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_who_has_ended_fills_no_slot(state: State) -> None:
    old = instance("a", state, ended_at=NOW - 400, served=True, created_at=NOW - 9000, started_at=NOW - 9000)
    assert acts(plan(old)) == [("Launch", "")]


def test_the_slot_of_one_that_an_operator_drains_is_filled_again() -> None:
    assert acts(plan(draining("a", DrainKind.OPERATOR))) == [("Launch", "")]


def test_the_surplus_is_drained_those_first_who_serve_nobody() -> None:
    fleet = [instance("a"), instance("b", State.PENDING), instance("c", State.STARTING), instance("d")]
    found = plan(*fleet, service=scaled(2))
    assert acts(found) == [("StartDrain", "b"), ("StartDrain", "c"), ("Cancel", "b")]
    assert rules(found)[-1] == "never-started"


def test_of_ready_ones_the_surplus_is_who_ends_first() -> None:
    fleet = [instance("a", ends_in=40_000), instance("b", ends_in=30_000)]
    found = plan(*fleet)
    assert acts(found) == [("StartDrain", "b")]
    assert found.actions[0].kind is DrainKind.SURPLUS  # type: ignore[union-attr]


def test_of_ready_ones_the_surplus_is_who_has_not_proven_itself() -> None:
    fleet = [instance("a", ends_in=30_000), instance("b", ends_in=40_000, ready_since=NOW - 1)]
    assert acts(plan(*fleet)) == [("StartDrain", "b")]


def test_a_twin_that_slurm_has_not_shown_is_left_until_it_does() -> None:
    def plan_with(**fields) -> list[tuple[str, str]]:
        late = instance("a2", State.PENDING, replaces="a", **fields)
        return acts(plan(instance("a", ends_in=500), late, instance("a3", State.PENDING, replaces="a")))

    assert plan_with() == [("StartDrain", "a2"), ("Cancel", "a2")]
    assert plan_with(job_id=0, submit_time=0.0) == []


def test_nor_is_who_slurm_shows_given_up_for_one_that_it_does_not() -> None:
    unseen = instance("a3", State.INTENDED, replaces="a", job_id=0, submit_time=0.0)
    fleet = [instance("a", ends_in=500), instance("a2", State.PENDING, replaces="a"), unseen]
    assert acts(plan(*fleet)) == []
    assert acts(plan(*fleet[1:], service=scaled(1))) == [("StartDrain", "a3"), ("Cancel", "a3")]


def test_a_surplus_instance_takes_its_replacement_along() -> None:
    fleet = [instance("a", ends_in=500), instance("a2", State.PENDING, replaces="a"), instance("b")]
    assert acts(plan(*fleet)) == [("StartDrain", "a2"), ("StartDrain", "a"), ("Cancel", "a2")]


def late(name: str = "b", **fields) -> Instance:
    """One whose replacement is due."""
    return instance(name, ends_in=500, **fields)


@pytest.mark.parametrize(
    "coming",
    [
        instance("a2", State.PENDING, replaces="a", created_at=NOW - 50),
        instance("a2", State.STARTING, replaces="a", created_at=NOW - 50),
        instance("a2", State.INTENDED, replaces="a", created_at=NOW - 50, job_id=0, submit_time=0.0),
        instance("a2", replaces="a", created_at=NOW - 50, ready_since=NOW - 1),
    ],
)
def test_who_is_on_its_way_and_one_too_many_takes_over_from_another_that_is_due(coming: Instance) -> None:
    found = plan(late(), coming)
    assert acts(found) == [("Reassign", "a2")]
    assert found.actions[0].replaces == "b"  # type: ignore[union-attr]
    assert acts(plan(late(), replace(coming, replaces="b"))) == []


def test_so_does_a_twin() -> None:
    twins = [instance(n, State.PENDING, replaces="a", created_at=NOW - 50) for n in ("a2", "a3")]
    found = plan(late("a"), late("b"), *twins, service=scaled(2))
    assert acts(found) == [("Reassign", "a2")]


@pytest.mark.parametrize("job_id", [7, 0])
def test_a_twin_fills_an_empty_slot(job_id: int) -> None:
    sure = instance("a2", State.STARTING, replaces="a", created_at=NOW - 50)
    fields = {"job_id": job_id, "submit_time": job_id and NOW - 50}
    twin = instance("a3", State.SUBMITTED, replaces="a", created_at=NOW - 50, **fields)
    found = plan(late("a"), sure, twin, service=scaled(2))
    assert acts(found) == [("Reassign", "a3")]
    assert found.actions[0].replaces == ""  # type: ignore[union-attr]


def test_the_replacement_of_one_that_is_given_up_takes_over_from_one_that_is_due() -> None:
    first = instance("a", ends_in=400)
    heir = instance("a2", State.PENDING, replaces="a", created_at=NOW - 50)
    assert acts(plan(first, late(), heir)) == [("Reassign", "a2"), ("StartDrain", "a")]


@pytest.mark.parametrize(
    "spare",
    [
        instance("a2", State.UNREADY, replaces="a", created_at=NOW - 50),
        instance("a2", State.PENDING, replaces="a", created_at=NOW - 6000),
        instance("a2", State.STARTING, replaces="a", created_at=NOW - 50, ends_in=400),
    ],
)
def test_who_is_ill_or_older_or_must_leave_soon_itself_takes_over_from_nobody(spare: Instance) -> None:
    assert ("Launch", "b") in acts(plan(late(), spare))


def test_nor_does_one_that_lost_its_slot_to_who_was_requeued_later() -> None:
    requeued = late(generation=1, submit_time=NOW - 20)
    spare = instance("a2", State.PENDING, replaces="a", created_at=NOW - 50)
    assert ("Launch", "b") in acts(plan(requeued, spare))


def test_all_of_a_removed_service_is_drained() -> None:
    found = plan(instance("a"), instance("b", State.PENDING), service=None)
    assert acts(found) == [("StartDrain", "b"), ("StartDrain", "a"), ("Cancel", "b")]
    assert {a.kind for a in found.actions if isinstance(a, StartDrain)} == {DrainKind.REMOVAL}


# ---------------------------------------------------------------- the hand-over


def test_a_replacement_is_launched_when_it_is_due_and_not_before() -> None:
    assert acts(plan(instance("a", ends_in=DUE_S + 1))) == []
    found = plan(instance("a", ends_in=DUE_S))
    assert acts(found) == [("Launch", "a")]
    assert rules(found) == ["replace-before-end"]


def test_one_replacement_is_enough() -> None:
    assert acts(plan(instance("a", ends_in=500), instance("b", State.PENDING, replaces="a"))) == []


def test_a_dead_replacement_is_replaced() -> None:
    dead = ended("b", State.FAILED, ago_s=60)
    assert acts(plan(instance("a", ends_in=800), replace(dead, replaces="a"))) == [("Launch", "a")]


def test_of_two_replacements_only_the_better_one_stays() -> None:
    fleet = [
        instance("a", ends_in=800),
        instance("b", State.STARTING, replaces="a"),
        instance("c", State.PENDING, replaces="a"),
    ]
    assert acts(plan(*fleet)) == [("StartDrain", "c"), ("Cancel", "c")]


def test_a_twin_that_has_not_started_is_ended_before_a_launch_of_the_same_plan_makes_one_too_many() -> None:
    fleet = [
        instance("a", ends_in=800),
        instance("b", State.STARTING, replaces="a"),
        instance("c", State.PENDING, replaces="a"),
        instance("d", ends_in=700),
    ]
    found = plan(*fleet, service=scaled(2))
    assert acts(found) == [("StartDrain", "c"), ("Cancel", "c"), ("Launch", "d")]


def test_the_old_one_drains_once_the_new_one_was_ready_for_min_ready() -> None:
    old = instance("a", ends_in=800)
    young = instance("b", replaces="a", ready_since=NOW - 9.9)
    assert acts(plan(old, young)) == []
    found = plan(old, replace(young, ready_since=NOW - 10))
    assert acts(found) == [("StartDrain", "a")]
    assert rules(found) == ["replacement-ready"]


@pytest.mark.parametrize("heir", [None, State.PENDING, State.STARTING, State.UNREADY])
def test_without_a_ready_replacement_the_old_one_admits_until_the_last_moment(heir: State | None) -> None:
    admit_until_s = 120 + 30
    fleet = [instance("b", heir, replaces="a")] if heir else []
    fleet = fleet or [instance("b", State.PENDING, replaces="a")]
    before = plan(instance("a", ends_in=admit_until_s + 1), *fleet)
    at_it = plan(instance("a", ends_in=admit_until_s), *fleet)
    assert acts(before) == []
    assert acts(at_it) == [("StartDrain", "a")]
    assert rules(at_it) == ["admission-over"]


def test_a_shortened_limit_that_puts_the_last_moment_into_the_past_drains_and_replaces_at_once() -> None:
    assert acts(plan(instance("a", ends_in=20))) == [("StartDrain", "a"), ("Launch", "a")]


def test_no_drain_waits_for_a_command_of_slurm() -> None:
    fleet = [draining("gone", since_s=400, ends_in=5), instance("a", ends_in=20), instance("b")]
    found = plan(*fleet, service=scaled(3))
    assert [act for act, _ in acts(found)] == ["StartDrain", "Cancel", "Launch", "Launch"]


def test_a_hand_over_waits_where_it_would_undercut_min_available() -> None:
    fleet = [instance("a", ends_in=800), instance("b", replaces="a"), instance("c", State.UNREADY)]
    found = plan(*fleet, service=scaled(2, min_available=2))
    assert acts(found) == []
    assert [reason.rule for reason in found.waiting] == ["min-available"]


def test_but_not_longer_than_it_may_admit() -> None:
    fleet = [instance("a", ends_in=100), instance("b", replaces="a"), instance("c", State.UNREADY)]
    assert ("StartDrain", "a") in acts(plan(*fleet, service=scaled(2, min_available=2)))


@pytest.mark.parametrize("ends_in", [(100, 800), (800, 100)])
def test_nobody_counts_on_one_that_may_admit_no_longer(ends_in: tuple[int, int]) -> None:
    first, second = ends_in
    fleet = [instance("a", ends_in=first), instance("b", ends_in=second)]
    late, old = ("a", "b") if first < second else ("b", "a")
    found = plan(*fleet, instance("c", replaces=old), service=scaled(2, min_available=2))
    assert [act for act in acts(found) if act[0] == "StartDrain"] == [("StartDrain", late)]
    assert "min-available" in {reason.rule for reason in found.waiting}


def test_an_instance_without_an_end_is_never_replaced() -> None:
    assert acts(plan(instance("a", ends_in=None))) == []


def test_a_requeued_instance_that_waits_gives_way_to_its_replacement() -> None:
    waiting = instance("a", State.PENDING)
    assert acts(plan(waiting, instance("b", replaces="a"))) == [("StartDrain", "a"), ("Cancel", "a")]


def test_the_replacement_of_one_that_drains_is_replaced_in_its_turn() -> None:
    fleet = [draining("a", ends_in=300), instance("b", replaces="a", ends_in=500)]
    busy = {"a": status(open_connections=1)}
    assert acts(plan(*fleet, statuses=busy)) == [("Launch", "b")]


# ---------------------------------------------------------------- drains withdrawn


def test_a_drain_is_withdrawn_when_the_replacement_died_in_time() -> None:
    assert acts(plan(draining("a", ends_in=800))) == [("WithdrawDrain", "a")]


def test_a_drain_is_withdrawn_when_the_replacement_is_not_ready_any_more() -> None:
    fleet = [draining("a", ends_in=800), instance("b", State.UNREADY, replaces="a")]
    assert acts(plan(*fleet)) == [("WithdrawDrain", "a")]


def test_a_drain_that_is_withdrawn_is_not_cancelled_although_it_is_complete() -> None:
    assert acts(plan(draining("a", ends_in=800), statuses={"a": status()})) == [("WithdrawDrain", "a")]


@pytest.mark.parametrize(
    "old",
    [
        draining("a", ends_in=150),
        draining("a", DrainKind.SURPLUS, ends_in=800),
        draining("a", DrainKind.OPERATOR, ends_in=800),
        draining("a", ends_in=800, cancel_sent_at=NOW - 1),
        draining("a", ends_in=800, served=False),
    ],
)
def test_a_drain_stays_when_it_is_too_late_or_somebodys_will(old: Instance) -> None:
    assert acts(plan(old)) == [("Launch", "")]


def test_one_that_serves_again_fills_its_slot_although_its_replacement_is_ended() -> None:
    sick = instance("b", State.UNREADY, replaces="a", state_since=NOW - 500)
    found = plan(draining("a", ends_in=50_000), sick)
    assert acts(found) == [("WithdrawDrain", "a"), ("StartDrain", "b")]


@pytest.mark.parametrize("kind", [kind for kind in DrainKind if kind is not DrainKind.OPERATOR])
def test_what_an_earlier_engine_wrote_down_and_nobody_heard_is_decided_anew(kind: DrainKind) -> None:
    found = plan(draining("a", kind, since_s=100), service=scaled(1), began_at=NOW - 60)
    assert acts(found) == [("WithdrawDrain", "a")]
    assert found.actions[0].reason.rule == "never-told"


def test_what_was_never_told_is_withdrawn_also_where_nothing_is_missing_or_the_service_has_gone() -> None:
    unheard = draining("a", DrainKind.SURPLUS, since_s=100)
    for fleet, service in ([unheard, instance("b")], scaled(1)), ([unheard], None):
        assert acts(plan(*fleet, service=service, began_at=NOW - 60)) == [("WithdrawDrain", "a")]


@pytest.mark.parametrize(
    "old",
    [
        draining("a", DrainKind.OPERATOR, since_s=100),
        draining("a", DrainKind.SURPLUS, since_s=50),
        draining("a", DrainKind.SURPLUS, since_s=100, cancel_sent_at=NOW - 1),
        instance("a", State.DRAINING, drain=Drain(DrainKind.SURPLUS, NOW - 100, heard_at=NOW - 99)),
    ],
)
def test_a_drain_is_not_decided_anew_when_it_was_told_or_is_somebodys_will(
    old: Instance,
) -> None:
    assert acts(plan(old, instance("b"), service=scaled(1), began_at=NOW - 60)) == []


# ---------------------------------------------------------------- the end of a drain


def test_a_drained_instance_is_cancelled() -> None:
    found = plan(draining("a"), instance("b", replaces="a"), statuses={"a": status()})
    assert acts(found) == [("Cancel", "a")]
    assert rules(found) == ["drained"]


@pytest.mark.parametrize(
    "word",
    [
        None,
        status(open_connections=1),
        status(open_connections=None),
        status(draining=False),
        status(seen_at=NOW - 11),
        status(seen_at=NOW - 21),
    ],
    ids=["never heard", "busy", "unknown is not zero", "serves", "stale", "from before the drain"],
)
def test_a_drain_is_not_complete_by(word: AgentStatus | None) -> None:
    old = draining("a", since_s=20)
    assert acts(plan(old, instance("b", replaces="a"), statuses={"a": word} if word else {})) == []


def test_in_a_hand_over_streams_are_cut_at_last_cut_and_not_before() -> None:
    heir, busy = instance("b", replaces="a"), {"a": status(open_connections=3)}
    assert acts(plan(draining("a", since_s=9000, ends_in=30.1), heir, statuses=busy)) == []
    found = plan(draining("a", since_s=9000, ends_in=30), heir, statuses=busy)
    assert acts(found) == [("Cancel", "a")]
    assert rules(found) == ["last-cut"]
    assert dict(found.actions[0].reason.inputs)["open_connections"] == "3"


def at_once(since_s: float, heard_s: float | None = None, **fields) -> Instance:
    heard_at = None if heard_s is None else NOW - heard_s
    drain = Drain(DrainKind.OPERATOR, NOW - since_s, heard_at, at_once=True)
    return instance("a", State.DRAINING, drain=drain, **fields)


@pytest.mark.parametrize("word", [None, status(open_connections=3)], ids=["unreachable", "busy"])
def test_a_cancel_at_once_waits_only_until_new_requests_are_turned_away(word: AgentStatus | None) -> None:
    words = {"a": word} if word else {}
    assert acts(plan(at_once(since_s=1.9), instance("b"), statuses=words)) == []
    for gone in (at_once(since_s=2.0), at_once(since_s=0.3, heard_s=0.1)):
        found = plan(gone, instance("b"), statuses=words)
        assert (acts(found), rules(found)) == ([("Cancel", "a")], ["at-once"])
        assert dict(found.actions[0].reason.inputs)["open_connections"] == ("3" if word else "unknown")


def test_the_slot_of_one_that_is_cancelled_at_once_is_filled_and_a_mass_absence_holds_the_cancel() -> None:
    found = plan(at_once(since_s=10))
    assert acts(found) == [("Cancel", "a"), ("Launch", "")]
    gone = [instance(name, State.LOST, absent_since=NOW - 5) for name in ("b", "c")]
    held = plan(at_once(since_s=10), *gone, service=scaled(2))
    assert ("Cancel", "a") not in acts(held)
    assert "mass-absence" in waits(held)


@pytest.mark.parametrize(
    "kind", [DrainKind.SURPLUS, DrainKind.REMOVAL, DrainKind.OPERATOR, DrainKind.ROLLOUT]
)
@pytest.mark.parametrize("word", [None, status(open_connections=3)], ids=["unreachable", "busy"])
def test_by_an_operators_will_streams_are_cut_at_the_drain_deadline(
    kind: DrainKind, word: AgentStatus | None
) -> None:
    words = {"a": word} if word else {}
    assert acts(plan(draining("a", kind, since_s=299), instance("b"), statuses=words)) == []
    found = plan(draining("a", kind, since_s=300), instance("b"), statuses=words)
    assert rules(found) == ["drain-deadline"]
    early = plan(draining("a", kind, since_s=100, ends_in=30), instance("b"), statuses=words)
    assert rules(early) == ["last-cut"]


def test_a_removed_service_keeps_its_own_drain_deadline() -> None:
    own = Timing(drain_deadline_s=1000)
    assert acts(plan(draining("a", DrainKind.REMOVAL, since_s=999, timing=own), service=None)) == []
    assert acts(plan(draining("a", DrainKind.REMOVAL, since_s=1000, timing=own), service=None)) == [
        ("Cancel", "a")
    ]


def test_what_never_started_is_cancelled_at_once() -> None:
    waiting = draining("a", DrainKind.SURPLUS, since_s=0, node="", end_time=None)
    assert rules(plan(waiting, instance("b"))) == ["never-started"]


def test_a_cancel_without_effect_is_sent_again_after_a_while() -> None:
    def sent(ago_s: float) -> list[tuple[str, str]]:
        old = draining("a", DrainKind.SURPLUS, since_s=400, cancel_sent_at=NOW - ago_s)
        return acts(plan(old, instance("b")))

    assert sent(29) == []
    assert sent(30) == [("Cancel", "a")]


def test_a_drain_without_an_end_raises_an_alarm_and_a_stuck_one_too() -> None:
    stuck = draining("a", DrainKind.SURPLUS, since_s=400, cancel_sent_at=NOW - 1)
    assert ("drain-overdue", "a") in alarms(plan(stuck, instance("b")))
    fine = draining("a", DrainKind.SURPLUS, since_s=310, cancel_sent_at=NOW - 1)
    assert ("drain-overdue", "a") not in alarms(plan(fine, instance("b")))


# ---------------------------------------------------------------- brakes


def test_after_a_failure_the_next_launch_waits() -> None:
    found = plan(ended("a", State.FAILED, ago_s=BACKOFF_FIRST_S - 1))
    assert acts(found) == []
    assert [reason.rule for reason in found.waiting] == ["crash-loop-back-off"]
    assert ("crash-loop", "chat") in alarms(found)
    assert acts(plan(ended("a", State.FAILED, ago_s=BACKOFF_FIRST_S))) == [("Launch", "")]


def test_a_mended_revision_does_not_wait_for_the_failures_of_another() -> None:
    failures = [ended(f"a{n}", State.FAILED, ago_s=1 + 50 * n, revision="bad") for n in range(5)]
    found = plan(*failures)
    assert acts(found) == [("Launch", "")]
    assert ("crash-loop", "chat") not in alarms(found)


def test_the_back_off_doubles_up_to_its_bound() -> None:
    failures = [ended(f"a{n}", State.FAILED, ago_s=100 + 50 * n) for n in range(10)]
    waits = [backoff_until(failures[-n:]) - (failures[-n].ended_at or 0) for n in range(1, 9)]
    assert waits == [10, 20, 40, 80, 160, BACKOFF_MAX_S, BACKOFF_MAX_S, BACKOFF_MAX_S]


def test_replicas_that_fall_together_are_one_failure() -> None:
    together = [ended(f"a{n}", State.FAILED, ago_s=5 + n) for n in range(4)]
    assert backoff_until(together) == NOW - 5 + BACKOFF_FIRST_S


def test_a_good_end_forgives_what_was_before() -> None:
    history = [ended("a", State.FAILED, ago_s=100), ended("b", State.STOPPED, ago_s=50, served=True)]
    assert backoff_until(history) == 0


def test_one_that_served_is_replaced_at_once_but_not_again_and_again() -> None:
    crash = ended("a", State.FAILED, ago_s=1, served=True, lived_s=60)
    again = ended("b", State.FAILED, ago_s=80, served=True, lived_s=60)
    assert backoff_until([crash]) == 0
    assert backoff_until([crash, again]) == NOW - 1 + 2 * BACKOFF_FIRST_S


def test_one_that_served_for_long_is_no_crash() -> None:
    old = [ended(f"a{n}", State.FAILED, ago_s=1 + 50 * n, served=True, lived_s=601) for n in range(3)]
    assert backoff_until(old) == 0


def test_submits_per_hour_are_bounded() -> None:
    recent = [ended(f"a{n}", State.STOPPED, ago_s=100, served=True) for n in range(5)]
    found = plan(*recent, service=scaled(3), per_hour=6)
    assert acts(found) == [("Launch", "")]
    assert alarms(found) >= {("submits-exhausted", "cluster")}
    older = [replace(i, created_at=NOW - 3600) for i in recent]
    assert len(acts(plan(*older, service=scaled(3), per_hour=6))) == 3


def test_one_service_leaves_submits_for_another() -> None:
    recent = [ended(f"a{n}", State.STOPPED, ago_s=100, served=True) for n in range(3)]
    embed = replace(CHAT, name="embed")
    memory = decide.Memory({i.id: i for i in recent}, {}, 6)
    found = decide.plan(Desired({"chat": CHAT, "embed": embed}, POLL_S), memory, NOW)
    assert [a.service for a in found.actions if isinstance(a, Launch)] == ["embed"]
    assert ("submits-exhausted", "chat") in alarms(found)


# ---------------------------------------------------------------- the freeze


def lost(name: str, **fields) -> Instance:
    return instance(name, State.LOST, absent_since=NOW - 15, served=True, **fields)


def test_for_one_that_slurm_does_not_show_none_that_runs_is_given_up() -> None:
    fleet = [lost("a"), instance("b"), instance("c")]
    assert plan(*fleet, service=scaled(2)).actions == ()
    found = plan(*fleet, instance("d"), service=scaled(2))
    assert len([a for a in found.actions if isinstance(a, StartDrain)]) == 1


def frozen(fleet: Iterable[Instance], replicas: int = 3) -> bool:
    return ("mass-absence", "slurm") in alarms(plan(*fleet, service=scaled(replicas)))


def test_half_of_the_jobs_gone_at_once_is_a_freeze() -> None:
    assert frozen([lost("a"), lost("b"), instance("c"), instance("d")], 4)


@pytest.mark.parametrize(
    "fleet",
    [
        [lost("a")],
        [lost("a"), lost("b"), instance("c"), instance("d"), instance("e")],
        [lost("a", ends_in=-20), lost("b", ends_in=-20)],
        [lost("a", cancel_sent_at=NOW - 20), lost("b", cancel_sent_at=NOW - 20)],
        [lost("a", job_id=0, submit_time=0.0, node=""), lost("b", job_id=0, submit_time=0.0, node="")],
    ],
    ids=["one alone", "less than half", "after their end", "asked to end", "never had a job"],
)
def test_no_freeze_where_jobs_are(fleet: list[Instance]) -> None:
    assert not frozen(fleet)


def test_a_freeze_holds_back_cancels_and_resubmits_but_no_other_service() -> None:
    fleet = [lost("a", ends_in=500), lost("b"), draining("c", DrainKind.SURPLUS, since_s=400)]
    embed = replace(CHAT, name="embed")
    memory = decide.Memory({i.id: i for i in fleet}, {}, 120)
    found = decide.plan(Desired({"chat": scaled(3), "embed": embed}, POLL_S), memory, NOW)
    assert [a.service for a in found.actions if isinstance(a, Launch)] == ["embed"]
    assert not [a for a in found.actions if isinstance(a, Cancel)]
    assert {reason.rule for reason in found.waiting} == {"mass-absence"}


# ---------------------------------------------------------------- worries


def test_alarms_tell_how_bad_it_is() -> None:
    assert ("service-down", "chat") in alarms(plan(instance("a", State.STARTING)))
    two = scaled(3, min_available=2)
    assert ("below-min-available", "chat") in alarms(plan(instance("a"), service=two))
    assert ("service-degraded", "chat") in alarms(plan(instance("a"), instance("b"), service=two))
    assert alarms(plan(service=scaled(0))) == set()


@pytest.mark.parametrize("state", list(worries.STATE_DEADLINE_S))
def test_each_passing_state_that_lasts_raises_an_alarm(state: State) -> None:
    limit = worries.STATE_DEADLINE_S[state]
    assert ("state-overdue", "a") not in alarms(plan(instance("a", state, state_since=NOW - limit)))
    assert ("state-overdue", "a") in alarms(plan(instance("a", state, state_since=NOW - limit - 1)))


def test_a_late_replacement_raises_an_alarm_at_drain_by() -> None:
    heir = instance("b", State.PENDING, replaces="a")
    drain_by = timeline.drain_by(NOW + 50, TIMING)
    late = instance("a", ends_in=NOW + 50 - drain_by)
    assert ("replacement-late", "a") in alarms(plan(late, heir))
    assert ("replacement-late", "a") not in alarms(plan(late, instance("b", replaces="a")))


def test_the_same_inputs_give_the_same_plan() -> None:
    fleet = [instance("a", ends_in=500), instance("b", State.PENDING), draining("c")]
    assert plan(*fleet) == plan(*reversed(fleet))


def test_a_withdrawn_drain_and_a_launch_fill_two_slots() -> None:
    found = plan(draining("a", ends_in=800), service=scaled(2))
    assert [type(a) for a in found.actions] == [WithdrawDrain, Launch]


def test_a_replacement_that_ends_as_soon_as_whom_it_replaces_gets_one_itself() -> None:
    old = instance("old", ends_in=DUE_S - 100)
    heir = instance("heir", State.STARTING, ends_in=DUE_S - 200, replaces="old", started_at=NOW - 10)
    assert acts(plan(old, heir)) == [("Launch", "heir")]
    third = instance("third", State.PENDING, replaces="heir")
    assert acts(plan(old, heir, third)) == []
    assert acts(plan(old, replace(heir, end_time=NOW + 50_000))) == []
    ready = instance("third", State.READY, replaces="heir")
    assert acts(plan(old, heir, ready)) == [("StartDrain", "old")]


def test_who_was_requeued_after_its_replacement_was_launched_fills_a_slot_of_its_own() -> None:
    fields = {"generation": 1, "submit_time": NOW - 300}
    heir = instance("heir", State.PENDING, replaces="old", created_at=NOW - 600, node="")
    assert acts(plan(instance("old", **fields), heir, service=scaled(2))) == []
    later = replace(heir, created_at=NOW - 60)
    assert acts(plan(instance("old", **fields), later, service=scaled(2))) == [("Launch", "")]
