"""The reconciler after a restart, with or without its journal, and by a wrong clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine.model import Drain, DrainKind, Instance, Override, Reason, State
from saia_engine.planner import lifecycle
from saia_engine.wishes import WishRefused
from tests.unit.memory_slurm import LIMIT_S, POLL_S, TIMING, Bench

BECAUSE = Reason("operator", "because")


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


@pytest.mark.parametrize("takes_s", [0.0, 12.0])
async def test_what_was_adopted_is_heard_before_anything_is_planned(bench: Bench, takes_s: float) -> None:
    await bench.settled()
    bench.store.close()
    (bench.directory / "state.db").unlink()
    bench.one_replica()  # one of the two is too many now
    bench.start()
    observe = bench.slurm.observe

    async def slow():
        answer = await observe()
        bench.slurm.now += takes_s
        return answer

    bench.slurm.observe = slow  # type: ignore[method-assign]
    await bench.reconciler.poll()
    bench.slurm.observe = observe  # type: ignore[method-assign]
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
    bench.one_replica()

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


async def never_told(bench: Bench, kind: DrainKind) -> Instance:
    """Its drain is durable, and the engine crashes before a word reaches its agent."""
    (mine, _) = await bench.settled()
    bench.store.save(lifecycle.draining(replace(mine, drain=Drain(kind, now(bench))), now(bench)))
    bench.restart()
    return mine


async def test_a_drain_that_nobody_heard_is_decided_anew_before_it_is_told(bench: Bench) -> None:
    mine = await never_told(bench, DrainKind.SURPLUS)
    for _ in range(3):
        await bench.polls()
        assert not bench.ears.targets[mine.id].drain
    assert bench.codes().count("drain-withdrawn") == 1
    assert bench.reconciler.instances[mine.id].state is State.READY
    assert bench.slurm.cancels == [] and len(bench.slurm.live()) == 2


async def test_after_a_drain_that_nobody_heard_who_is_too_many_still_goes(bench: Bench) -> None:
    await never_told(bench, DrainKind.SURPLUS)
    bench.one_replica()
    await bench.polls(4)
    assert bench.codes().count("drain-withdrawn") == bench.codes().count("drain") == 1
    assert len(bench.of(State.READY)) == len(bench.slurm.live()) == 1


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
    bench.one_replica()
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
