"""Who never gets ready, stays unready or hangs is ended: one at a time, and never because we were deaf."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import AgentStatus, Drain, DrainKind, Instance, Plan, State
from saia_engine.planner.health import KILL_WINDOW_S, RETURN_S
from tests.unit.planner_support import (
    CHAT,
    NOW,
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


def starting(name: str, ago_s: float, **fields) -> Instance:
    return instance(name, State.STARTING, **{"started_at": NOW - ago_s, "state_since": NOW - ago_s, **fields})


def unready(name: str, ago_s: float, **fields) -> Instance:
    return instance(name, State.UNREADY, **{"state_since": NOW - ago_s, **fields})


def word(**fields) -> AgentStatus:
    return status(**{"draining": False, "alive": True, **fields})


def hangs(**fields) -> AgentStatus:
    return word(**{"alive": False, "fault": "no answer within 20 s", **fields})


def killed(found: Plan) -> list[str]:
    return [
        a.instance
        for a in found.actions
        if getattr(a, "kind", None) is DrainKind.UNHEALTHY  # type: ignore[union-attr]
    ]


# ---------------------------------------------------------------- the three causes


def test_who_is_not_ready_within_the_startup_deadline_is_ended_and_its_slot_filled() -> None:
    late_s = TIMING.startup_deadline_s
    assert acts(plan(starting("a", late_s))) == []
    found = plan(starting("a", late_s + 1))
    assert acts(found) == [("StartDrain", "a"), ("Launch", "")]
    assert (killed(found), rules(found)[0]) == (["a"], "startup-deadline")
    assert dict(found.actions[0].reason.refused)["wait longer"]


def test_its_time_runs_from_when_it_was_seen_to_start_where_slurms_clock_is_behind() -> None:
    assert killed(plan(starting("a", 86400, state_since=NOW - 60))) == []


def test_who_is_unready_for_too_long_is_ended() -> None:
    late_s = TIMING.unready_deadline_s
    assert killed(plan(unready("a", late_s))) == []
    found = plan(unready("a", late_s + 1))
    assert (killed(found), rules(found)[0]) == (["a"], "unready-deadline")


def test_who_hangs_is_ended_at_once_with_what_its_probe_heard() -> None:
    found = plan(unready("a", 5), statuses={"a": hangs()})
    assert (killed(found), rules(found)[0]) == (["a"], "liveness")
    assert "no answer within 20 s" in found.actions[0].reason.text


@pytest.mark.parametrize(
    ("fleet", "words"),
    [
        ([unready("a", 5)], {"a": word(ready=False)}),
        ([unready("a", 5)], {"a": hangs(seen_at=NOW - 11)}),
        ([unready("a", 5)], {}),
        ([instance("a")], {"a": hangs()}),
        ([instance("a", State.STARTING)], {"a": hangs()}),
        ([unready("a", 9000, completing_since=NOW - 9)], {}),
        ([instance("a", State.LOST, state_since=NOW - 9000)], {}),
        ([instance("a", State.PENDING, state_since=NOW - 90_000)], {}),
    ],
    ids=[
        "alive",
        "an old word",
        "silent for a moment",
        "still counted ready",
        "not ready yet",
        "its job ends",
        "lost",
        "queued",
    ],
)
def test_nobody_else_is(fleet: list[Instance], words: dict[str, AgentStatus]) -> None:
    assert killed(plan(*fleet, statuses=words)) == []


def test_a_drain_is_left_to_its_end() -> None:
    assert killed(plan(draining("a", served=False), statuses={"a": hangs()})) == []


# ---------------------------------------------------------------- an engine that has just begun


@pytest.mark.parametrize("sick", [starting("a", 9000), unready("a", 9000)])
@pytest.mark.parametrize("deadline_s", [20.0, 180.0])
def test_who_was_not_asked_yet_or_not_for_long_is_spared(sick: Instance, deadline_s: float) -> None:
    """It may have served meanwhile: it has its time to serve again, and a minute at least."""
    service = replace(CHAT, timing=replace(TIMING, unready_deadline_s=deadline_s))
    spared_s = max(60.0, deadline_s)
    assert killed(plan(sick, service=service, listening={})) == []
    assert killed(plan(sick, service=service, listening={"a": NOW - spared_s})) == []
    assert killed(plan(sick, service=service, listening={"a": NOW - spared_s - 1})) == ["a"]


def test_but_not_who_says_himself_that_he_hangs() -> None:
    assert killed(plan(unready("a", 5), statuses={"a": hangs()}, listening={"a": NOW - 2})) == ["a"]


# ---------------------------------------------------------------- one at a time


def test_one_at_a_time_and_the_other_is_told_of() -> None:
    fleet = [unready("a", 500), unready("b", 500), instance("c"), instance("d"), instance("e")]
    found = plan(*fleet, service=scaled(5), statuses={i.id: word() for i in fleet})
    assert len(killed(found)) == 1
    assert "one-kill-per-window" in waits(found)


@pytest.mark.parametrize("state", [State.DRAINING, State.FAILED])
def test_the_window_counts_from_the_last_kill_whether_it_has_ended_or_not(state: State) -> None:
    def last(ago_s: float) -> list[str]:
        before = replace(
            draining("x") if state is State.DRAINING else ended("x", state, 100),
            drain=Drain(DrainKind.UNHEALTHY, NOW - ago_s),
        )
        return killed(plan(before, unready("a", 5), statuses={"a": hangs(), "x": word()}))

    assert last(KILL_WINDOW_S - 1) == []
    assert last(KILL_WINDOW_S) == ["a"]


def test_each_service_has_a_window_of_its_own() -> None:
    other = replace(unready("b", 5), service="embed")
    found = plan(unready("a", 5), other, statuses={"a": hangs(), "b": hangs()})
    assert killed(found) == ["a", "b"]


# ---------------------------------------------------------------- many silent at once


def silent(*fleet: Instance) -> Plan:
    return plan(*fleet, service=scaled(len(fleet)))


def test_when_half_of_all_fall_silent_none_is_ended_for_it() -> None:
    found = silent(unready("a", 500), unready("b", 500))
    assert (killed(found), waits(found)) == ([], ["mass-silence", "mass-silence"])
    assert ("mass-silence", "agents") in alarms(found)


def back(name: str, ago_s: float) -> Instance:
    """Ready again since then."""
    return instance(name, ready_since=NOW - ago_s, first_ready_at=NOW - 1000)


def test_who_is_just_back_fell_silent_with_who_is_not_heard_yet() -> None:
    fleet = [unready("a", 500), back("b", RETURN_S), instance("c")]
    found = plan(*fleet, service=scaled(3), statuses={"b": word(), "c": word()})
    assert (killed(found), waits(found)) == ([], ["mass-silence"])


def test_but_not_for_long() -> None:
    fleet = [unready("a", 500), back("b", RETURN_S + 1), instance("c")]
    found = plan(*fleet, service=scaled(3), statuses={"b": word(), "c": word()})
    assert killed(found) == ["a"]


def test_nor_is_who_was_never_away() -> None:
    fresh = instance("b", ready_since=NOW - 5, first_ready_at=NOW - 5)
    assert killed(plan(unready("a", 500), fresh, service=scaled(2), statuses={"b": word()})) == ["a"]


def test_one_silent_alone_is_no_mass() -> None:
    assert killed(silent(unready("a", 500))) == ["a"]


def test_nor_are_two_of_five() -> None:
    fleet = [unready("a", 500), unready("b", 500), *(instance(n) for n in "cde")]
    assert len(killed(silent(*fleet))) == 1


def test_who_speaks_is_not_silent() -> None:
    words = {"a": word(ready=False), "b": word(ready=False)}
    found = plan(unready("a", 500), unready("b", 500), service=scaled(2), statuses=words)
    assert len(killed(found)) == 1


# ---------------------------------------------------------------- its end


def test_who_never_served_is_cancelled_at_once() -> None:
    sick = draining("a", DrainKind.UNHEALTHY, since_s=1, served=False)
    assert rules(plan(sick, instance("b"))) == ["never-served"]


def test_who_served_while_another_journal_knew_of_it_may_end_its_streams() -> None:
    sick = draining("a", DrainKind.UNHEALTHY, since_s=2, served=False)
    for busy in (1, 0):
        heard = {"a": status(served=True, open_connections=busy)}
        expected = [] if busy else ["drained"]
        assert rules(plan(sick, instance("b"), statuses=heard)) == expected


def test_who_served_may_end_its_streams() -> None:
    sick = draining("a", DrainKind.UNHEALTHY, since_s=299)
    busy = {"a": status(open_connections=1)}
    assert acts(plan(sick, instance("b"), statuses=busy)) == []
    later = replace(sick, drain=Drain(DrainKind.UNHEALTHY, NOW - 300))
    assert rules(plan(later, instance("b"), statuses=busy)) == ["drain-deadline"]
