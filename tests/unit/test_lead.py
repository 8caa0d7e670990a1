"""The lead time: learned from past starts, between its floor and what a time limit allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import Instance, LaunchSpec, State, WaitSample
from saia_engine.planner import lead
from saia_engine.planner.lead import HALF_LIFE_S, Lead, Learned
from saia_engine.planner.moment import Moment
from tests.unit.planner_support import CHAT, LIMIT_S, NOW, POLL_S, TIMING, acts, alarms, instance, plan


def learned(queue_s: float | None = None, load_s: float | None = None) -> Learned:
    return Learned(queue_s, load_s, 5)


def of(known: Learned = Learned(), *waiting: Instance, service=CHAT) -> Lead:  # noqa: B008 (frozen)
    return lead.lead(known, service, waiting, POLL_S, Moment(NOW))


def sample(queue_s: float, load_s: float | None = None, ago_s: float = 0.0) -> WaitSample:
    return WaitSample(NOW - ago_s, "chat", "gpu", queue_s, load_s)


# ---------------------------------------------------------------- how much


def test_before_any_start_it_is_the_floor_and_says_so() -> None:
    found = of()
    assert (found.seconds, found.capped) == (600, False)
    assert "no start is known yet" in found.because
    assert "lead_floor is 600 s" in found.because


def test_it_is_queue_and_start_with_a_margin_and_its_reasons() -> None:
    found = of(learned(1000, 500))
    assert (found.seconds, found.queue_s) == (1800, 1000)
    assert found.because == "queue 1000 s (past waits) + start 500 s (5 known), by 1.2"


def test_a_job_that_waits_longer_than_ever_counts_at_once() -> None:
    found = of(learned(100, 500), instance("a", State.PENDING, created_at=NOW - 4000))
    assert (found.seconds, found.queue_s) == (1.2 * 4500, 4000)
    assert "a job that waits now" in found.because


def test_so_does_slurms_own_forecast() -> None:
    waiting = instance("a", State.PENDING, created_at=NOW - 100, submit_time=NOW - 100)
    assert of(learned(100, 0), replace(waiting, forecast_at=NOW + 3900)).queue_s == 4000


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.STARTING},
        {"reason": "JobHeldUser"},
        {"reason": "JobHeldAdmin"},
        {"reason": "BeginTime"},
        {"submit_time": 0.0},
    ],
    ids=["it runs", "held", "held by an admin", "not before", "not seen yet"],
)
def test_waits_that_say_nothing_about_the_queue(fields: dict) -> None:
    waiting = instance("a", State.PENDING, created_at=NOW - 90_000)
    assert of(learned(100, 500), replace(waiting, **fields)).queue_s == 100


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_jump_of_slurms_clock_lengthens_no_wait(jump_s: float) -> None:
    waiting = instance("a", State.PENDING, created_at=NOW - 60, submit_time=NOW - 60 + jump_s)
    assert of(learned(100, 500), waiting).queue_s == 100


def test_it_is_capped_where_a_time_limit_has_no_more_room_and_that_is_an_alarm() -> None:
    found = of(learned(LIMIT_S, 0))
    assert found.capped
    assert found.seconds == 0.75 * LIMIT_S - (10 + 300 + 30 + 2 * POLL_S)
    assert "capped at" in found.because
    assert ("lead-capped", "chat") in alarms(
        plan(instance("a", ends_in=80_000), learned={"chat": learned(LIMIT_S)})
    )


def test_a_configured_cap_counts_if_it_is_less() -> None:
    service = replace(CHAT, timing=replace(TIMING, lead_cap_s=900.0))
    assert of(learned(2000, 0), service=service).seconds == 900


def test_a_short_time_limit_leaves_room_for_the_rest_of_the_timeline() -> None:
    service = replace(CHAT, launch=replace(CHAT.launch, time_limit_s=1200))
    assert of(learned(5000, 0), service=service).seconds == TIMING.lead_floor_s


def test_no_learned_lead_makes_a_replacement_due_in_the_first_quarter_of_a_life() -> None:
    def at(age_s: float) -> list[tuple[str, str]]:
        one = instance("a", ends_in=LIMIT_S - age_s, created_at=NOW - age_s)
        return acts(plan(one, learned={"chat": learned(LIMIT_S)}))

    assert at(LIMIT_S / 4 - 1) == []
    assert at(LIMIT_S / 4) == [("Launch", "a")]


def test_a_learned_lead_makes_a_replacement_due_earlier() -> None:
    one = instance("a", ends_in=3900)
    assert not plan(one).actions
    (launch,) = plan(one, learned={"chat": learned(2000, 1000)}).actions
    inputs = dict(launch.reason.inputs)
    assert inputs["lead"] == 3600
    assert "queue 2000 s" in str(inputs["lead_because"])


# ---------------------------------------------------------------- from what


def test_what_is_learned_is_a_high_quantile() -> None:
    found = lead.learn([sample(n) for n in range(1, 101)], [sample(0, n / 10) for n in range(1, 101)], NOW)
    assert found == Learned(90, 9.0, 100)


def test_new_samples_outweigh_old_ones() -> None:
    old = [sample(1000, ago_s=10 * HALF_LIFE_S) for _ in range(50)]
    assert lead.learn([*old, *(sample(10) for _ in range(5))], [], NOW).queue_s == 10
    assert lead.learn(old, [], NOW).queue_s == 1000


def test_one_that_never_got_ready_teaches_its_wait_only() -> None:
    assert lead.learn([sample(7)], [sample(7)], NOW) == Learned(7, None, 0)


def test_jobs_of_one_shape_wait_alike_whatever_they_run() -> None:
    one = LaunchSpec(("a",), partition="gpu", gres="gpu:a100:1", cpus=4)
    assert lead.shape(one) == lead.shape(replace(one, command=("b",), time_limit_s=60, exclude="gpu01"))
    others = [replace(one, partition="x"), replace(one, qos="x"), replace(one, nodes=2), replace(one, cpus=8)]
    assert len({lead.shape(spec) for spec in (one, *others)}) == 5


# ---------------------------------------------------------------- one start


STARTED = instance(
    "a", submit_time=NOW - 900, created_at=NOW - 901, started_at=NOW - 300, first_ready_at=NOW - 200
)


def test_a_start_teaches_its_wait_and_its_load() -> None:
    found = lead.sample(STARTED, NOW - 200, True)
    assert found == WaitSample(NOW - 200, "chat", lead.shape(CHAT.launch), 600, 100)


def test_a_start_that_nobody_watched_teaches_no_load() -> None:
    found = lead.sample(STARTED, NOW, False)
    assert found is not None
    assert (found.queue_s, found.load_s) == (600, None)


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_after_a_jump_of_slurms_clock_nothing_took_longer_than_by_ours(jump_s: float) -> None:
    found = lead.sample(replace(STARTED, started_at=NOW - 300 + jump_s), NOW, True)
    assert found is not None
    assert found.queue_s <= 901
    assert (found.load_s or 0.0) <= 901


@pytest.mark.parametrize("fields", [{"generation": 1}, {"started_at": None}, {"submit_time": 0.0}])
def test_a_requeue_or_what_never_ran_teaches_nothing(fields: dict) -> None:
    assert lead.sample(replace(STARTED, **fields), NOW, True) is None
