"""Decisions become acts: with a real journal, lease and instance directories, over a Slurm whose faults we choose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from saia_engine.lease import LeaseLost, LeaseUnreadable
from saia_engine.model import Drain, DrainKind, Node, Override, Reason, StartDrain, State
from saia_engine.store import JournalError
from saia_engine.wishes import WishRefused
from tests.unit.memory_slurm import CHAT, LIMIT_S, POLL_S, TIMING, Bench, MemorySlurm

BECAUSE = Reason("operator", "because")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()
    bench.lease.release()


def only(bench: Bench, **changes) -> None:
    """One replica is enough for this test."""
    bench.services["chat"] = replace(CHAT, replicas=1, **changes)
    bench.reconciler.configure(bench.services, 120)


# ---------------------------------------------------------------- the plain way


async def test_a_service_comes_to_life(bench: Bench) -> None:
    ready = await bench.settled()
    assert len(ready) == 2 == len(bench.slurm.live())
    assert {i.job_name for i in ready} == {job.name for job in bench.slurm.live()}
    assert bench.reconciler.alarms.current == {}


async def test_it_is_handed_over_before_its_end_without_a_gap(bench: Bench) -> None:
    only(bench)
    (first,) = await bench.settled()
    while bench.slurm.now < (first.end_time or 0):
        await bench.polls()
        assert bench.of(State.READY), "a gap"
    (second,) = bench.of(State.READY)
    assert (second.replaces, len(bench.slurm.live())) == (first.id, 1)
    assert bench.reconciler.instances[first.id].state is State.STOPPED


async def test_the_environment_reaches_the_job_but_neither_journal_nor_events(bench: Bench) -> None:
    (one, _) = await bench.settled()
    assert b"s3cret" in (bench.dirs.path(one.id) / "launch.json").read_bytes()
    assert b"s3cret" not in (bench.directory / "state.db").read_bytes()
    assert b"s3cret" not in (bench.dirs.path(one.id) / "instance.json").read_bytes()


async def test_overrides_count_until_cleared(bench: Bench) -> None:
    await bench.settled()
    bench.reconciler.set_override(Override("chat", 3, 1000, bench.slurm.now))
    await bench.settled()
    assert len(bench.of(State.READY)) == 3
    bench.restart()
    assert bench.reconciler.desired.services["chat"].replicas == 3
    bench.reconciler.clear_override("chat")
    await bench.polls(3)
    assert len(bench.slurm.live()) == 2


async def test_between_polls_a_drain_is_ended_as_soon_as_its_agent_says_so(bench: Bench) -> None:
    ready = await bench.settled()
    bench.ears.open = {i.id: 1 for i in ready}
    bench.reconciler.set_override(Override("chat", 1, 0, bench.slurm.now))
    await bench.polls(2)
    (leaving,) = bench.of(State.DRAINING)
    assert bench.slurm.cancels == []
    bench.ears.open.clear()
    bench.slurm.now += 2
    bench.ears.listen()
    await bench.reconciler.react()
    assert bench.slurm.cancels == [(leaving.job_id, leaving.job_name)]


async def test_between_polls_nothing_is_done_on_an_old_answer(bench: Bench) -> None:
    await bench.settled()
    bench.reconciler.set_override(Override("chat", 3, 0, bench.slurm.now))
    bench.slurm.now += 2 * POLL_S + 1
    await bench.reconciler.react()
    assert len(bench.slurm.submits) == 2


async def test_all_is_asked_of_slurm_in_one_go_however_many_services_there_are(bench: Bench) -> None:
    asked = 0
    observe = bench.slurm.observe

    async def counted():
        nonlocal asked
        asked += 1
        return await observe()

    bench.slurm.observe = counted  # type: ignore[method-assign]
    bench.services.update({f"s{n}": replace(CHAT, name=f"s{n}") for n in range(20)})
    await bench.polls(3)
    assert asked == 3


# ---------------------------------------------------------------- submits that go wrong


async def test_an_intent_is_durable_before_its_submit(bench: Bench) -> None:
    only(bench)
    found = []
    bench.slurm.during_submit = lambda: found.extend(bench.store.instances(0).values())
    await bench.polls()
    assert [(i.state, f"saia.{i.id}") for i in found] == [(State.INTENDED, bench.slurm.submits[0])]


async def test_a_submit_that_seemed_to_fail_but_ran_is_found_and_not_repeated(bench: Bench) -> None:
    only(bench)
    bench.slurm.submit_outcomes = ["ran"]
    await bench.settled()
    assert len(bench.slurm.submits) == 1
    assert "submit-unknown" in bench.codes()


async def test_a_submit_that_seemed_to_fail_and_did_is_repeated_once_that_is_proven(bench: Bench) -> None:
    only(bench)
    bench.slurm.submit_outcomes = ["unknown"]
    await bench.polls(3)
    assert len(bench.slurm.submits) == 1, "promise 4: two good snapshots, MessageTimeout + one poll apart"
    await bench.settled()
    assert len(bench.slurm.submits) == 2


async def test_a_submit_that_comes_true_after_all_is_adopted_and_the_surplus_drained(bench: Bench) -> None:
    only(bench)
    bench.slurm.submit_outcomes = ["unknown"]
    await bench.polls()
    (late,) = bench.live()
    await bench.settled()
    bench.slurm.add(late.job_name)
    await bench.polls(5)
    assert "adopted" in bench.codes()
    assert len(bench.slurm.live()) == 1


async def test_a_refused_submit_is_tried_again_ever_more_slowly(bench: Bench) -> None:
    only(bench)
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
    only(bench)
    (bench.directory / "instances").write_text("in the way")
    await bench.polls()
    (failed,) = bench.of(State.FAILED)
    assert "its directory cannot be written" in failed.outcome
    assert failed.unsent
    assert bench.slurm.submits == []


async def test_directories_that_cannot_be_written_back_off_but_fail_no_rollout(bench: Bench) -> None:
    only(bench)
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
    only(bench)

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


# ---------------------------------------------------------------- whose job


async def test_jobs_of_others_are_never_touched(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    strangers = [
        bench.slurm.add("train.sh"),
        bench.slurm.add(mine.job_name, user="eve"),
        bench.slurm.add("saia.zzzz.hpc.chat.ab12"),
        bench.slurm.add("saia.k7f3.other.chat.ab12"),
        bench.slurm.add(f"{mine.job_name}.x"),
        bench.slurm.add("saia.k7f3.hpc.chat."),
        bench.slurm.add("saia.k7f3.hpc.../../../etc.x"),
        bench.slurm.add("saia.k7f3.hpc.chat.a\x1b]52;c;x\x07\n99|RUNNING"),
    ]
    bench.services.clear()
    bench.reconciler.configure({}, 120)
    await bench.polls(20)
    assert {job.id for job in bench.slurm.live()} == set(strangers)
    assert bench.live() == []


async def test_two_installations_on_one_account_leave_each_other_alone(tmp_path: Path) -> None:
    slurm = MemorySlurm()
    both = []
    for name in ("aaaa", "bbbb"):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, slurm=slurm)
        bench.restart(installation=name)
        both.append(bench)
    one, two = both
    for _ in range(4):
        await one.polls()
        await two.polls()
    two.services.clear()
    two.reconciler.configure({}, 120)
    for _ in range(4):
        await one.polls()
        await two.polls()
    assert len(one.of(State.READY)) == 2
    assert {job.name.split(".")[1] for job in slurm.live()} == {"aaaa"}


async def test_a_job_id_used_again_for_anothers_job_is_not_cancelled(bench: Bench) -> None:
    only(bench)
    (mine,) = await bench.settled()
    bench.reconciler.start_drain(mine, DrainKind.SURPLUS, BECAUSE)
    bench.ears.unreachable = {mine.id}
    bench.slurm.jobs[mine.job_id] = replace(bench.slurm.jobs[mine.job_id], name="somebody-else")
    await bench.polls(20)
    assert (mine.job_id, mine.job_name) not in bench.slurm.cancels
    assert not bench.slurm.jobs[mine.job_id].ended


async def test_a_job_that_slurm_does_not_show_is_not_cancelled_blindly(bench: Bench) -> None:
    only(bench)
    (mine,) = await bench.settled()
    bench.reconciler.start_drain(mine, DrainKind.SURPLUS, BECAUSE)
    bench.slurm.hidden = {mine.job_id}
    bench.ears.open[mine.id] = 1
    await bench.polls(12)
    assert bench.slurm.cancels == []
    bench.slurm.hidden = set()
    await bench.polls()
    assert bench.slurm.cancels == [(mine.job_id, mine.job_name)]


async def test_a_twin_is_cancelled_and_the_one_we_know_stays(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    twin = bench.slurm.add(mine.job_name)
    await bench.polls(2)
    assert bench.slurm.cancels == [(twin, mine.job_name)]
    assert bench.reconciler.instances[mine.id].state is State.READY


async def test_a_requeued_job_is_followed_as_a_new_generation(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    bench.slurm.starts = False
    bench.slurm.requeue(mine.job_id)
    await bench.polls()
    waiting = bench.reconciler.instances[mine.id]
    assert (waiting.state, waiting.generation, waiting.node) == (State.PENDING, 1, "")
    bench.slurm.starts = True
    await bench.settled()
    assert bench.ears.targets[mine.id].generation == 1
    assert len(bench.slurm.submits) == 2
    bench.reconciler.start_drain(bench.reconciler.instances[mine.id], DrainKind.SURPLUS, BECAUSE)
    await bench.polls(2)
    assert (mine.job_id, mine.job_name) in bench.slurm.cancels, "its new submit time was recorded"


# ---------------------------------------------------------------- restarts


async def test_a_restart_adopts_all_and_doubles_none(bench: Bench) -> None:
    before = await bench.settled()
    bench.restart()
    assert bench.of(State.READY) == before, "the journal's word stands until Slurm or an agent speaks"
    await bench.polls()
    assert {i.id for i in bench.of(State.READY)} == {i.id for i in before}
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])


async def test_a_restart_with_the_journal_lost_adopts_from_slurm_and_the_directories(bench: Bench) -> None:
    before = await bench.settled()
    bench.store.close()
    (bench.directory / "state.db").unlink()
    bench.start()
    ready = await bench.settled()
    assert {(i.id, i.job_id, i.revision) for i in ready} == {(i.id, i.job_id, i.revision) for i in before}
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])
    assert bench.codes().count("adopted") == 2


async def test_after_a_start_the_agents_are_heard_before_anything_is_planned(bench: Bench) -> None:
    """Unready for long, says the journal; but nobody listened meanwhile."""
    (one, _) = await bench.settled()
    bench.ears.unready.add(one.id)
    await bench.polls(2)
    assert bench.of(State.UNREADY) != []
    bench.slurm.now += 2 * TIMING.unready_deadline_s
    bench.restart()
    await bench.reconciler.poll()
    await bench.polls()
    assert len(bench.of(State.READY)) == 2
    assert "drain" not in bench.codes()


async def test_the_first_answer_of_all_is_not_believed_from_a_controller_that_has_just_restarted(
    bench: Bench,
) -> None:
    await bench.settled()
    bench.slurm.hidden = set(bench.slurm.jobs)
    bench.slurm.boot = bench.slurm.now - 3
    bench.restart()
    await bench.polls()
    assert "slurm-unavailable" in bench.alarmed()
    bench.slurm.hidden.clear()
    await bench.polls(3)
    assert len(bench.of(State.READY)) == 2
    assert "slurm-unavailable" not in bench.alarmed()


async def test_a_restart_long_before_the_first_answer_is_no_doubt(bench: Bench) -> None:
    await bench.settled()
    bench.slurm.boot = bench.slurm.now + 1  # while no engine looks
    bench.slurm.now += 600
    bench.restart()
    await bench.polls()
    assert "slurm-unavailable" not in bench.alarmed()


async def test_what_was_adopted_is_heard_before_anything_is_planned(bench: Bench) -> None:
    await bench.settled()
    bench.store.close()
    (bench.directory / "state.db").unlink()
    only(bench)  # one of the two is too many now
    bench.start()
    await bench.reconciler.poll()
    assert "drain" not in bench.codes(), "which of them serves is not known yet"
    await bench.polls()
    assert bench.codes().count("drain") == 1


async def test_a_journal_of_long_ago_costs_no_job_that_runs(bench: Bench, tmp_path: Path) -> None:
    """Another host had the engine meanwhile: what the journal knows has ended, what runs it does not know."""
    old = await bench.settled()
    bench.store.close()
    (tmp_path / "state.db").rename(tmp_path / "old.db")
    bench.start()
    await bench.polls(int(LIMIT_S / POLL_S))
    running = bench.of(State.READY)
    assert not {i.id for i in running} & {i.id for i in old}
    bench.slurm.jobs = {job.id: job for job in bench.slurm.live()}
    bench.store.close()
    (tmp_path / "old.db").rename(tmp_path / "state.db")
    submits = len(bench.slurm.submits)
    cancels = len(bench.slurm.cancels)
    bench.start()
    await bench.polls(4)
    assert {i.id for i in bench.of(State.READY)} == {i.id for i in running}
    assert (len(bench.slurm.submits), len(bench.slurm.cancels)) == (submits, cancels)


async def test_a_job_with_our_token_that_nobody_knows_is_left_alone_and_told_of(bench: Bench) -> None:
    await bench.settled()
    stray = bench.slurm.add("saia.k7f3.hpc.chat.zz99")
    await bench.polls(3)
    assert not bench.slurm.jobs[stray].ended
    assert ("unknown-job", str(stray)) in bench.reconciler.alarms.current
    bench.slurm.change(stray, state="COMPLETED")
    await bench.polls()
    assert bench.alarmed() == set()


async def test_a_directory_of_another_service_is_no_proof(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    forged = bench.dirs.path("k7f3.hpc.embed.zz99")
    forged.mkdir()
    (forged / "instance.json").write_bytes((bench.dirs.path(mine.id) / "instance.json").read_bytes())
    stray = bench.slurm.add("saia.k7f3.hpc.embed.zz99")
    await bench.polls()
    assert ("unknown-job", str(stray)) in bench.reconciler.alarms.current


@pytest.mark.parametrize("ran", [True, False])
async def test_a_crash_between_intent_and_submit_or_just_after_it(bench: Bench, ran: bool) -> None:
    only(bench)

    class Crash(BaseException):
        pass

    def crash() -> None:
        if ran:
            bench.slurm.add(bench.slurm.submits[-1])
        raise Crash

    bench.slurm.during_submit = crash
    with pytest.raises(Crash):
        await bench.polls()
    bench.slurm.during_submit = lambda: None
    bench.restart()
    assert [i.state for i in bench.live()] == [State.INTENDED]
    await bench.settled()
    assert len(bench.slurm.submits) == (1 if ran else 2)
    assert len(bench.slurm.live()) == 1


async def test_a_drain_is_ordered_again_after_a_restart(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    bench.ears.open[mine.id] = 1
    bench.reconciler.start_drain(mine, DrainKind.OPERATOR, BECAUSE, 1000)
    bench.restart()
    bench.ears.open[mine.id] = 1
    await bench.polls()
    assert bench.ears.targets[mine.id].drain
    assert bench.reconciler.instances[mine.id].drain == Drain(
        DrainKind.OPERATOR, mine_drain_at(bench, mine.id)
    )


def mine_drain_at(bench: Bench, name: str) -> float:
    drain = bench.store.instances(0)[name].drain
    assert drain
    return drain.started_at


async def test_an_agent_that_died_with_the_engine_is_noticed(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    bench.restart()
    bench.ears.unreachable = {mine.id}
    await bench.polls()
    assert bench.reconciler.instances[mine.id].state is State.READY, "it had no time to answer"
    await bench.polls()
    assert bench.reconciler.instances[mine.id].state is State.UNREADY


# ---------------------------------------------------------------- drains


async def test_a_drain_whose_agent_cannot_be_reached_ends_at_its_deadline(bench: Bench) -> None:
    (mine, _) = await bench.settled()
    bench.ears.unreachable = {mine.id}
    bench.reconciler.start_drain(mine, DrainKind.OPERATOR, BECAUSE, 1000)
    ordered_at = bench.slurm.now
    while not bench.slurm.cancels:
        await bench.polls()
    waited_s = bench.slurm.now - ordered_at
    assert TIMING.drain_deadline_s <= waited_s <= TIMING.drain_deadline_s + POLL_S


async def test_an_agent_that_never_gets_ready_costs_one_job_a_time_limit_and_is_told_of(bench: Bench) -> None:
    only(bench, min_available=0)

    class Never(set):
        def __contains__(self, name: object) -> bool:
            return True

    bench.ears.unready = Never()
    await bench.polls(int(2 * LIMIT_S / POLL_S))
    assert len(bench.slurm.submits) <= 4
    assert "service-down" in bench.alarmed()
    assert {i.state for i in bench.reconciler.instances.values() if i.ended} == {State.FAILED}


async def test_a_removed_service_leaves_no_job_after_its_own_drain_deadline(bench: Bench) -> None:
    ready = await bench.settled()
    bench.ears.open = {i.id: 5 for i in ready}
    bench.services.clear()
    bench.reconciler.configure({}, 120)
    await bench.polls(2 + int(TIMING.drain_deadline_s / POLL_S))
    assert bench.slurm.live() == []


async def test_a_service_removed_between_plan_and_act_is_not_launched(bench: Bench) -> None:
    def reload() -> None:
        bench.reconciler.configure({}, 120)

    bench.slurm.during_submit = reload
    await bench.polls()
    assert len(bench.slurm.submits) == 1


async def test_who_recovers_between_plan_and_act_is_not_ended(bench: Bench) -> None:
    await bench.settled()
    (sick, _) = bench.of(State.READY)
    bench.ears.unready = {sick.id}
    await bench.polls(int(sick.timing.unready_deadline_s / POLL_S))
    bench.services["attic"] = replace(CHAT, name="attic", replicas=1)
    bench.reconciler.configure(bench.services, 120)
    bench.slurm.now += 2 * POLL_S
    bench.ears.listen()
    taken_in: list[asyncio.Task[None]] = []

    def recovers() -> None:
        bench.ears.unready = set()
        bench.ears.listen()
        taken_in.append(asyncio.ensure_future(bench.reconciler.hear()))

    bench.slurm.during_submit = recovers
    await bench.reconciler.poll()
    assert [
        action.instance for action in bench.reconciler.last_plan.actions if isinstance(action, StartDrain)
    ]
    assert (taken_in, sick.id) == (taken_in[:1], bench.of(State.READY)[0].id)
    assert len(bench.slurm.submits) == 3


# ---------------------------------------------------------------- who may act, and who can't


async def test_without_the_lease_no_act(bench: Bench) -> None:
    lease = bench.directory / "lease.json"
    mine = lease.read_text()
    lease.write_text(mine.replace('"epoch": ', '"epoch": 9'))
    with pytest.raises(LeaseLost):
        await bench.polls()
    lease.unlink()
    with pytest.raises(LeaseUnreadable):
        await bench.polls()
    assert bench.slurm.submits == []
    lease.write_text(mine)
    await bench.polls()
    assert len(bench.slurm.submits) == 2


async def test_a_journal_that_fails_in_the_middle_stops_before_the_act(bench: Bench) -> None:
    ready = await bench.settled()
    before = dict(bench.reconciler.instances)
    bench.store._db.execute("PRAGMA query_only = ON")
    bench.slurm.jobs[ready[0].job_id] = replace(bench.slurm.jobs[ready[0].job_id], state="FAILED")
    with pytest.raises(JournalError):
        await bench.polls()
    assert bench.reconciler.instances == before
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])


async def test_a_journal_that_fails_between_submit_and_record_loses_no_job(bench: Bench) -> None:
    only(bench)
    bench.slurm.during_submit = lambda: bench.store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError):
        await bench.polls()
    bench.slurm.during_submit = lambda: None
    bench.restart()
    await bench.settled()
    assert (len(bench.slurm.submits), len(bench.slurm.live())) == (1, 1)


# ---------------------------------------------------------------- clocks (promise 14)

DAY_S = 86_400.0


def now(bench: Bench) -> float:
    return bench.reconciler._now()


async def test_a_jump_of_the_wall_clock_disturbs_nothing(bench: Bench) -> None:
    await bench.settled()
    for ahead_s in (DAY_S, -DAY_S, 0.0):
        bench.slurm.wall_ahead_s = ahead_s
        await bench.polls(3)
        assert (len(bench.of(State.READY)), bench.alarmed()) == (2, set())
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])


@pytest.mark.parametrize("wrong_s", [DAY_S, -DAY_S, 365 * DAY_S])
async def test_an_engine_started_by_a_wrong_clock_waits_until_that_is_mended(
    bench: Bench, wrong_s: float
) -> None:
    await bench.settled()
    before = dict(bench.reconciler.instances)
    bench.reconciler.set_override(Override("chat", 0, 0, 0.0))
    bench.slurm.wall_ahead_s = wrong_s
    bench.restart()
    await bench.polls(3)
    await bench.reconciler.react()
    await bench.reconciler.forget_old()
    with pytest.raises(WishRefused, match="not answered"):
        bench.reconciler.start_drain(next(iter(before.values())), DrainKind.OPERATOR, BECAUSE, 1000)
    assert bench.reconciler.instances == before == bench.store.instances(0)
    assert (bench.slurm.cancels, bench.reconciler.snapshot) == ([], None)
    way = "behind" if wrong_s > 0 else "ahead of"
    assert f"controller is {abs(wrong_s):.0f} s {way} this host's" in bench.reconciler.slurm_fault
    assert "slurm-unavailable" in bench.alarmed()

    bench.slurm.wall_ahead_s = 0.0
    await bench.polls()
    assert now(bench) == bench.slurm.now
    codes = bench.codes()
    assert codes.count("clock-corrected") == 1
    assert {"drain", "launch", "cancel"}.isdisjoint(codes), "nothing follows from the correction itself"
    assert bench.alarmed() == set()
    await bench.polls(3)
    assert len(bench.slurm.cancels) == 2, "and now it does what it is told to"


async def test_a_clock_that_was_right_follows_the_two_others_only_after_a_while(bench: Bench) -> None:
    """As where host and controller are one machine, whose clock is set."""
    await bench.settled()
    bench.slurm.wall_ahead_s = bench.slurm.told_ahead_s = DAY_S
    await bench.polls(10)
    assert len(bench.of(State.READY)) == 2
    assert "have moved, to 86400 s ahead of the engine's" in bench.reconciler.slurm_fault
    bench.slurm.wall_ahead_s = bench.slurm.told_ahead_s = 0.0
    await bench.polls(10)
    assert "clock-corrected" not in bench.codes()
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (2, [])
    bench.slurm.wall_ahead_s = bench.slurm.told_ahead_s = -DAY_S
    await bench.polls(25)
    assert "clock-corrected" in bench.codes()
    assert now(bench) == bench.slurm.now - DAY_S


async def test_where_the_controllers_clock_alone_is_wrong_nothing_is_done_and_all_stays(bench: Bench) -> None:
    await bench.settled()
    before = dict(bench.reconciler.instances)
    bench.slurm.told_ahead_s = 7200.0
    bench.reconciler.set_override(Override("chat", 3, 0, 0.0))
    await bench.polls(40)
    assert bench.reconciler.instances == before
    assert "controller is 7200 s ahead of this host's" in bench.reconciler.slurm_fault
    bench.slurm.told_ahead_s = 30.0
    await bench.polls(2)
    assert len(bench.slurm.submits) == 3, "within a minute they agree"


async def test_a_controller_that_does_not_tell_its_time_is_believed(bench: Bench) -> None:
    bench.slurm.told_ahead_s = None
    await bench.settled()
    bench.slurm.wall_ahead_s = DAY_S
    await bench.polls(30)
    assert (bench.alarmed(), len(bench.slurm.submits)) == (set(), 2)
    assert "clock-corrected" not in bench.codes()


async def test_a_wrong_clock_makes_no_crash_loop_forgotten(bench: Bench) -> None:
    """An engine whose clock is a day ahead first finds nothing of the last hour in its journal."""
    only(bench)
    bench.slurm.submit_outcomes = ["rejected"] * 4
    await bench.polls(12)
    submits = len(bench.slurm.submits)
    assert submits == 4, "it waits for 80 s now"
    bench.slurm.wall_ahead_s = DAY_S
    bench.restart()
    bench.slurm.now -= POLL_S  # time is short
    await bench.polls()
    assert bench.reconciler.instances == {}
    bench.slurm.wall_ahead_s = 0.0
    bench.slurm.now -= POLL_S
    await bench.polls()
    assert len(bench.reconciler.instances) == submits == len(bench.slurm.submits)


async def test_after_a_host_that_stood_still_a_drain_keeps_its_whole_deadline(bench: Bench) -> None:
    """What was ordered between its waking and the next poll is dated an hour too early."""
    (leaving, _) = await bench.settled()
    bench.ears.open = {leaving.id: 1}
    bench.slurm.wall_ahead_s = bench.slurm.told_ahead_s = 600.0
    bench.slurm.now += 1
    bench.reconciler.start_drain(leaving, DrainKind.SURPLUS, BECAUSE)
    await bench.polls(23)
    assert bench.codes().count("clock-corrected") == 1
    drain = bench.reconciler.instances[leaving.id].drain
    assert drain is not None and now(bench) - drain.started_at < TIMING.drain_deadline_s
    assert bench.slurm.cancels == []


# ---------------------------------------------------------------- alarms, events, memory


async def test_an_agents_fault_is_an_alarm_until_it_is_gone_or_its_job_was_cancelled(bench: Bench) -> None:
    (mine, other) = await bench.settled()
    bench.ears.faults = {mine.id: "endpoint file: changed"}
    await bench.polls()
    assert ("agent-fault", mine.id) in bench.reconciler.alarms.current
    bench.ears.faults.clear()
    await bench.polls()
    assert bench.alarmed() == set()
    bench.reconciler.start_drain(other, DrainKind.OPERATOR, BECAUSE, 0)
    bench.slurm.change(other.job_id, state="COMPLETING")
    await bench.polls()
    bench.ears.faults = {other.id: "agent: no connection"}
    bench.reconciler._keep(replace(bench.reconciler.instances[other.id], cancel_sent_at=bench.slurm.now))
    await bench.polls()
    assert ("agent-fault", other.id) not in bench.reconciler.alarms.current


async def test_quiet_times_leave_no_events_and_no_writes(bench: Bench) -> None:
    await bench.settled()
    await bench.polls()
    events, changes = len(bench.events), bench.store._db.total_changes
    await bench.polls(20)
    assert (len(bench.events), bench.store._db.total_changes) == (events, changes)


async def test_who_ended_long_ago_is_forgotten_and_its_directory_goes(bench: Bench) -> None:
    only(bench)
    (first,) = await bench.settled()
    bench.slurm.change(first.job_id, state="FAILED")
    await bench.settled()
    bench.slurm.now += 3601
    await bench.reconciler.forget_old()
    assert set(bench.reconciler.instances) == {i.id for i in bench.live()}
    assert bench.dirs.path(first.id).exists()
    bench.slurm.now += 8 * 86400
    await bench.reconciler.forget_old()
    assert not bench.dirs.path(first.id).exists()
    assert bench.dirs.path(bench.live()[0].id).exists()


async def test_a_preview_changes_nothing(bench: Bench) -> None:
    await bench.polls()
    bench.reconciler.set_override(Override("chat", 5, 0, bench.slurm.now))
    events = len(bench.events)
    assert len(bench.reconciler.preview().actions) == 3
    assert (len(bench.slurm.submits), len(bench.events)) == (2, events)


async def test_words_of_agents_are_taken_in_while_slurm_hangs(bench: Bench) -> None:
    await bench.polls(2)
    going_on = asyncio.Event()
    observe = bench.slurm.observe

    async def hanging():
        await going_on.wait()
        return await observe()

    bench.slurm.observe = hanging  # type: ignore[method-assign]
    poll = asyncio.create_task(bench.reconciler.poll())
    await asyncio.sleep(0)
    bench.ears.listen()
    assert bench.reconciler.busy
    await bench.reconciler.hear()
    assert len(bench.of(State.READY)) == 2
    going_on.set()
    await poll


async def test_who_was_superseded_notices_with_nothing_to_do_and_tells_agents_nothing_more(
    bench: Bench,
) -> None:
    await bench.settled()
    await bench.polls()
    assert bench.ears.targets
    lease = bench.directory / "lease.json"
    lease.write_text(lease.read_text().replace('"epoch": ', '"epoch": 9'))
    with pytest.raises(LeaseLost):
        await bench.polls()
    assert bench.ears.targets == {}


async def test_what_only_directories_tell_of_takes_up_its_slot_until_it_is_clear(bench: Bench) -> None:
    await bench.settled()
    submits = list(bench.slurm.submits)
    bench.store.close()
    (bench.directory / "state.db").unlink()
    bench.start()
    bench.slurm.hidden = set(bench.slurm.jobs)
    await bench.polls(2)
    assert bench.slurm.submits == submits
    bench.slurm.hidden.clear()
    await bench.polls(3)
    assert bench.slurm.submits == submits
    assert len(bench.of(State.READY)) == 2


async def test_who_runs_by_its_directory_and_answers_is_kept_though_slurm_shows_nothing(bench: Bench) -> None:
    bench.slurm.nodes = {"gpu01": Node("gpu01", "10.0.0.1", "idle", partitions=("gpu",))}
    ready = await bench.settled()
    for i in ready:
        endpoint = {"version": 1, "protocol": 1, "port": 20001, "host": "gpu01", "written_at": 1.0}
        endpoint |= {"gate_secret": "a" * 64, "control_secret": "b" * 64}
        (bench.dirs.path(i.id) / "endpoint.0.json").write_text(json.dumps(endpoint))
    submits = list(bench.slurm.submits)
    bench.store.close()
    (bench.directory / "state.db").unlink()
    bench.start()
    bench.slurm.hidden = set(bench.slurm.jobs)
    await bench.polls(20)
    assert {i.id for i in bench.of(State.LOST)} == {i.id for i in ready}
    assert bench.slurm.submits == submits
    assert "mass-absence" in bench.alarmed()
    bench.ears.unreachable = {i.id for i in ready}  # and die
    await bench.polls(5)
    assert len(bench.slurm.submits) == len(submits) + 2


async def test_a_drain_deadline_runs_from_when_its_agent_has_heard(bench: Bench) -> None:
    ready = await bench.settled()
    bench.ears.open = {i.id: 5 for i in ready}
    bench.ears.unreachable = {i.id for i in ready}
    bench.services.clear()
    bench.reconciler.configure({}, 120)
    await bench.polls(int(TIMING.drain_deadline_s / POLL_S) - 1)
    bench.ears.unreachable = set()
    await bench.polls(3)
    assert len(bench.slurm.live()) == 2
    await bench.polls(1 + int(TIMING.drain_deadline_s / POLL_S))
    assert bench.slurm.live() == []
