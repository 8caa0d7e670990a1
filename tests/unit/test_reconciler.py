"""Decisions become acts: with a real journal, lease and instance directories, over a Slurm whose faults we choose."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine.lease import LeaseLost, LeaseUnreadable
from saia_engine.model import DrainKind, Instance, Node, Override, Reason, StartDrain, State
from saia_engine.store import JournalError
from tests.unit.memory_slurm import CHAT, LIMIT_S, POLL_S, TIMING, Bench, MemorySlurm

BECAUSE = Reason("operator", "because")


# ---------------------------------------------------------------- the plain way


async def test_a_service_comes_to_life(bench: Bench) -> None:
    ready = await bench.settled()
    assert len(ready) == 2 == len(bench.slurm.live())
    assert {i.job_name for i in ready} == {job.name for job in bench.slurm.live()}
    assert bench.reconciler.alarms.current == {}


async def test_it_is_handed_over_before_its_end_without_a_gap(bench: Bench) -> None:
    bench.one_replica()
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


async def test_who_is_not_needed_any_more_takes_over_from_one_that_must_go(bench: Bench) -> None:
    (old, _) = await bench.settled()
    bench.reconciler.set_override(Override("chat", 3, 1000, bench.slurm.now))
    await bench.polls()
    (new,) = (i for i in bench.reconciler.instances.values() if i.state is not State.READY)
    bench.reconciler.clear_override("chat")
    bench.reconciler.ask_replace(old.id, 1000)
    await bench.polls()
    bench.restart()
    assert bench.reconciler.instances[new.id].replaces == old.id
    await bench.polls(6)
    assert len(bench.slurm.submits) == 3
    assert bench.reconciler.instances[old.id].state is State.STOPPED
    assert {i.state for i in bench.reconciler.instances.values() if i.live} == {State.READY}


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
    bench.one_replica()
    (mine,) = await bench.settled()
    bench.reconciler.start_drain(mine, DrainKind.SURPLUS, BECAUSE)
    bench.ears.unreachable = {mine.id}
    bench.slurm.jobs[mine.job_id] = replace(bench.slurm.jobs[mine.job_id], name="somebody-else")
    await bench.polls(20)
    assert (mine.job_id, mine.job_name) not in bench.slurm.cancels
    assert not bench.slurm.jobs[mine.job_id].ended


async def test_a_job_that_slurm_does_not_show_is_not_cancelled_blindly(bench: Bench) -> None:
    bench.one_replica()
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
    bench.one_replica(min_available=0)

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


@pytest.mark.parametrize("kind", [DrainKind.UNHEALTHY, DrainKind.SURPLUS])
async def test_who_gets_ready_between_plan_and_act_is_not_drained(
    bench: Bench, kind: DrainKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.settled()
    (mine, _) = bench.of(State.READY)
    bench.ears.unready = {mine.id}
    if kind is DrainKind.UNHEALTHY:
        await bench.polls(int(mine.timing.unready_deadline_s / POLL_S))
    else:
        await bench.polls()
        bench.services["chat"] = replace(CHAT, replicas=1)
    bench.services["attic"] = replace(CHAT, name="attic", replicas=1)
    bench.reconciler.configure(bench.services, 120)
    bench.slurm.now += 2 * POLL_S
    bench.ears.listen()
    check = bench.reconciler._check_lease

    async def slow_check() -> None:
        """Meanwhile it gets ready."""
        await check()
        if bench.reconciler.last_plan.actions and bench.ears.unready:
            bench.ears.unready = set()
            bench.ears.listen()
            bench.reconciler._fold_statuses()

    monkeypatch.setattr(bench.reconciler, "_check_lease", slow_check)
    await bench.reconciler.poll()
    planned = [action for action in bench.reconciler.last_plan.actions if isinstance(action, StartDrain)]
    assert [(action.instance, action.kind) for action in planned] == [(mine.id, kind)]
    assert bench.reconciler.instances[mine.id].state is State.READY
    assert len(bench.slurm.submits) == 2, "what follows was planned without it"


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
    bench.one_replica()
    bench.slurm.during_submit = lambda: bench.store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError):
        await bench.polls()
    bench.slurm.during_submit = lambda: None
    bench.restart()
    await bench.settled()
    assert (len(bench.slurm.submits), len(bench.slurm.live())) == (1, 1)


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
    bench.one_replica()
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
        write_endpoint(bench, i)
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


@pytest.mark.parametrize("answers", [True, False])
async def test_a_later_run_that_the_journal_has_missed_is_asked_before_it_is_given_up(
    bench: Bench, answers: bool
) -> None:
    bench.one_replica()
    bench.slurm.nodes = {"gpu01": Node("gpu01", "10.0.0.1", "idle", partitions=("gpu",))}
    (mine,) = await bench.settled()
    submits = list(bench.slurm.submits)
    bench.store.close()
    bench.slurm.requeue(mine.job_id)
    bench.slurm.change(mine.job_id, state="RUNNING", start_time=bench.slurm.now, nodes=("gpu01",))
    (bench.dirs.path(mine.id) / "exit.0.json").write_text("{}")
    write_endpoint(bench, mine, generation=1)
    bench.start()
    bench.slurm.hidden = set(bench.slurm.jobs)
    bench.ears.unreachable = set() if answers else {mine.id}
    await bench.polls(10)
    assert bench.reconciler.instances[mine.id].generation == 1
    assert len(bench.slurm.submits) - len(submits) == (0 if answers else 1)
    assert len(bench.of(State.LOST)) == (1 if answers else 0)


def write_endpoint(bench: Bench, instance: Instance, generation: int = 0) -> None:
    """As its agent does."""
    endpoint = {"version": 1, "protocol": 1, "port": 20001, "host": "gpu01", "written_at": 1.0}
    endpoint |= {"gate_secret": "a" * 64, "control_secret": "b" * 64}
    (bench.dirs.path(instance.id) / f"endpoint.{generation}.json").write_text(json.dumps(endpoint))


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
