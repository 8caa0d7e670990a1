"""What an observation means for an instance: pure folds of Slurm's rows and agents' words into records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saia_engine.model import (
    AgentStatus,
    DrainKind,
    Instance,
    Job,
    Snapshot,
    State,
)
from saia_engine.planner import timeline

STATUS_FRESH_S = 10.0
"""An agent's word counts so long: several failed probes in a row, never one (promise 15)."""
MESSAGE_TIMEOUT_S = 10.0
"""Slurm's default MessageTimeout: how late a submit that seemed to fail can still come true."""
LATE_END_S = 120.0
"""How much later than its end time Slurm may end a job: limits are kept by the minute, then comes KillWait."""
COMPLETING_LIMIT_S = 120.0
"""A job that hangs in COMPLETING longer has served its last."""

HELD = "JobHeld"
"""How Slurm's reason begins for a job that a user or an admin holds."""

_STARTED = frozenset({"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"})


def job_of(instance: Instance, snapshot: Snapshot, user: str) -> Job | None:
    """Our job in the snapshot: name, user and (once known) id must match (promise 2)."""
    ours = [
        job
        for job in snapshot.jobs
        if job.name == instance.job_name and job.user == user and instance.job_id in (0, job.id)
    ]
    return min(ours, key=lambda job: job.ended, default=None)


def fold_job(
    instance: Instance,
    job: Job | None,
    *,
    taken_at: float,
    poll_s: float,
    exited: str = "",
    alive: bool = False,
) -> Instance:
    """One good snapshot's word on a live instance.

    `exited` is the agent's exit record as a sentence; `alive` says that its agent has just proven itself,
    which outweighs Slurm's silence: a controller that lost its state prints an empty table.
    """
    if job is None:
        return _absent(instance, taken_at, poll_s, exited, alive)
    instance = _with(
        instance,
        absent_since=None,
        job_id=job.id,
        user=job.user,
        reason=job.reason,
        submit_time=job.submit_time,
    )
    if job.restarts > instance.generation:
        instance = requeued(instance, job.restarts, taken_at)
    if job.ended:
        return _ended(instance, job, taken_at, exited)
    if job.state == "COMPLETING":
        return _completing(instance, taken_at)
    instance = _with(instance, completing_since=None)
    if job.state in _STARTED:
        instance = _with(
            instance,
            node=job.nodes[0] if job.nodes else instance.node,
            forecast_at=None,
            started_at=job.start_time,
            end_time=job.end_time,
        )
        if instance.state in (State.INTENDED, State.SUBMITTED, State.PENDING, State.LOST):
            started = State.UNREADY if instance.served else State.STARTING
            return _move(instance, State.DRAINING if instance.drain else started, taken_at)
        return instance
    held = instance.held or job.reason.startswith(HELD)
    instance = _with(instance, forecast_at=job.start_time, held=held)
    if instance.state in (State.INTENDED, State.SUBMITTED, State.LOST):
        return _move(instance, State.DRAINING if instance.drain else State.PENDING, taken_at)
    return instance


def requeued(instance: Instance, generation: int, at: float) -> Instance:
    """The process, endpoint and secrets of before are gone (promise 8). Who was unhealthy has still to go."""
    sick = instance.drain is not None and instance.drain.kind is DrainKind.UNHEALTHY
    return _move(
        replace(
            instance,
            generation=generation,
            ready_since=None,
            served=False,
            first_ready_at=None,
            replace_asked=False,
            drain=instance.drain if sick else None,
            cancel_sent_at=None,
            node="",
            started_at=None,
            end_time=None,
        ),
        State.DRAINING if sick else State.PENDING,
        at,
    )


def _with(instance: Instance, **fields: Any) -> Instance:
    """The record with these fields; itself where they say nothing new, as most rows do."""
    new = any(getattr(instance, name) != value for name, value in fields.items())
    return replace(instance, **fields) if new else instance


def submitted(instance: Instance, job_id: int, at: float) -> Instance:
    """Slurm took the job."""
    instance = replace(instance, job_id=job_id)
    return _move(instance, State.SUBMITTED, at) if instance.state is State.INTENDED else instance


def revived(instance: Instance, at: float) -> Instance:
    """An ended record whose job turns out to live: Slurm was wrong, or its answer was."""
    return replace(
        instance,
        state=State.SUBMITTED,
        state_since=at,
        ended_at=None,
        outcome="",
        absent_since=None,
        completing_since=None,
        cancel_sent_at=None,
    )


OWN_TIMES = (
    "created_at", "state_since", "ready_since", "first_ready_at", "cancel_sent_at", "absent_since",
    "completing_since", "ended_at",
)  # fmt: skip
"""By the engine's clock; the others are Slurm's."""


def dated_anew(instance: Instance, since: float, now: float) -> Instance:
    """After a wrong clock was set right: what is dated later than `since` counts as of now."""
    wrong: dict[str, Any] = {name: now for name in OWN_TIMES if (getattr(instance, name) or 0.0) > since}
    if instance.drain is not None and instance.drain.started_at > since:
        wrong["drain"] = replace(instance.drain, started_at=now, heard_at=instance.drain.heard_at and now)
    return replace(instance, **wrong) if wrong else instance


def fresh(status: AgentStatus | None, now: float) -> bool:
    """Whether the agent's word still counts."""
    return status is not None and now - status.seen_at <= STATUS_FRESH_S


def routable(instance: Instance, status: AgentStatus | None, now: float) -> bool:
    """May get traffic, or still has some: proven ready now, lost to Slurm but answering, or draining."""
    if instance.state is State.LOST:
        return instance.served and status is not None and status.ready and fresh(status, now)
    return instance.state in (State.READY, State.DRAINING) and instance.served


def unfit(instance: Instance, status: AgentStatus | None, now: float, listening_since: float | None) -> bool:
    """Cannot serve, by its agent's word or its lasting silence, whatever its record says."""
    if instance.ended:
        return True
    if instance.state is State.DRAINING:
        return False  # its streams go on
    return _silent(status, now, listening_since) or (status is not None and not _serves(status))


def _silent(status: AgentStatus | None, now: float, listening_since: float | None) -> bool:
    """Its silence counts once it lasts; who is not asked yet is not silent."""
    if status is None:
        return listening_since is not None and now - listening_since > STATUS_FRESH_S
    return not fresh(status, now)


def fold_status(
    instance: Instance, status: AgentStatus | None, now: float, listening_since: float | None
) -> Instance:
    """The newest word of the agent on a live instance; its silence counts once it lasts.

    `listening_since` is when the engine began to ask; None is not yet, and then the journal's word stands.
    """
    drain = instance.drain
    if drain is not None and drain.heard_at is None and status is not None and fresh(status, now):
        return replace(instance, drain=replace(drain, heard_at=now)) if status.draining else instance
    if instance.state is State.LOST and not instance.served and status is not None and fresh(status, now):
        if status.verified and _serves(status):  # Slurm's silence must not keep it from traffic
            return replace(instance, served=True, first_ready_at=now)
        return instance
    if instance.state not in (State.STARTING, State.READY, State.UNREADY):
        return instance
    if instance.completing_since is not None:
        return instance
    silent = _silent(status, now, listening_since)
    if instance.state is State.READY:
        if silent or (status is not None and not _serves(status)):
            return _move(replace(instance, ready_since=None), State.UNREADY, now)
        return instance
    if status is not None and not silent and status.verified and _serves(status):
        first = now if instance.first_ready_at is None else instance.first_ready_at
        return _move(replace(instance, ready_since=now, first_ready_at=first, served=True), State.READY, now)
    return instance


def _serves(status: AgentStatus) -> bool:
    return status.ready and status.alive and not status.draining


def _absent(instance: Instance, taken_at: float, poll_s: float, exited: str, alive: bool) -> Instance:
    if exited and instance.job_id:
        # The exit record is believed only together with the job's absence.
        return end(replace(instance, absent_since=None), exited, taken_at)
    if instance.end_time is not None and taken_at > instance.end_time + LATE_END_S:
        # Slurm ends jobs late rather than early, but by now it has, whoever still answers in its name.
        gone = replace(instance, absent_since=instance.absent_since or taken_at)
        return end(gone, f"job {instance.job_id} is gone, and its time limit is over", taken_at)
    if instance.absent_since is None:
        instance = replace(instance, absent_since=taken_at)
        unproven = instance.state in (State.INTENDED, State.SUBMITTED)
        return instance if unproven else _move(instance, State.LOST, taken_at)
    if alive or taken_at - instance.absent_since < MESSAGE_TIMEOUT_S + poll_s:
        return instance
    if instance.job_id == 0 and instance.node:
        return end(instance, "its job is not known to Slurm, and its agent is silent", taken_at)
    if instance.job_id == 0:
        return end(instance, "the submit never reached Slurm", taken_at)
    return end(instance, f"job {instance.job_id} is no longer known to Slurm", taken_at)


def _completing(instance: Instance, taken_at: float) -> Instance:
    if instance.completing_since is None:
        instance = replace(instance, completing_since=taken_at, ready_since=None)
        if instance.state is State.READY:
            return _move(instance, State.UNREADY, taken_at)
        return instance
    if taken_at - instance.completing_since > COMPLETING_LIMIT_S:
        return end(instance, f"job {instance.job_id} hangs in COMPLETING", taken_at)
    return instance


def _ended(instance: Instance, job: Job, taken_at: float, exited: str) -> Instance:
    words = f"job {job.id} ended: {job.state}"
    if job.reason and job.reason not in ("None", ""):
        words += f" ({job.reason})"
    if exited:
        words += f"; {exited}"
    # Judged by the end that its limit had set; Slurm now shows the one that came.
    gone = end(instance, words, taken_at, job.end_time)
    return replace(gone, end_time=job.end_time or instance.end_time, end_state=job.state)


def end(instance: Instance, outcome: str, at: float, ended_at: float | None = None) -> Instance:
    """Ended: `stopped` when we or its time limit wanted it, else `failed`, as one that never got ready is.

    `at` is when that was seen, `ended_at` when it came, where Slurm says so.
    """
    drain = instance.drain
    sick = drain is not None and drain.kind is DrainKind.UNHEALTHY
    by_order = (
        instance.cancel_sent_at is not None
        if drain is None
        else drain.kind is not DrainKind.HANDOVER or _overtaken(instance)
    )
    by_limit = instance.end_time is not None and (ended_at or at) >= instance.end_time - 1.0
    wanted = not sick and (by_order or (instance.served and (drain is not None or by_limit)))
    return replace(
        _move(instance, State.STOPPED if wanted else State.FAILED, at),
        ended_at=at,
        outcome=outcome,
        ready_since=None,
    )


def _overtaken(instance: Instance) -> bool:
    """Cancelled by us well before its end, for its replacement was ready first."""
    sent_at, end_time = instance.cancel_sent_at, instance.end_time
    return sent_at is not None and (
        end_time is None or sent_at < timeline.last_cut(end_time, instance.timing)
    )


def _move(instance: Instance, state: State, at: float) -> Instance:
    return instance if instance.state is state else replace(instance, state=state, state_since=at)


def draining(instance: Instance, at: float) -> Instance:
    """The state after a drain was ordered."""
    return _move(instance, State.DRAINING, at)


def never_told(instance: Instance, began_at: float) -> bool:
    """Whether an earlier engine wrote down, and nobody heard, that it drains: the reason may have gone since.

    `began_at` is when this engine began. An operator's word stands.
    """
    drain = instance.drain
    return (
        drain is not None
        and drain.heard_at is None
        and drain.started_at <= began_at
        and drain.kind is not DrainKind.OPERATOR
        and instance.node != ""
        and instance.cancel_sent_at is None
    )


def serving_again(instance: Instance, at: float) -> Instance:
    """The state after a drain was withdrawn: readiness must be proven anew."""
    state = State.UNREADY if instance.served else State.STARTING
    return _move(replace(instance, drain=None, ready_since=None), state, at)
