"""The reconciler where Slurm fails or lies: submits that go wrong, and answers that can't be believed."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from saia_engine.model import DrainKind, Override, Reason, State
from tests.unit.memory_slurm import CHAT, Bench

BECAUSE = Reason("operator", "because")


# ---------------------------------------------------------------- submits that go wrong


async def test_an_intent_is_durable_before_its_submit(bench: Bench) -> None:
    bench.one_replica()
    found = []
    bench.slurm.during_submit = lambda: found.extend(bench.store.instances(0).values())
    await bench.polls()
    assert [(i.state, f"saia.{i.id}") for i in found] == [(State.INTENDED, bench.slurm.submits[0])]


async def test_a_submit_that_seemed_to_fail_but_ran_is_found_and_not_repeated(bench: Bench) -> None:
    bench.one_replica()
    bench.slurm.submit_outcomes = ["ran"]
    await bench.settled()
    assert len(bench.slurm.submits) == 1
    assert "submit-unknown" in bench.codes()


async def test_a_submit_that_seemed_to_fail_and_did_is_repeated_once_that_is_proven(bench: Bench) -> None:
    bench.one_replica()
    bench.slurm.submit_outcomes = ["unknown"]
    await bench.polls(3)
    assert len(bench.slurm.submits) == 1, "promise 4: two good snapshots, MessageTimeout + one poll apart"
    await bench.settled()
    assert len(bench.slurm.submits) == 2


async def test_a_submit_that_comes_true_after_all_is_adopted_and_the_surplus_drained(bench: Bench) -> None:
    bench.one_replica()
    bench.slurm.submit_outcomes = ["unknown"]
    await bench.polls()
    (late,) = bench.live()
    await bench.settled()
    bench.slurm.add(late.job_name)
    await bench.polls(5)
    assert "adopted" in bench.codes()
    assert len(bench.slurm.live()) == 1


async def test_a_refused_submit_is_tried_again_ever_more_slowly(bench: Bench) -> None:
    bench.one_replica()
    bench.slurm.submit_outcomes = ["rejected"] * 100
    times = []
    bench.slurm.during_submit = lambda: times.append(bench.slurm.now)
    await bench.polls(60)
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 300
    assert "crash-loop" in bench.alarmed()
    (newest, *_) = reversed(bench.of(State.FAILED))
    assert newest.outcome == "Slurm refused the job: Invalid partition name specified"


async def test_a_directory_that_cannot_be_written_is_a_failure_with_its_reason(bench: Bench) -> None:
    bench.one_replica()
    (bench.directory / "instances").write_text("in the way")
    await bench.polls()
    (failed,) = bench.of(State.FAILED)
    assert "its directory cannot be written" in failed.outcome
    assert failed.unsent
    assert bench.slurm.submits == []


async def test_directories_that_cannot_be_written_back_off_but_fail_no_rollout(bench: Bench) -> None:
    bench.one_replica()
    in_the_way = bench.directory / "instances"
    in_the_way.write_text("in the way")
    await bench.polls(120)
    assert 6 <= len(bench.of(State.FAILED)) < 12, "a launch each five minutes, in the end"
    assert "crash-loop" in bench.alarmed()
    assert "rollout-failed" not in bench.codes()
    in_the_way.unlink()
    await bench.settled()
    assert "rollout-failed" not in bench.codes()


async def test_a_drain_ordered_during_the_submit_is_kept(bench: Bench) -> None:
    bench.one_replica()

    def operator() -> None:
        (one,) = bench.live()
        bench.reconciler.start_drain(one, DrainKind.OPERATOR, BECAUSE, 1000)
        bench.slurm.during_submit = lambda: None

    bench.slurm.during_submit = operator
    await bench.polls()
    (one,) = [i for i in bench.live() if i.drain]
    assert (one.state, one.job_id) == (State.DRAINING, 1)
    await bench.settled()
    assert bench.slurm.jobs[1].state == "CANCELLED"


# ---------------------------------------------------------------- answers that can't be believed


async def test_a_bad_answer_changes_nothing_but_raises_an_alarm(bench: Bench) -> None:
    await bench.settled()
    before = dict(bench.reconciler.instances)
    bench.slurm.unavailable = "squeue failed"
    bench.reconciler.set_override(Override("chat", 0, 0, bench.slurm.now))
    await bench.polls(10)
    await bench.reconciler.react()
    assert bench.reconciler.instances == before
    assert bench.slurm.cancels == []
    assert "slurm-unavailable" in bench.alarmed()
    bench.slurm.unavailable = ""
    bench.reconciler.clear_override("chat")
    await bench.polls()
    assert bench.alarmed() == set()
    assert bench.codes().count("slurm-unavailable") == 1, "one event, however many polls"


async def test_bad_answers_count_for_no_absence(bench: Bench) -> None:
    await bench.settled()
    bench.ears.unreachable = set(bench.reconciler.instances)
    bench.slurm.hidden = {1}
    await bench.polls()
    bench.slurm.unavailable = "squeue failed"
    await bench.polls(20)
    bench.slurm.unavailable, bench.slurm.hidden = "", set()
    await bench.polls(2)
    assert len(bench.slurm.submits) == 2


async def test_the_empty_answer_of_a_restarted_controller_is_not_believed(bench: Bench) -> None:
    await bench.settled()
    bench.ears.unreachable = set(bench.reconciler.instances)
    bench.slurm.boot = 99.0
    bench.slurm.hidden = {1, 2}
    await bench.polls(2)
    assert not bench.of(State.LOST)
    assert "slurm-unavailable" in bench.alarmed()
    bench.slurm.hidden, bench.ears.unreachable = set(), set()
    await bench.polls(3)
    assert len(bench.of(State.READY)) == 2
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])


async def test_jobs_gone_at_once_whose_agents_answer_are_kept(bench: Bench) -> None:
    await bench.settled()
    bench.slurm.hidden = {1, 2}
    await bench.polls(10)
    assert "mass-absence" in bench.alarmed()
    assert len(bench.of(State.LOST)) == 2
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])
    bench.slurm.hidden = set()
    await bench.settled()
    assert "mass-absence" not in bench.alarmed()


async def test_jobs_gone_at_once_whose_agents_are_silent_are_replaced_when_two_answers_agree(
    bench: Bench,
) -> None:
    await bench.settled()
    bench.ears.unreachable = set(bench.reconciler.instances)
    bench.slurm.jobs.clear()
    await bench.polls(2)
    assert len(bench.slurm.submits) == 2
    assert "mass-absence" in bench.alarmed()
    await bench.settled()
    assert len(bench.slurm.submits) == 4


async def test_one_job_that_vanished_is_replaced(bench: Bench) -> None:
    bench.services["chat"] = replace(CHAT, replicas=3)
    (gone, *_) = await bench.settled()
    bench.ears.unreachable = {gone.id}
    del bench.slurm.jobs[gone.job_id]
    await bench.settled()
    assert bench.reconciler.instances[gone.id].outcome == f"job {gone.job_id} is no longer known to Slurm"
    assert len(bench.slurm.submits) == 4


async def test_an_exit_record_with_the_jobs_absence_needs_no_second_answer(bench: Bench) -> None:
    (gone, _) = await bench.settled()
    record = {"version": 1, "exit_code": 3, "signal": None, "stopped_by": "service", "at": 1.0}
    file = bench.dirs.path(gone.id) / "exit.0.json"
    file.write_text(json.dumps(record))
    await bench.polls()
    assert bench.reconciler.instances[gone.id].live, "the job is still there"
    del bench.slurm.jobs[gone.job_id]
    await bench.polls()
    assert bench.reconciler.instances[gone.id].outcome == "the service exited with code 3"


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0, 3.0e8])
async def test_a_jump_of_slurms_clock_against_ours_causes_no_act(bench: Bench, jump_s: float) -> None:
    await bench.settled()
    bench.slurm.clock_ahead_s = jump_s
    await bench.polls(5)
    await bench.reconciler.react()
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])
    bench.reconciler.set_override(Override("chat", 3, 0, bench.slurm.now))
    await bench.polls()
    assert len(bench.slurm.submits) == 3, "and it goes on"
