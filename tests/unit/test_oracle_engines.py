"""The oracle on engines, their alarms, and what must come about (17-24).

Of each the shortest story that breaks a promise, and one that only nearly does.
"""

from __future__ import annotations

import pytest

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import Oracle
from tests.unit.oracle_story import (
    BEGAN,
    CHAT,
    LATEST_S,
    POLL_S,
    Story,
    name,
    token,
    wants,
)

# ---------------------------------------------------------------- 17, 18, 19, 21


@pytest.mark.parametrize(("calls", "found"), [(4, set()), (9, {17})])
def test_17_a_tick_is_a_fixed_number_of_calls(calls: int, found: set[int]) -> None:
    story = Story()
    story.poll(calls=calls)
    assert story.broken() == found


@pytest.mark.parametrize(("asks", "found"), [(1, set()), (2, {17})])
def test_17_one_observation_in_each_tick(asks: int, found: set[int]) -> None:
    story = Story()
    for _ in range(asks):
        story.wait(5)
        story.tell(truth.Answered, story.engine, "good", story.at - 1, 3)
    assert story.broken() == found


@pytest.mark.parametrize(("seconds", "found"), [(50, set()), (70, {18})])
def test_18_who_lost_the_lease_stops_within_the_delay_of_the_shared_file_system(
    seconds: int, found: set[int]
) -> None:
    story = Story()
    story.tell(truth.LeaseWritten, "b2", "b", 2)
    story.wait(seconds)
    story.submit("one")
    assert story.broken() == found


@pytest.mark.parametrize(("wait_s", "found"), [(40, {18}), (90, set())])
def test_18_who_takes_over_waits(wait_s: float, found: set[int]) -> None:
    story = Story()
    story.end("host-lost")
    story.start("b", takeover=True, journal="new", wait_s=wait_s)
    story.poll()
    story.submit("one")
    assert story.broken() == (found if wait_s + POLL_S < 90 else set())


def test_18_two_engines_never_take_turns() -> None:
    story = Story(wants(replicas=2))
    first = story.engine
    story.start("b", takeover=True, wait_s=90)
    story.poll()
    story.submit("one")
    story.engine = first
    story.submit("two")
    assert 18 in story.broken()


@pytest.mark.parametrize(("hidden_s", "found"), [(30, set()), (70, {18})])
def test_18_the_last_lease_counts_though_a_wrong_clock_gave_a_hidden_one_a_higher_epoch(
    hidden_s: int, found: set[int]
) -> None:
    story = Story()
    story.end()
    story.epoch = 1000
    story.start("a")
    story.wait(hidden_s)
    story.epoch = 10
    story.start("b", takeover=True, wait_s=90)
    story.poll()
    story.submit("one")
    assert story.broken() == found


def test_18_no_act_after_the_end() -> None:
    story = Story()
    story.end()
    story.submit("one")
    assert 18 in story.broken()


@pytest.mark.parametrize(("runs", "found"), [(True, set()), (False, {18})])
def test_18_a_crash_leaves_no_lock(runs: bool, found: set[int]) -> None:
    story = Story()
    if not runs:
        story.end()
    story.tell(truth.EngineRefused, "a9", "a", "another engine runs on this host")
    assert story.broken() == found


def test_19_no_act_after_the_journal_has_failed() -> None:
    story = Story()
    story.tell(truth.JournalRefused, story.engine, "disk full")
    story.submit("one")
    assert story.broken() == {19}


@pytest.mark.parametrize(("serves", "found"), [(True, {19}), (False, set())])
def test_19_its_routes_are_kept(serves: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.tell(truth.JournalRefused, story.engine, "disk full")
    if not serves:
        story.agent("one", "unready")
    story.routes()
    assert story.broken() == found


def test_21_only_engines_submit_and_cancel() -> None:
    story = Story()
    story.serve("one")
    story.cancel("one", engine="gate")
    assert 21 in story.broken()


# ---------------------------------------------------------------- 20, 22, 23, 24


@pytest.mark.parametrize(("minutes", "found"), [(6, set()), (20, {20})])
def test_20_nothing_is_left_of_a_removed_service(minutes: int, found: set[int]) -> None:
    story = Story(CHAT, wants(name="code"))
    story.serve("one")
    story.serve("two", "code")
    story.wish(wants(name="code"))
    story.drain("one")
    story.poll(times=minutes * 4)
    assert story.broken() - {24} == found


def test_20_a_cancel_that_is_lost_is_nobodys_fault() -> None:
    story = Story(CHAT, wants(name="code"))
    story.serve("one")
    story.serve("two", "code")
    story.wish(wants(name="code"))
    story.drain("one")
    for _ in range(40):
        story.poll(times=2)
        story.cancel("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("minutes", "found"), [(7, set()), (20, {22})])
def test_22_what_is_wanted_comes_about_once_faults_stop(minutes: int, found: set[int]) -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.tell(truth.FaultsStopped)
    story.tell(truth.RoomPromised, 60.0, 120.0)
    story.poll(times=minutes * 4)
    assert story.broken() == found


def test_22_it_has_come_about() -> None:
    story = Story()
    story.tell(truth.FaultsStopped)
    story.tell(truth.RoomPromised, 60.0, 120.0)
    story.serve("one")
    story.routes("one")
    story.poll(times=100)
    assert story.broken() == set()


@pytest.mark.parametrize(("polls", "found"), [(8, set()), (20, {22})])
def test_22_an_empty_slot_is_filled(polls: int, found: set[int]) -> None:
    story = Story()
    story.poll(times=polls)
    assert story.broken() == found


@pytest.mark.parametrize(("crashes", "found"), [(True, set()), (False, {22})])
def test_22_an_intent_of_an_engine_that_crashed_may_use_up_the_bound(crashes: bool, found: set[int]) -> None:
    story = Story(per_hour=12)
    for short in ("one", "two", "three", "four"):
        story.submit_in_vain(short)
        story.poll(times=4)
    if crashes:
        story.end()
        story.start("a")
    story.poll(times=60)
    assert story.broken() & {22} == found


@pytest.mark.parametrize(("refuses", "found"), [(True, set()), (False, {22})])
def test_22_a_failure_that_no_journal_keeps_is_learned_anew(refuses: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.finish("one", "FAILED", "service")
    story.poll()
    if refuses:
        story.tell(truth.JournalRefused, story.engine, "disk full")
    story.poll(times=10)
    story.end()
    story.wait(150)
    story.start("a")
    story.poll(times=14)
    assert story.broken() & {22} == found


@pytest.mark.parametrize(("submits", "found"), [(True, set()), (False, {23})])
def test_23_a_replacement_is_submitted_in_time(submits: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S + 20)
    if submits:
        story.submit("two")
        story.accept("two")
    story.poll(times=20)
    assert story.broken() == found


def test_23_a_back_off_excuses() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.tell(truth.SubmitRefused, story.engine, token("two"))
    story.poll(times=15)
    assert story.broken() == set()


@pytest.mark.parametrize(("alarmed", "found"), [(True, set()), (False, {24})])
def test_24_a_start_that_does_not_end_raises_an_alarm(alarmed: bool, found: set[int]) -> None:
    story = Story(wants(startup_deadline_s=600.0))
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.poll(times=42)
    if alarmed:
        story.tell(truth.AlarmsShown, story.engine, (("state-overdue", name("one")),))
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("seen_s", "found"), [(50, set()), (100, {24})])
def test_24_who_hung_before_its_engine_could_try_it_has_the_time_of_a_start(
    seen_s: float, found: set[int]
) -> None:
    story = Story(wants(startup_deadline_s=1200.0, unready_deadline_s=180.0))
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.agent("one", "ready")
    story.wait(40)
    story.poll()
    story.wait(seen_s)
    story.agent("one", "unready")
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("cancels", "found"), [(True, set()), (False, {24})])
def test_24_a_drain_by_order_comes_to_its_end(cancels: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.serve("two")
    story.poll(times=20)
    if cancels:
        story.cancel("one")
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("back", "found"), [(True, set()), (False, {0})])
def test_a_world_without_an_engine_shows_nothing(back: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    story.end()
    story.wait(3000)
    if back:
        story.start("a")
        story.poll(times=200)
    else:
        story.wait(3000)
    assert story.broken() == found


@pytest.mark.parametrize(("waits_s", "found"), [(3500.0, set()), (3700.0, {0})])
def test_a_world_in_which_no_engine_ever_starts_shows_nothing(waits_s: float, found: set[int]) -> None:
    oracle = Oracle()
    oracle.see(BEGAN)
    oracle.finish(BEGAN.at + waits_s)
    assert {violation.promise for violation in oracle.violations} == found
