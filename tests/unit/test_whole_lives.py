"""Whole lives of a service, poll by poll: rollouts, foreseen ends, sick instances and nodes, other people's hands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from saia_engine.model import (
    DrainKind,
    Node,
    Quarantine,
    Reservation,
    Rolling,
    Service,
    State,
)
from saia_engine.planner.health import KILL_WINDOW_S
from saia_engine.store import Event
from saia_engine.wishes import WishRefused
from tests.unit.memory_slurm import CHAT, LIMIT_S, POLL_S, TIMING, Bench

DAY_S = 86400.0


def asks(bench: Bench, command: str = "serve", **changes) -> Service:
    """The file says so from now on."""
    service = replace(CHAT, launch=replace(CHAT.launch, command=(command,)), **changes)
    bench.services["chat"] = service
    bench.reconciler.configure(bench.services, 120)
    return service


def long_lived(bench: Bench, replicas: int = 1, **changes) -> None:
    """Ends by their limits are far away."""
    asks(
        bench,
        replicas=replicas,
        min_available=0,
        stagger=False,
        **changes,
    )
    launch = replace(bench.services["chat"].launch, time_limit_s=int(DAY_S))
    bench.services["chat"] = replace(bench.services["chat"], launch=launch)
    bench.reconciler.configure(bench.services, 120)


def revision(command: str) -> str:
    return replace(CHAT.launch, command=(command,)).revision


def running(bench: Bench) -> list[str]:
    """Of each ready instance, what it runs."""
    return sorted(i.spec.command[0] for i in bench.of(State.READY))


async def polls_until(bench: Bench, true: Callable[[], bool], most: int = 400) -> int:
    """How many polls it took."""
    for count in range(most):
        if true():
            return count
        await bench.polls()
    raise AssertionError([(i.id[-4:], i.state, i.spec.command, i.drain) for i in bench.live()])


def crash(*commands: str) -> Callable[..., bool]:
    return lambda job, spec: spec.command[0] in commands


def told(bench: Bench, code: str) -> list[Event]:
    return [event for event in bench.events if event.code == code]


def three_nodes(bench: Bench, *drained: str) -> None:
    for name in ("gpu01", "gpu02", "gpu03"):
        state = "draining" if name in drained else "mixed"
        bench.slurm.nodes[name] = Node(name, state, partitions=("gpu",), reason="RAM" if drained else "")


def on_nodes(bench: Bench) -> list[str]:
    return sorted(i.node for i in bench.of(State.READY))


# ---------------------------------------------------------------- rollouts


@pytest.mark.parametrize(
    ("surge", "missing"), [(1, 0), (0, 1), (1, 1), (2, 0)], ids=["surge 1", "missing 1", "both", "surge 2"]
)
async def test_a_good_revision_is_rolled_out_within_its_bounds(
    bench: Bench, surge: int, missing: int
) -> None:
    rolling = Rolling(surge, missing)
    asks(bench, replicas=3, rolling=rolling)
    await bench.settled()
    await bench.polls(2)
    asks(bench, "better", replicas=3, rolling=rolling)
    for _ in range(40):
        await bench.polls()
        staying = [i for i in bench.live() if i.drain is None]
        assert len(staying) <= 3 + surge
        assert len(bench.of(State.READY)) >= 3 - missing
    assert running(bench) == ["better"] * 3
    assert len(bench.slurm.submits) == 6, "each was launched once"
    assert told(bench, "rollout-done")[-1].subject == "chat"
    assert bench.reconciler.rollouts == {}
    assert bench.alarmed() == set()


@pytest.mark.parametrize("rolling", [Rolling(1, 0), Rolling(0, 1), Rolling(1, 1)])
async def test_a_revision_that_crashes_at_start_is_tried_three_times_and_reverted(
    bench: Bench, rolling: Rolling
) -> None:
    asks(bench, replicas=3, rolling=rolling)
    await bench.settled()
    await bench.polls(2)
    bench.slurm.crashes = crash("broken")
    asks(bench, "broken", replicas=3, rolling=rolling)
    await polls_until(bench, lambda: "rolled-back" in bench.codes())
    assert len(bench.slurm.submits) <= 3 + 3 + rolling.max_surge
    await polls_until(bench, lambda: running(bench) == ["serve"] * 3)
    submits = len(bench.slurm.submits)
    await bench.polls(20)
    assert len(bench.slurm.submits) == submits, "and then it is quiet"
    assert bench.alarmed() == {"rolled-back"}
    pin = bench.reconciler.pins["chat"]
    assert (pin.revision, pin.instead_of, pin.uid) == (revision("serve"), revision("broken"), None)


async def test_a_revision_that_never_gets_healthy_is_reverted(bench: Bench) -> None:
    rolling = Rolling(healthy_deadline_s=300)
    long_lived(bench, 2, rolling=rolling)
    await bench.settled()
    await bench.polls(2)
    bench.ears.load_s = lambda name: 1e9 if bench.reconciler.instances[name].spec.command == ("slow",) else 0
    launch = replace(bench.services["chat"].launch, command=("slow",))
    bench.services["chat"] = replace(bench.services["chat"], launch=launch)
    bench.reconciler.configure(bench.services, 120)
    took = await polls_until(bench, lambda: "rolled-back" in bench.codes())
    assert took * POLL_S <= 300 + 5 * POLL_S
    await polls_until(bench, lambda: len(bench.slurm.live()) == 2)
    assert (running(bench), len(bench.slurm.submits)) == (["serve"] * 2, 3)


async def test_a_revision_that_is_ready_for_a_moment_and_then_hangs_is_reverted_in_bounded_time(
    bench: Bench,
) -> None:
    long_lived(bench, 1)
    await bench.settled()
    await bench.polls(2)
    launch = replace(bench.services["chat"].launch, command=("flash",))
    bench.services["chat"] = replace(bench.services["chat"], launch=launch)
    bench.reconciler.configure(bench.services, 120)

    def hang() -> bool:
        for one in bench.live():
            if one.spec.command == ("flash",) and one.first_ready_at is not None:
                bench.ears.hanging.add(one.id)
        return "rolled-back" in bench.codes()

    took = await polls_until(bench, hang)
    assert took * POLL_S <= 4 * (KILL_WINDOW_S + TIMING.drain_deadline_s)
    await polls_until(bench, lambda: len(bench.slurm.live()) == 1)
    assert running(bench) == ["serve"]


async def test_a_first_revision_that_is_bad_has_nowhere_to_go_and_is_told_of(bench: Bench) -> None:
    asks(bench, "broken", replicas=1, min_available=0)
    bench.slurm.crashes = crash("broken")
    await polls_until(bench, lambda: "rollout-failed" in bench.alarmed())
    assert bench.reconciler.pins == {}
    await bench.polls(80)
    assert len(told(bench, "rollout-failed")) == 2, "the act, and the alarm: once each"
    asks(bench, "mended", replicas=1, min_available=0)
    await bench.settled()
    await bench.polls(2)
    assert bench.alarmed() == set()


async def test_an_edit_in_the_middle_of_a_rollout_turns_it_to_the_newest(bench: Bench) -> None:
    asks(bench, replicas=3)
    await bench.settled()
    await bench.polls(2)
    asks(bench, "second", replicas=3)
    await polls_until(bench, lambda: running(bench).count("second") == 1)
    asks(bench, "third", replicas=3)
    await polls_until(bench, lambda: running(bench) == ["third"] * 3)
    await bench.polls(5)
    assert len(bench.slurm.live()) == 3
    assert len(bench.slurm.submits) <= 3 + 2 + 3
    assert bench.alarmed() == set()


async def test_an_edit_back_in_the_middle_of_a_rollout_launches_no_more_than_it_must(bench: Bench) -> None:
    asks(bench, replicas=3)
    await bench.settled()
    await bench.polls(2)
    asks(bench, "second", replicas=3)
    await bench.polls(2)
    asks(bench, replicas=3)
    await bench.polls(30)
    assert running(bench) == ["serve"] * 3
    assert len(bench.slurm.submits) <= 5


async def test_an_operator_rolls_back_and_forth(bench: Bench) -> None:
    for command in ("serve", "second"):
        asks(bench, command)
        await polls_until(bench, lambda command=command: running(bench) == [command] * 2)
        await bench.polls(3)
    bench.reconciler.rollback("chat", None, 1000)
    await polls_until(bench, lambda: running(bench) == ["serve"] * 2)
    await bench.polls(3)
    assert bench.alarmed() == {"rolled-back"}
    bench.restart()
    await bench.polls(10)
    assert running(bench) == ["serve"] * 2
    bench.reconciler.clear_pin("chat", 1000)
    await polls_until(bench, lambda: running(bench) == ["second"] * 2)
    await bench.polls(3)
    assert bench.alarmed() == set()
    with pytest.raises(WishRefused):
        bench.reconciler.clear_pin("chat", 1000)


async def test_a_rollout_goes_on_over_a_restart_of_the_engine(bench: Bench) -> None:
    asks(bench, replicas=3)
    await bench.settled()
    await bench.polls(2)
    asks(bench, "second", replicas=3)
    for _ in range(15):
        await bench.polls(4)
        bench.restart()
    await bench.polls(2)
    assert running(bench) == ["second"] * 3
    assert len(bench.slurm.submits) == 6


async def test_a_removed_service_that_comes_back_starts_anew_without_old_alarms(bench: Bench) -> None:
    asks(bench)
    await bench.settled()
    await bench.polls(2)
    bench.slurm.crashes = crash("broken")
    asks(bench, "broken")
    await polls_until(bench, lambda: "rolled-back" in bench.alarmed())
    bench.services.clear()
    bench.reconciler.configure({}, 120)
    await bench.polls(20)
    assert (bench.slurm.live(), bench.alarmed()) == ([], set())
    asks(bench, "mended")
    await bench.settled()
    await bench.polls(2)
    assert bench.alarmed() == set()


# ---------------------------------------------------------------- foreseen


async def test_an_operator_has_an_instance_replaced_without_a_gap(bench: Bench) -> None:
    long_lived(bench)
    (first,) = await bench.settled()
    bench.reconciler.ask_replace(first.id, 1000)
    for _ in range(10):
        await bench.polls()
        assert bench.of(State.READY)
    assert bench.reconciler.instances[first.id].state is State.STOPPED
    assert len(bench.slurm.submits) == 2, "once"
    with pytest.raises(WishRefused):
        bench.reconciler.ask_replace(first.id, 1000)


async def test_a_draining_node_gets_free_early_without_a_gap(bench: Bench) -> None:
    three_nodes(bench)
    long_lived(bench, 3)
    await bench.settled()
    three_nodes(bench, "gpu01")
    for _ in range(12):
        await bench.polls()
        assert len(bench.of(State.READY)) >= 3
    assert "gpu01" not in on_nodes(bench)
    assert not [j for j in bench.slurm.live() if "gpu01" in j.nodes]
    await bench.polls(40)
    assert len(bench.slurm.submits) == 4


async def test_a_maintenance_of_one_node_is_left_in_time(bench: Bench) -> None:
    three_nodes(bench)
    long_lived(bench, 2)
    await bench.settled()
    starts = bench.slurm.now + 7200
    bench.slurm.reservations = (Reservation("upgrade", starts, starts + 7200, ("gpu01",), ("MAINT",)),)
    while bench.slurm.now < starts:
        await bench.polls()
        assert len(bench.of(State.READY)) >= 2
    assert "gpu01" not in on_nodes(bench)
    assert len(bench.slurm.submits) == 3


async def test_before_a_maintenance_of_all_nodes_jobs_are_clipped_and_after_it_all_comes_back(
    bench: Bench,
) -> None:
    three_nodes(bench)
    starts = bench.slurm.now + 7200
    window = Reservation("upgrade", starts, starts + 3600, ("gpu01", "gpu02", "gpu03"), ("MAINT",))
    bench.slurm.reservations = (window,)
    long_lived(bench, 2)
    ready = await bench.settled()
    assert all((i.end_time or 0) <= starts for i in ready)
    while bench.slurm.now < starts:
        await bench.polls()
    assert not [j for j in bench.slurm.live() if j.state == "RUNNING"]
    assert len(bench.slurm.submits) <= 6
    bench.slurm.now = starts + 3600
    await polls_until(bench, lambda: len(bench.of(State.READY)) == 2, 5 + 20)
    assert len(bench.slurm.submits) <= 6


async def test_replicas_launched_together_do_not_end_together_over_many_hand_overs(bench: Bench) -> None:
    asks(bench, replicas=3, min_available=2)
    await bench.settled()
    least, latest = float("inf"), bench.slurm.now + 8 * LIMIT_S
    while bench.slurm.now < latest:
        await bench.polls()
        assert len(bench.of(State.READY)) >= 2
        ends = sorted(i.end_time or 0 for i in bench.of(State.READY) if i.drain is None)
        if len(ends) == 3:
            least = min(least, *(later - sooner for sooner, later in pairwise(ends)))
    assert least >= 150
    assert len(bench.slurm.submits) <= 3 * 8 * 2, "no more than twice what unclipped limits need"
    assert bench.codes().count("service-down") == 1, "before the first was ready"


# ---------------------------------------------------------------- learned


async def test_the_lead_grows_with_slow_starts_and_shows_why(bench: Bench) -> None:
    asks(bench, replicas=1, min_available=0)
    assert bench.reconciler.leads["chat"].seconds == TIMING.lead_floor_s
    bench.ears.load_s = lambda name: 600
    await polls_until(bench, lambda: len(bench.of(State.READY)) == 1)
    found = bench.reconciler.leads["chat"]
    assert 1.2 * 600 <= found.seconds <= 1.2 * (600 + 4 * POLL_S)
    assert "start 6" in found.because
    bench.restart()
    bench.ears.load_s = lambda name: 600
    (first,) = bench.of(State.READY)
    until = (first.end_time or 0) + 100
    while bench.slurm.now < until:
        await bench.polls()
        assert bench.of(State.READY), "a gap"


async def test_what_got_ready_while_no_engine_ran_teaches_nothing_and_is_not_ended(bench: Bench) -> None:
    long_lived(bench)
    bench.ears.load_s = lambda name: 600
    await bench.polls(2)
    assert bench.of(State.STARTING)
    bench.slurm.now += 6 * 3600
    bench.restart()
    await bench.polls(3)
    assert len(bench.of(State.READY)) == 1
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (1, [])
    assert bench.reconciler.leads["chat"].seconds == TIMING.lead_floor_s


# ---------------------------------------------------------------- sick ones


async def test_who_is_not_ready_within_the_startup_deadline_is_replaced(bench: Bench) -> None:
    long_lived(bench)
    bench.ears.load_s = lambda name: 1e9
    await bench.polls(2)
    (first,) = bench.of(State.STARTING)
    bench.ears.load_s = lambda name: 1e9 if name == first.id else 0.0
    took = await polls_until(bench, lambda: bool(bench.of(State.READY)))
    assert took * POLL_S <= TIMING.startup_deadline_s + 6 * POLL_S
    assert bench.reconciler.instances[first.id].state is State.FAILED


async def test_who_hangs_is_replaced_one_per_window(bench: Bench) -> None:
    long_lived(bench, 4)
    ready = await bench.settled()
    bench.ears.hanging = {i.id for i in ready}
    killed_at: list[float] = []
    for _ in range(100):
        await bench.polls()
        times = {
            i.drain.started_at
            for i in bench.reconciler.instances.values()
            if i.drain and i.drain.kind is DrainKind.UNHEALTHY
        }
        killed_at = sorted(times)
    assert len(killed_at) == 4
    assert all(later - sooner >= KILL_WINDOW_S for sooner, later in pairwise(killed_at))
    assert len(bench.of(State.READY)) == 4


async def test_a_network_that_breaks_ends_nobody(bench: Bench) -> None:
    long_lived(bench, 4)
    ready = await bench.settled()
    bench.ears.unreachable = {i.id for i in ready}
    await bench.polls(60)
    assert "mass-silence" in bench.alarmed()
    assert (len(bench.slurm.submits), bench.slurm.cancels) == (4, [])
    bench.ears.unreachable = set()
    await bench.polls(2)
    assert (len(bench.of(State.READY)), bench.alarmed()) == (4, set())


# ---------------------------------------------------------------- bad nodes


def bad_node(name: str) -> Callable[..., bool]:
    return lambda job, spec: name in job.nodes


async def test_a_node_on_which_two_fail_while_others_run_is_excluded_for_a_time(bench: Bench) -> None:
    three_nodes(bench)
    bench.slurm.crashes = bad_node("gpu01")
    long_lived(bench, 3)
    await polls_until(bench, lambda: len(bench.of(State.READY)) == 3)
    assert "gpu01" not in on_nodes(bench)
    exclusion = bench.reconciler.exclusions["gpu01"]
    assert exclusion.uid is None
    assert "node-excluded" in bench.alarmed()
    assert "rollout-failed" not in bench.codes()
    bench.restart()
    assert "gpu01" in bench.reconciler.exclusions
    bench.reconciler.include("gpu01", 1000)
    await bench.polls()
    assert "node-excluded" not in bench.alarmed()


async def test_a_service_that_fails_everywhere_excludes_no_node(bench: Bench) -> None:
    three_nodes(bench)
    bench.slurm.crashes = crash("serve")
    long_lived(bench, 3)
    await bench.polls(60)
    assert bench.reconciler.exclusions == {}
    assert "crash-loop" in bench.codes()


async def test_without_quarantine_no_node_is_excluded(bench: Bench) -> None:
    three_nodes(bench)
    bench.slurm.crashes = bad_node("gpu01")
    long_lived(bench, 3)
    bench.reconciler.configure(bench.services, 120, Quarantine(0))
    await bench.polls(40)
    assert bench.reconciler.exclusions == {}


# ---------------------------------------------------------------- other people's hands


async def test_a_held_job_is_told_of_and_costs_no_second_one(bench: Bench) -> None:
    long_lived(bench, 2)
    bench.slurm.starts = False
    await bench.polls(2)
    held = bench.slurm.live()[0]
    bench.slurm.change(held.id, reason="JobHeldUser")
    bench.slurm.starts = True
    for _ in range(100):
        bench.slurm.now += DAY_S / 100
        bench.ears.listen()
        await bench.reconciler.poll()
    assert "job-held" in bench.alarmed()
    assert len(bench.slurm.submits) <= 4, "the one that runs is handed over, no more"
    bench.slurm.change(held.id, reason="None")
    await bench.polls(4)
    assert "job-held" not in bench.alarmed()
    assert bench.reconciler.leads["chat"].queue_s < 2 * DAY_S / 100, "its wait taught nothing"


async def test_scancel_by_hand_is_a_failure_and_not_fought(bench: Bench) -> None:
    long_lived(bench)
    await bench.settled()
    times: list[float] = []
    bench.slurm.during_submit = lambda: times.append(bench.slurm.now)
    for _ in range(60):
        for job in bench.slurm.live():
            if job.state == "RUNNING":
                bench.slurm.change(job.id, state="CANCELLED", end_time=bench.slurm.now)
        await bench.polls()
    assert len(times) <= 8
    assert times[-1] - times[-2] >= 150
    assert bench.slurm.cancels == []


async def test_an_operator_ends_a_freeze(bench: Bench) -> None:
    long_lived(bench, 2)
    await bench.settled()
    hidden = set(bench.slurm.jobs)
    bench.slurm.hidden = hidden
    await bench.polls(6)
    assert "mass-absence" in bench.alarmed()
    assert len(bench.slurm.submits) == 2
    bench.ears.unreachable = set(bench.reconciler.instances)
    bench.reconciler.unfreeze(1000)
    await polls_until(bench, lambda: "mass-absence" not in bench.alarmed(), 5)
    await polls_until(bench, lambda: len(bench.of(State.READY)) == 2, 10)


async def test_a_lifted_limit_leaves_a_job_running_until_it_is_to_go(bench: Bench) -> None:
    long_lived(bench)
    (one,) = await bench.settled()
    bench.slurm.change(one.job_id, end_time=None, time_limit_s=None)
    await bench.polls(20)
    assert len(bench.slurm.submits) == 1
    bench.reconciler.ask_replace(one.id, 1000)
    await polls_until(bench, lambda: not bench.reconciler.instances[one.id].live, 20)
