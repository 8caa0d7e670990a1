"""What an observation means for an instance: every transition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saia_engine.model import AgentStatus, Drain, DrainKind, Instance, Job, LaunchSpec, Snapshot, State
from saia_engine.planner import lifecycle

NOW = 1_000_000.0
POLL_S = 15.0
ID = "k7f3.hpc.chat.ab12"
STARTED = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
ENDED = (
    "COMPLETED",
    "CANCELLED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
)


def instance(state: State, **fields) -> Instance:
    return Instance(
        ID,
        "chat",
        LaunchSpec(),
        "r",
        NOW - 500,
        state=state,
        state_since=NOW - 100,
        **{"job_id": 7, "submit_time": NOW - 500, "user": "svc", **fields},
    )


def job(state: str = "RUNNING", **fields) -> Job:
    started = state not in WAITING
    known = {
        "submit_time": NOW - 500,
        "start_time": NOW - 400,
        "end_time": NOW + 3000,
        "nodes": ("gpu01", "gpu02") if started else (),
    }
    return Job(7, f"saia.{ID}", "svc", state, **{**known, **fields})


def seen(
    before: Instance, found: Job | None, at: float = NOW, exited: str = "", alive: bool = False
) -> Instance:
    return lifecycle.fold_job(before, found, taken_at=at, poll_s=POLL_S, exited=exited, alive=alive)


def heard(before: Instance, status: AgentStatus | None, listening_since: float | None = NOW - 60) -> Instance:
    return lifecycle.fold_status(before, status, NOW, listening_since)


def word(**fields) -> AgentStatus:
    return AgentStatus(
        **{"seen_at": NOW - 1, "ready": True, "verified": True, "open_connections": 0, **fields}
    )


DRAIN = Drain(DrainKind.SURPLUS, NOW - 50)
HANDOVER = Drain(DrainKind.HANDOVER, NOW - 50)

# ---------------------------------------------------------------- Slurm's word


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("before", [State.INTENDED, State.SUBMITTED])
def test_a_job_that_waits_is_pending(state: str, before: State) -> None:
    after = seen(instance(before), job(state, reason="Priority"))
    assert (after.state, after.state_since, after.reason) == (State.PENDING, NOW, "Priority")


@pytest.mark.parametrize("state", STARTED)
@pytest.mark.parametrize("before", [State.INTENDED, State.SUBMITTED, State.PENDING])
def test_a_job_that_runs_is_starting_on_its_first_node(state: str, before: State) -> None:
    after = seen(instance(before), job(state))
    assert (after.state, after.node, after.started_at) == (State.STARTING, "gpu01", NOW - 400)
    assert after.end_time == NOW + 3000


def test_an_unknown_submit_that_ran_gets_its_job() -> None:
    after = seen(instance(State.INTENDED, job_id=0, submit_time=0.0, user=""), job())
    assert (after.job_id, after.submit_time, after.user) == (7, NOW - 500, "svc")


def test_a_changed_limit_counts_at_once() -> None:
    before = seen(instance(State.READY), job())
    assert seen(before, job(end_time=NOW + 60)).end_time == NOW + 60
    assert seen(before, job(end_time=None)).end_time is None


@pytest.mark.parametrize("state", [State.STARTING, State.READY, State.UNREADY, State.DRAINING])
def test_a_running_job_leaves_the_rest_to_the_agent(state: State) -> None:
    assert seen(instance(state), job()).state is state


@pytest.mark.parametrize("state", ENDED)
def test_an_ended_job_ends_its_instance(state: str) -> None:
    after = seen(
        instance(State.READY, served=True), job(state, reason="NonZeroExitCode"), exited="it said so"
    )
    assert (after.state, after.ended_at, after.ready_since) == (State.FAILED, NOW, None)
    assert after.outcome == f"job 7 ended: {state} (NonZeroExitCode); it said so"


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"served": True}, State.FAILED),
        ({"served": True, "drain": HANDOVER}, State.STOPPED),
        ({"served": False, "drain": HANDOVER}, State.FAILED),
        ({"served": False, "drain": DRAIN}, State.STOPPED),
        ({"served": False, "cancel_sent_at": NOW - 5}, State.STOPPED),
        ({"served": True, "end_time": NOW + 0.5}, State.STOPPED),
        ({"served": False, "end_time": NOW + 0.5}, State.FAILED),
    ],
    ids=[
        "it broke",
        "handed over",
        "its time ran out before it was ready",
        "surplus",
        "cancelled",
        "at its limit",
        "at its limit, and never ready",
    ],
)
def test_whether_an_end_was_wanted(fields: dict, state: State) -> None:
    assert lifecycle.end(instance(State.READY, **fields), "over", NOW).state is state


def test_completing_ends_readiness_and_after_a_while_the_instance() -> None:
    first = seen(instance(State.READY, ready_since=NOW - 50), job("COMPLETING"))
    assert (first.state, first.completing_since, first.ready_since) == (State.UNREADY, NOW, None)
    assert heard(first, word()).state is State.UNREADY
    later = seen(first, job("COMPLETING"), NOW + lifecycle.COMPLETING_LIMIT_S)
    assert later.live
    assert "COMPLETING" in seen(later, job("COMPLETING"), NOW + lifecycle.COMPLETING_LIMIT_S + 1).outcome


@pytest.mark.parametrize("state", [State.READY, State.STARTING, State.DRAINING, State.PENDING])
def test_a_requeue_is_a_new_generation_with_nothing_of_the_old_one(state: State) -> None:
    before = instance(
        state,
        node="gpu01",
        ready_since=NOW,
        served=True,
        drain=HANDOVER,
        cancel_sent_at=NOW,
        end_time=NOW + 9,
    )
    after = seen(before, job("PENDING", restarts=1, submit_time=NOW - 1))
    assert (after.state, after.generation, after.node, after.submit_time) == (State.PENDING, 1, "", NOW - 1)
    assert (after.ready_since, after.served, after.drain, after.cancel_sent_at) == (None, False, None, None)
    assert after.end_time is None


def test_who_was_ended_as_unhealthy_stays_so_when_its_job_is_requeued() -> None:
    sick = Drain(DrainKind.UNHEALTHY, NOW - 9)
    before = instance(State.DRAINING, node="gpu01", drain=sick, cancel_sent_at=NOW - 5)
    after = seen(before, job("PENDING", restarts=1))
    assert (after.state, after.drain, after.cancel_sent_at) == (State.DRAINING, sick, None)


def test_a_requeue_that_runs_again_by_the_next_poll_is_seen_all_the_same() -> None:
    after = seen(instance(State.READY, ready_since=NOW, served=True), job(restarts=2))
    assert (after.state, after.generation, after.ready_since) == (State.STARTING, 2, None)


# ---------------------------------------------------------------- absence


def test_one_absence_proves_nothing() -> None:
    after = seen(instance(State.READY, served=True), None)
    assert (after.state, after.absent_since) == (State.LOST, NOW)


def test_two_absences_far_enough_apart_end_it() -> None:
    lost = seen(instance(State.READY, served=True), None)
    enough_s = lifecycle.MESSAGE_TIMEOUT_S + POLL_S
    assert seen(lost, None, NOW + enough_s - 0.1).state is State.LOST
    after = seen(lost, None, NOW + enough_s)
    assert (after.state, after.outcome) == (State.FAILED, "job 7 is no longer known to Slurm")


def test_a_job_that_ends_long_before_its_limit_has_failed_though_slurm_shows_its_end() -> None:
    served = instance(State.READY, served=True, end_time=NOW + 3000)
    crashed = seen(served, job("FAILED", end_time=NOW - 5))
    assert (crashed.state, crashed.end_time) == (State.FAILED, NOW - 5)
    at_its_limit = seen(replace(served, end_time=NOW - 20), job("TIMEOUT", end_time=NOW - 5))
    assert at_its_limit.state is State.STOPPED


def test_one_that_its_replacement_has_overtaken_did_not_fail() -> None:
    overtaken = instance(
        State.DRAINING,
        end_time=NOW + 3000,
        drain=Drain(DrainKind.HANDOVER, NOW - 20),
        cancel_sent_at=NOW - 10,
    )
    assert seen(overtaken, job("CANCELLED", end_time=NOW - 5)).state is State.STOPPED
    never_ready = replace(overtaken, end_time=NOW - 5)
    assert seen(never_ready, job("CANCELLED", end_time=NOW - 5)).state is State.FAILED


def test_one_that_is_absent_well_after_its_end_is_gone_at_once() -> None:
    ended = instance(State.READY, served=True, end_time=NOW - lifecycle.LATE_END_S - 1)
    after = seen(ended, None)
    assert (after.state, after.outcome) == (State.STOPPED, "job 7 is gone, and its time limit is over")
    # A job that a controller forgot is killed by its node; that its agent still speaks must not freeze us for good.
    assert seen(ended, None, alive=True).state is State.STOPPED
    assert seen(instance(State.READY, served=True, end_time=NOW - 10), None).state is State.LOST


def test_an_agent_that_answers_outweighs_slurms_silence() -> None:
    lost = seen(instance(State.READY, served=True), None)
    assert seen(lost, None, NOW + 1000, alive=True).state is State.LOST


def test_an_exit_record_counts_only_with_the_jobs_absence() -> None:
    assert seen(instance(State.READY), job(), exited="code 1").live
    assert seen(instance(State.READY), None, exited="code 1").outcome == "code 1"
    assert seen(instance(State.INTENDED, job_id=0), None, exited="code 1").live


@pytest.mark.parametrize("state", [State.INTENDED, State.SUBMITTED])
def test_a_submit_that_never_shows_is_given_up_as_late_as_it_could_come_true(state: State) -> None:
    job_id = 0 if state is State.INTENDED else 7
    first = seen(instance(state, job_id=job_id), None)
    assert first.state is state
    assert seen(first, None, NOW + 24.9).live
    after = seen(first, None, NOW + 25)
    assert after.state is State.FAILED


def test_absences_count_only_in_a_row() -> None:
    lost = seen(instance(State.READY, served=True), None)
    back = seen(lost, job(), NOW + 15)
    assert back.absent_since is None
    assert seen(back, None, NOW + 30).live


@pytest.mark.parametrize(
    ("fields", "found", "state"),
    [
        ({"served": True}, job(), State.UNREADY),
        ({}, job(), State.STARTING),
        ({}, job("PENDING"), State.PENDING),
        ({"drain": DRAIN}, job(), State.DRAINING),
        ({"drain": DRAIN}, job("PENDING"), State.DRAINING),
    ],
    ids=["served", "started", "waits", "drains", "waits and drains"],
)
def test_who_was_lost_comes_back_as_what_it_was(fields: dict, found: Job, state: State) -> None:
    assert seen(instance(State.LOST, absent_since=NOW - 15, **fields), found).state is state


def test_a_job_that_lives_revives_its_ended_record() -> None:
    over = lifecycle.end(instance(State.DRAINING, drain=DRAIN, cancel_sent_at=NOW), "gone", NOW)
    after = seen(lifecycle.revived(over, NOW), job())
    assert (after.state, after.ended_at, after.outcome) == (State.DRAINING, None, "")
    assert after.cancel_sent_at is None


def test_slurms_answer_to_a_submit_keeps_a_drain_that_came_meanwhile() -> None:
    taken = lifecycle.submitted(instance(State.INTENDED, job_id=0), 9, NOW)
    assert (taken.state, taken.job_id) == (State.SUBMITTED, 9)
    drained = lifecycle.submitted(instance(State.DRAINING, job_id=0, drain=DRAIN), 9, NOW)
    assert (drained.state, drained.job_id, drained.drain) == (State.DRAINING, 9, DRAIN)


# ---------------------------------------------------------------- whose job


@pytest.mark.parametrize(
    "foreign",
    [
        replace(job(), name="saia.k7f3.hpc.chat.zz99"),
        replace(job(), user="eve"),
        replace(job(), id=8),
    ],
    ids=["another name", "another user", "another id"],
)
def test_a_job_is_ours_only_if_name_user_and_id_match(foreign: Job) -> None:
    assert lifecycle.job_of(instance(State.READY), Snapshot(NOW, (foreign,)), "svc") is None
    assert lifecycle.job_of(instance(State.READY), Snapshot(NOW, (foreign, job())), "svc") == job()


def test_of_two_jobs_with_our_name_the_live_one_counts() -> None:
    old, new = replace(job("FAILED"), id=6), job()
    unknown = instance(State.INTENDED, job_id=0)
    assert lifecycle.job_of(unknown, Snapshot(NOW, (old, new)), "svc") == new
    assert lifecycle.job_of(unknown, Snapshot(NOW, (new, old)), "svc") == new


# ---------------------------------------------------------------- the agent's word


@pytest.mark.parametrize("state", [State.STARTING, State.UNREADY])
def test_who_is_ready_and_verified_is_ready(state: State) -> None:
    after = heard(instance(state), word())
    assert (after.state, after.ready_since, after.served) == (State.READY, NOW, True)


@pytest.mark.parametrize(
    "status",
    [None, word(ready=False), word(verified=False), word(draining=True), word(seen_at=NOW - 10.1)],
    ids=["no word", "not ready", "not verified", "drains", "stale"],
)
@pytest.mark.parametrize("state", [State.STARTING, State.UNREADY])
def test_nobody_becomes_ready_by_less(state: State, status: AgentStatus | None) -> None:
    assert heard(instance(state), status).state is state


@pytest.mark.parametrize(
    "status",
    [None, word(ready=False), word(draining=True), word(seen_at=NOW - 10.1)],
    ids=["silent since we listen", "not ready", "stops by itself", "silent for long"],
)
def test_who_was_ready_is_so_no_more(status: AgentStatus | None) -> None:
    after = heard(instance(State.READY, ready_since=NOW - 50, served=True), status)
    assert (after.state, after.ready_since, after.served) == (State.UNREADY, None, True)


@pytest.mark.parametrize("status", [word(), word(seen_at=NOW - 10), word(verified=False)])
def test_who_is_ready_stays_so_since_when_it_was(status: AgentStatus) -> None:
    before = instance(State.READY, ready_since=NOW - 50)
    assert heard(before, status) == before


@pytest.mark.parametrize("listening_since", [None, NOW - 10])
def test_after_a_restart_the_journals_word_stands_until_the_agent_had_time(
    listening_since: float | None,
) -> None:
    before = instance(State.READY, ready_since=NOW - 50)
    assert heard(before, None, listening_since) == before


@pytest.mark.parametrize(
    "state", [State.INTENDED, State.SUBMITTED, State.PENDING, State.DRAINING, State.LOST, State.FAILED]
)
def test_an_agents_word_changes_no_other_state(state: State) -> None:
    before = instance(state, served=True)
    assert heard(before, word()) == before


def test_one_that_slurm_does_not_know_may_have_traffic_once_it_has_proven_itself() -> None:
    before = instance(State.LOST, served=False)
    assert heard(before, word(verified=False)) == before
    after = heard(before, word())
    assert (after.state, after.served) == (State.LOST, True)


@pytest.mark.parametrize(("served", "state"), [(True, State.UNREADY), (False, State.STARTING)])
def test_a_withdrawn_drain_proves_its_readiness_anew(served: bool, state: State) -> None:
    before = instance(State.DRAINING, drain=HANDOVER, ready_since=NOW - 50, served=served)
    after = lifecycle.serving_again(before, NOW)
    assert (after.state, after.drain, after.ready_since) == (state, None, None)
    assert heard(after, word()).state is State.READY


@pytest.mark.parametrize(
    ("before", "status", "gets_traffic"),
    [
        (instance(State.READY, served=True), None, True),
        (instance(State.DRAINING, served=True), None, True),
        (instance(State.DRAINING), None, False),
        (instance(State.UNREADY, served=True), word(), False),
        (instance(State.LOST, served=True), word(), True),
        (instance(State.LOST, served=True), word(seen_at=NOW - 11), False),
        (instance(State.LOST, served=True), None, False),
        (instance(State.STARTING), word(), False),
    ],
)
def test_who_is_in_the_routes(before: Instance, status: AgentStatus | None, gets_traffic: bool) -> None:
    assert lifecycle.routable(before, status, NOW) is gets_traffic
