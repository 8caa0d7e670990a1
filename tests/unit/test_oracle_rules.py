"""The oracle on ends, clocks, health and back-off (13-16).

Of each the shortest story that breaks a promise, and one that only nearly does.
"""

from __future__ import annotations

import pytest

from saia_engine.simulator import truth
from tests.unit.oracle_story import (
    LATEST_S,
    Story,
    name,
    token,
    wants,
)

# ---------------------------------------------------------------- 13 to 16


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (3, {13})])
def test_13_a_changed_limit_counts_within_a_poll(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    old = story.route("one")
    story.change("one", end=story.end_of("one") - 3000, cause="foreign")
    story.poll(times=polls)
    story.tell(truth.RoutesRead, "a", (old,))
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(2, set()), (4, {13})])
def test_13_a_controller_that_has_just_restarted_may_not_be_believed_yet(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    old = story.route("one")
    story.poll()
    story.tell(truth.ControllerUp, False)
    story.change("one", end=story.end_of("one") - 3000, cause="foreign")
    story.poll(times=polls)
    story.wait(11)
    story.tell(truth.RoutesRead, "a", (old,))
    assert story.broken() == found


@pytest.mark.parametrize(("ends", "found"), [(True, set()), (False, {13})])
def test_13_an_engine_that_acts_asks_on(ends: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    if ends:
        story.end()
    story.wait(400)
    assert story.broken() == found


@pytest.mark.parametrize(("asks", "found"), [(True, set()), (False, {13})])
def test_13_an_engine_that_starts_asks(asks: bool, found: set[int]) -> None:
    story = Story(wants(replicas=0))
    story.end()
    story.start("a")
    if asks:
        story.poll()
        story.wait(280)
    else:
        story.wait(310)
    assert story.broken() == found


def test_14_a_jump_of_the_clock_submits_nothing() -> None:
    story = Story()
    story.serve("one")
    story.tell(truth.FaultBegan, "clock-jump", "a")
    story.wait(5)
    story.submit("two")
    assert story.broken() == {14}


def test_14_what_is_due_anyway_is_due_after_a_jump_too() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.tell(truth.FaultBegan, "clock-jump", "a")
    story.submit("two")
    assert story.broken() == set()


@pytest.mark.parametrize(("away_s", "found"), [(None, {15}), (12, set())])
def test_15_one_failed_probe_takes_no_route_away(away_s: float | None, found: set[int]) -> None:
    story = Story()
    story.serve("one", for_s=300)
    story.routes("one")
    if away_s is not None:
        story.reach("one", False)
        story.wait(away_s)
    story.routes()
    story.wait(30)
    assert story.broken() == found


@pytest.mark.parametrize(("ill_s", "found"), [(60, {15}), (190, set())])
def test_15_who_does_not_serve_has_its_deadline(ill_s: float, found: set[int]) -> None:
    story = Story(wants(unready_deadline_s=180.0, liveness=False))
    story.serve("one")
    story.agent("one", "unready")
    story.polls_until(story.at + ill_s)
    story.drain("one")
    assert story.broken() == found


@pytest.mark.parametrize(("apart_s", "found"), [(120, {15}), (310, set())])
def test_15_one_kill_in_a_window(apart_s: float, found: set[int]) -> None:
    story = Story(wants(replicas=3))
    for short in ("one", "two", "three"):
        story.launch(short)
    story.poll(times=8)
    for short in ("one", "two"):
        story.agent(short, "unready")
    story.tell(truth.AlarmsShown, story.engine, (("state-overdue", name("two")),))
    story.polls_until(story.at + 200)
    story.drain("one")
    story.launch("four")
    story.polls_until(story.at + apart_s)
    story.drain("two")
    assert story.broken() == found


def test_16_submits_per_hour_are_bounded() -> None:
    story = Story(wants(replicas=9), per_hour=3)
    for number in range(4):
        story.launch(f"i{number}")
    assert story.broken() == {16}


def test_16_the_bound_is_of_an_hour() -> None:
    story = Story(wants(replicas=9), per_hour=3)
    for number in range(3):
        story.launch(f"i{number}")
    story.poll(times=240)
    story.launch("late")
    assert story.broken() - {22} == set()


def test_16_one_service_has_half_of_the_bound() -> None:
    story = Story(wants(replicas=9), wants(name="code"), per_hour=4)
    for number in range(3):
        story.launch(f"i{number}")
    assert story.broken() == {16}


@pytest.mark.parametrize(("wait_s", "found"), [(5, {16}), (10, set())])
def test_16_a_refused_submit_is_repeated_after_a_while(wait_s: float, found: set[int]) -> None:
    story = Story()
    story.submit("one")
    story.tell(truth.SubmitRefused, story.engine, token("one"))
    story.wait(wait_s)
    story.submit("two")
    assert story.broken() == found


@pytest.mark.parametrize(("wait_s", "found"), [(15, {16}), (21, set())])
def test_16_the_wait_doubles_with_each_failure(wait_s: float, found: set[int]) -> None:
    story = Story()
    for short in ("one", "two"):
        story.wait(90)
        story.submit(short)
        story.tell(truth.SubmitRefused, story.engine, token(short))
    story.wait(wait_s)
    story.submit("three")
    assert story.broken() == found


def test_16_a_job_that_crashes_before_it_serves_is_a_failure() -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.wait(20)
    story.finish("one", "FAILED", "service")
    story.wait(5)
    story.tell(truth.Answered, story.engine, "good", story.at, 3)
    story.submit("two")
    assert story.broken() == {16}


@pytest.mark.parametrize(("journal", "found"), [("new", set()), ("kept", {16})])
def test_16_whose_journal_is_lost_has_not_got_what_ends_before_it_is_shown(
    journal: str, found: set[int]
) -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.poll()
    story.end()
    story.wait(30)
    story.start("a", journal=journal)
    story.wait(1)
    story.finish("one", "FAILED", "service")
    story.poll()
    story.wait(1)
    story.submit("two")
    assert story.broken() & {16} == found


@pytest.mark.parametrize(("crashes_after_s", "found"), [(1, set()), (20, {16})])
def test_16_who_crashes_as_it_learns_of_a_failure_may_not_have_noted_it(
    crashes_after_s: float, found: set[int]
) -> None:
    story = Story(wants(replicas=2))
    story.begin("one")
    story.begin("two")
    story.finish("one", "FAILED", "service")
    story.poll()
    story.wait(crashes_after_s)
    story.end()
    story.wait(90)
    story.finish("two", "FAILED", "service")
    story.start("a")
    story.poll()
    story.wait(15)
    story.submit("three")
    assert story.broken() & {16} == found


@pytest.mark.parametrize(("answered", "found"), [(False, set()), (True, {16})])
def test_16_what_no_answer_has_ever_shown_is_no_failure(answered: bool, found: set[int]) -> None:
    story = Story()
    story.submit("one")
    story.accept("one", answered=answered)
    story.run("one")
    story.finish("one", "FAILED", "service")
    story.poll("failed", times=20)
    job = story.jobs["one"]
    story.tell(truth.JobForgotten, job.job_id, job.name, job.state, False)
    story.poll()
    story.submit("two")
    assert story.broken() & {16} == found
