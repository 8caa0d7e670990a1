"""The oracle on drains and streams (10-12).

Of each the shortest story that breaks a promise, and one that only nearly does.
"""

from __future__ import annotations

import pytest

from saia_engine.simulator import truth
from tests.unit.oracle_story import (
    ADMIT_S,
    LATEST_S,
    Story,
    token,
    wants,
)

# ---------------------------------------------------------------- 10, 11, 12: drains and streams


@pytest.mark.parametrize(("others_ready", "found"), [(True, set()), (False, {10})])
def test_10_no_drain_below_min_available(others_ready: bool, found: set[int]) -> None:
    story = Story(wants(replicas=2, min_available=1))
    story.serve("one")
    story.serve("two")
    if not others_ready:
        story.agent("two", "unready")
        story.poll(times=6)
    story.wish(wants(replicas=1, min_available=1))
    story.poll(times=2)
    story.drain("one")
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (3, {10})])
def test_10_who_has_just_died_counts_until_that_can_be_known(polls: int, found: set[int]) -> None:
    story = Story(wants(replicas=2, min_available=2))
    story.serve("one")
    story.serve("two")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("three")
    story.poll(times=2)
    story.wait(2)
    story.finish("two", "FAILED", "service")
    story.wait(4)
    story.poll(times=polls)
    story.drain("one")
    assert story.broken() & {10} == found


def test_10_an_operator_may_undercut_it() -> None:
    story = Story(wants(min_available=1))
    story.serve("one")
    story.order("drain", "one", confirmed=True)
    story.drain("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("ready_for", "found"), [(4, {11}), (12, set())])
def test_11_the_old_one_drains_once_the_new_one_was_ready_for_min_ready(
    ready_for: int, found: set[int]
) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.wait(ready_for)
    story.drain("one")
    assert story.broken() == found


@pytest.mark.parametrize(("early_s", "found"), [(20, {11}), (-1, set())])
def test_11_without_a_replacement_it_serves_until_admit_until(early_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.polls_until(story.end_of("one") - ADMIT_S - early_s)
    story.drain("one")
    assert story.broken() == found


def test_11_one_replacement_is_good_for_one_drain() -> None:
    story = Story(wants(replicas=2))
    story.serve("one", for_s=15)
    story.serve("two")
    story.polls_until(story.end_of("one") - LATEST_S + 20)
    story.launch("three")
    story.poll()
    story.submit("four")
    story.accept("four")
    story.poll()
    story.drain("one")
    story.drain("two")
    assert story.broken() == {11}


@pytest.mark.parametrize(("later_s", "found"), [(0.1, set()), (60, {11})])
def test_11_who_was_launched_in_one_plan_with_one_that_slurm_refused_may_be_a_replacement(
    later_s: float, found: set[int]
) -> None:
    story = Story(wants(replicas=2))
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.tell(truth.SubmitRefused, story.engine, token("two"), True)
    story.wait(later_s)
    story.launch("three")
    story.poll(times=4)
    story.drain("one")
    assert story.broken() & {11} == found


@pytest.mark.parametrize(("ready_for", "found"), [(4, set()), (40, {10})])
def test_10_who_was_not_ready_yet_when_it_was_ordered_leaves_no_gap(ready_for: int, found: set[int]) -> None:
    story = Story(wants(replicas=2, min_available=1))
    story.begin("one")
    story.begin("two")
    story.poll(times=8)
    story.wish(wants(replicas=1, min_available=1))
    story.poll()
    story.agent("two", "ready")
    story.polls_until(story.at + ready_for)
    story.drain("two")
    assert story.broken() == found


@pytest.mark.parametrize(("asked", "polls", "found"), [(True, 0, set()), (True, 3, {10}), (False, 0, {10})])
def test_10_what_an_operator_told_an_engine_that_could_not_pass_it_on_the_next_one_says_at_once(
    asked: bool, polls: int, found: set[int]
) -> None:
    story = Story(wants(replicas=2, min_available=1))
    story.begin("one")
    story.begin("two")
    story.poll(times=8)
    if asked:
        story.order("drain", "two", confirmed=False)
    else:
        story.wish(wants(replicas=1, min_available=1))
    story.end()
    story.wait(5)
    story.agent("two", "ready")
    story.wait(200)
    story.start("a")
    story.poll()
    story.poll(times=polls)
    story.drain("two")
    assert story.broken() & {10} == found


@pytest.mark.parametrize(("ready_for", "found"), [(16, set()), (100, {11})])
def test_11_a_late_twin_may_be_given_up_before_it_proves_itself(ready_for: int, found: set[int]) -> None:
    story = Story()
    story.submit_in_vain("late")
    story.poll(times=4)
    story.submit("two")
    story.accept("two")
    story.accept("late", answered=False)
    story.poll()
    story.run("two")
    story.run("late")
    story.poll(times=2)
    story.agent("late", "ready")
    story.polls_until(story.at + ready_for)
    story.drain("late")
    assert story.broken() & {11} == found


@pytest.mark.parametrize(("requeued", "found"), [(True, set()), (False, {11})])
def test_11_a_replacement_whose_slot_was_given_up_may_be_one_too_many(
    requeued: bool, found: set[int]
) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.poll()
    if requeued:
        story.requeue("one")
        story.poll()
        story.run("one")
        story.agent("one", "ready")
    story.run("two")
    story.agent("two", "ready")
    story.poll(times=4)
    story.drain("two")
    assert story.broken() & {11} == found


@pytest.mark.parametrize(("early_s", "found"), [(10, {12}), (0, set())])
def test_12_in_a_hand_over_no_stream_is_cut_before_last_cut(early_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.poll(times=10)
    story.open("one")
    story.drain("one")
    story.polls_until(story.end_of("one") - 30 - early_s)
    story.cancel("one")
    story.cut()
    assert story.broken() == found


@pytest.mark.parametrize(("after_s", "found"), [(250, {12}), (300, set())])
def test_12_by_order_streams_have_drain_deadline(after_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.open("one")
    story.order("drain", "one")
    story.drain("one")
    drained_at = story.at
    story.launch("two")
    story.polls_until(drained_at + after_s)
    story.cancel("one")
    story.cut()
    assert story.broken() == found


def test_12_a_cancel_without_a_drain() -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.cancel("one")
    assert story.broken() == {12}


def test_12_who_could_not_hear_needs_no_drain() -> None:
    story = Story()
    story.serve("one")
    story.reach("one", False)
    story.poll(times=10)
    story.cancel("one")
    assert story.broken() == set()


@pytest.mark.parametrize(("late_s", "found"), [(1, set()), (10, {12})])
def test_12_no_request_after_admit_until(late_s: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.polls_until(story.end_of("one") - ADMIT_S)
    story.wait(late_s)
    story.open("one")
    assert story.broken() == found


@pytest.mark.parametrize(("how", "found"), [("host-lost", set()), ("crashed", {12})])
def test_12_gates_of_another_host_know_what_the_last_engine_there_knew(how: str, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.end()
    story.start("b", takeover=True, wait_s=90)
    story.poll(times=2)
    story.change("one", end=story.at + ADMIT_S + 120)
    story.poll(times=2)
    story.end(how)
    story.wait(120)
    story.open("one")
    assert story.broken() & {12} == found


@pytest.mark.parametrize(("quality", "found"), [("failed", set()), ("good", {12})])
def test_12_a_surplus_that_no_engine_could_see_to_is_none_the_less_one(quality: str, found: set[int]) -> None:
    story = Story(wants(replicas=2))
    story.serve("one", lasts_s=14_400.0)
    story.serve("two")
    story.wait(story.end_of("two") - LATEST_S - story.at)
    story.poll()
    story.launch("three")
    story.finish("two", "COMPLETED", "agent")
    story.poll(times=4)
    story.wait(1)
    story.wish(wants(replicas=1))
    story.poll(quality, times=60)
    story.poll(times=2)
    story.open("one")
    story.drain("one")
    story.wait(wants().drain_deadline_s + 1)
    story.cancel("one")
    story.cut()
    assert story.broken() & {12} == found
