"""The oracle on answers, the freeze, generations and readiness (5-9).

Of each the shortest story that breaks a promise, and one that only nearly does.
"""

from __future__ import annotations

import pytest

from tests.unit.oracle_story import (
    Story,
    wants,
)

# ---------------------------------------------------------------- 5, 6 and 7: bad answers and the freeze


@pytest.mark.parametrize(
    ("quality", "found"), [("young", {5}), ("failed", {6}), ("truncated", {6}), ("good", set())]
)
def test_5_and_6_no_launch_follows_from_a_bad_answer(quality: str, found: set[int]) -> None:
    story = Story()
    story.poll(quality)
    story.submit("one")
    assert story.broken() == found


@pytest.mark.parametrize(("quality", "found"), [("late", {6}), ("good", set())])
def test_6_no_cancel_follows_from_a_bad_answer(quality: str, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.poll(quality)
    story.cancel("one")
    assert story.broken() == found


def a_fleet_of_three() -> Story:
    story = Story(wants(replicas=3))
    for short in ("one", "two", "three"):
        story.serve(short, for_s=30)
    story.order("drain", "three")
    story.drain("three")
    story.poll()
    return story


def test_7_no_cancel_while_half_of_the_jobs_are_gone_at_once() -> None:
    story = a_fleet_of_three()
    story.poll("empty")
    story.cancel("three")
    assert story.broken() == {7}


def test_7_no_resubmit_while_half_of_the_jobs_are_gone_at_once() -> None:
    story = a_fleet_of_three()
    for short in ("one", "two"):
        story.forget(short)
    story.poll(times=4)
    story.submit("four")
    assert 7 in story.broken()


def test_7_one_job_gone_is_no_freeze_and_good_answers_end_it() -> None:
    story = a_fleet_of_three()
    story.forget("one")
    story.poll()
    story.cancel("three")
    story.poll("empty")
    story.poll()
    story.cancel("three")
    assert story.broken() == set()


def test_7_an_operators_word_ends_it_for_all_that_was_gone() -> None:
    story = a_fleet_of_three()
    for short in ("one", "two"):
        story.forget(short)
    story.poll()
    story.order("unfreeze")
    story.poll()
    story.cancel("three")
    assert story.broken() == set()


# ---------------------------------------------------------------- 8 and 9: generations and readiness


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (2, {8})])
def test_8_a_route_of_the_generation_before(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.requeue("one")
    story.poll(times=polls)
    story.routes("one", generation=0)
    assert story.broken() == found


def test_8_a_drain_of_the_generation_before_allows_no_cancel() -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.requeue("one")
    story.run("one")
    story.agent("one", "ready")
    story.poll(times=12)
    story.cancel("one")
    assert story.broken() == {8}


@pytest.mark.parametrize(("valid", "found"), [(True, set()), (False, {9})])
def test_9_a_route_with_a_wrong_secret(valid: bool, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one", secret_valid=valid)
    assert story.broken() == found


def test_9_a_route_to_one_that_has_never_been_ready() -> None:
    story = Story()
    story.submit("one")
    story.accept("one")
    story.run("one")
    story.poll()
    story.routes("one")
    assert story.broken() == {9}


@pytest.mark.parametrize(("seconds", "found"), [(30, set()), (150, {9})])
def test_9_who_does_not_serve_leaves_the_routes(seconds: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.agent("one", "unready")
    story.poll(times=seconds // 15)
    assert story.broken() == found


def test_9_while_no_engine_runs_the_routes_stay() -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.end()
    story.agent("one", "unready")
    story.wait(500)
    assert story.broken() == set()
