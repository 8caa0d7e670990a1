"""The oracle on who may submit and cancel (1-4).

Of each the shortest story that breaks a promise, and one that only nearly does.
"""

from __future__ import annotations

import pytest

from saia_engine.simulator import truth
from tests.unit.oracle_story import (
    EARLIEST_S,
    LATEST_S,
    Story,
    wants,
)


def test_a_whole_life_with_its_hand_over_breaks_nothing() -> None:
    story = Story()
    story.serve("one")
    story.routes("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.launch("two")
    story.poll()
    story.routes("one", "two")
    story.open("one")
    story.drain("one")
    story.wait(1)
    story.routes("one", "two", draining=True)
    story.wait(5)
    story.tell(truth.RequestEnded, 1, "done", "")
    story.cancel("one")
    story.finish("one")
    story.routes("two")
    story.poll(times=20)
    assert story.broken() == set()


# ---------------------------------------------------------------- 1: not more than wanted


def test_1_a_second_job_where_one_is_wanted() -> None:
    story = Story()
    story.serve("one")
    story.submit("two")
    assert story.broken() == {1}


def test_1_a_replacement_before_any_lead_can_ask_for_it() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - EARLIEST_S - 5)
    story.submit("two")
    assert story.broken() == {1}


def test_1_a_replacement_when_the_longest_lead_asks_for_it() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - EARLIEST_S + 1)
    story.submit("two")
    assert story.broken() == set()


def test_1_a_second_replacement() -> None:
    story = Story()
    story.serve("one")
    story.polls_until(story.end_of("one") - LATEST_S)
    story.submit("two")
    story.accept("two")
    story.poll()
    story.submit("three")
    assert story.broken() == {1}


def test_1_a_job_that_ended_unseen_may_be_replaced_and_so_may_one_that_drains() -> None:
    story = Story()
    story.serve("one")
    story.drain("one")
    story.launch("two")
    story.finish("two", "NODE_FAIL", "fault")
    story.wait(40)
    story.poll()
    story.submit("three")
    assert story.broken() - {11} == set()


def test_1_two_jobs_of_one_launch() -> None:
    story = Story()
    story.serve("one")
    story.accept("one")
    assert story.broken() == {1}


@pytest.mark.parametrize(("crashes", "found"), [(True, set()), (False, {1})])
def test_1_what_a_rollout_ordered_out_and_a_crash_kept_from_hearing_it_is_not_doubled(
    crashes: bool, found: set[int]
) -> None:
    story = Story(wants(max_surge=0))
    story.serve("one", lasts_s=86_400.0)
    story.wish(wants(max_surge=0, revision="r2"))
    story.submit("two", revision="r2")
    if crashes:
        story.end()
    story.wait(20)
    assert story.broken() == found


@pytest.mark.parametrize(("surge", "found"), [(1, set()), (0, {1})])
def test_1_what_a_rollout_began_goes_on_when_max_surge_is_lowered(surge: int, found: set[int]) -> None:
    story = Story(wants(max_surge=surge))
    story.serve("one", lasts_s=86_400.0)
    story.wish(wants(max_surge=surge, revision="r2"))
    story.submit("two", revision="r2")
    story.accept("two")
    story.poll(times=4)
    story.wish(wants(max_surge=0, revision="r2"))
    story.poll(times=40)
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (2, {1})])
def test_1_a_maintenance_that_was_withdrawn_counts_until_the_engine_has_asked_again(
    polls: int, found: set[int]
) -> None:
    story = Story()
    story.serve("one", lasts_s=86_400.0)
    story.tell(truth.ReservationMade, "m", story.at + 900, story.at + 4500, ("gpu01",))
    story.poll()
    story.wait(1)
    story.tell(truth.ReservationMade, "m", story.at, story.at, ("gpu01",))
    story.poll(times=polls)
    story.submit("two")
    story.wait(20)
    assert story.broken() == found


@pytest.mark.parametrize(("surge", "found"), [(0, {1}), (1, set())])
def test_1_a_rollout_may_run_max_surge_more(surge: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.wish(wants(revision="r2", max_surge=surge))
    story.poll(times=5)
    story.submit("two", revision="r2")
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(8, set()), (40, {1})])
def test_1_a_surplus_goes(polls: int, found: set[int]) -> None:
    story = Story(wants(replicas=2))
    story.serve("one")
    story.serve("two")
    story.wish(wants(replicas=1))
    story.poll(times=polls)
    assert story.broken() == found


# ---------------------------------------------------------------- 2: only ours


def test_2_a_cancel_of_a_job_that_is_not_ours() -> None:
    story = Story()
    story.serve("one")
    story.drain("one")
    story.cancel("one", name="train")
    assert story.broken() - {11} == {2}


def test_2_a_cancel_of_another_installations_job() -> None:
    story = Story()
    story.serve("one")
    story.cancel("one", name="saia.other.hpc.chat.one")
    assert story.broken() == {2}


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (3, {2})])
def test_2_a_cancel_of_an_id_that_somebody_else_has_now(polls: int, found: set[int]) -> None:
    story = Story()
    story.serve("one")
    story.order("drain", "one")
    story.drain("one")
    story.forget("one")
    story.agent("one", "gone")
    story.tell(truth.JobAccepted, story.jobs["one"].job_id, "train", "eve", story.at)
    story.poll(times=polls)
    story.cancel("one")
    assert story.broken() == found


# ---------------------------------------------------------------- 3 and 4: intents and unknown submits


@pytest.mark.parametrize(("waits", "found"), [(False, {3}), (True, set())])
def test_3_a_submit_that_was_under_way_at_a_crash_is_repeated_only_once_it_is_proven(
    waits: bool, found: set[int]
) -> None:
    story = Story()
    story.submit("one")
    story.end()
    story.start("a")
    story.poll(times=3 if waits else 1)
    story.submit("two")
    assert story.broken() == found


def test_3_a_token_is_used_once() -> None:
    story = Story()
    story.submit("one")
    story.submit("one")
    assert 3 in story.broken()


@pytest.mark.parametrize(("polls", "found"), [(1, {4}), (2, {4}), (3, set())])
def test_4_an_unknown_submit_is_repeated_after_two_answers_far_enough_apart(
    polls: int, found: set[int]
) -> None:
    story = Story()
    story.submit_in_vain("one")
    story.poll(times=polls)
    story.submit("two")
    assert story.broken() == found


@pytest.mark.parametrize(("polls", "found"), [(0, set()), (1, {4})])
def test_4_what_slurm_takes_up_after_it_was_given_up_counts_once_an_answer_shows_it(
    polls: int, found: set[int]
) -> None:
    story = Story()
    story.submit_in_vain("one")
    story.poll(times=4)
    story.accept("one", answered=False)
    story.poll(times=polls)
    story.wait(2)
    story.launch("two")
    assert story.broken() & {1, 3, 4} == found


@pytest.mark.parametrize(("before_s", "found"), [(0.1, set()), (0.3, {4})])
def test_4_nor_does_what_slurm_takes_up_after_the_answer_that_gives_it_up_was_made(
    before_s: float, found: set[int]
) -> None:
    story = Story()
    story.submit_in_vain("one")
    story.poll(times=3)
    story.wait(15 - before_s)
    story.accept("one", answered=False)
    story.wait(before_s)
    story.tell(truth.Answered, story.engine, "good", story.at - 0.2, 3)
    story.launch("two")
    assert story.broken() & {1, 3, 4} == found


def test_4_an_unknown_submit_that_ran_is_not_repeated() -> None:
    story = Story()
    story.submit("one")
    story.accept("one", answered=False)
    story.poll(times=5)
    story.submit("two")
    assert story.broken() == {4}
