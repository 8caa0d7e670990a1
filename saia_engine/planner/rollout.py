"""From one revision to the next: a few instances at a time, judged as they come, and back where they fail."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from saia_engine.model import (
    COMING,
    Action,
    DrainKind,
    Instance,
    Reason,
    Revert,
    Revision,
    Settle,
    StartDrain,
    State,
    short_id,
)
from saia_engine.planner.brakes import STEADY_S
from saia_engine.planner.fleet import Fleet

CRASHES_TO_FAIL = 3
"""So many instances of a new revision that fail before they have proven anything, and it is refused."""
BLAMELESS = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"})
"""Ends of a job that say nothing about what it runs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the revision that is asked for."""

    kind: str
    """`good`, `failed`, or `open`."""
    text: str = ""


def target(fleet: Fleet) -> Revision | None:
    """The journal's record of the revision that is asked for."""
    return next((r for r in reversed(fleet.revisions) if r.revision == fleet.revision), None)


def judge(fleet: Fleet) -> Iterator[Action]:
    """Settle a revision that has proven itself, revert one that has failed."""
    record = target(fleet)
    if fleet.service is None or record is None:
        return
    verdict = _verdict(fleet, record)
    if verdict.kind == "good" and record.good_at is None:
        yield Settle(fleet.name, record.revision, Reason("rollout-done", verdict.text))
    elif verdict.kind == "failed" and record.failed_at is None:
        revert = _revert(fleet, record, verdict.text)
        fleet.going_back = bool(revert.to)
        yield revert


def _revert(fleet: Fleet, failed: Revision, text: str) -> Revert:
    good = last_good(fleet, failed.revision)
    rolling = fleet.service.rolling if fleet.service else None
    to = good.revision if good and rolling and rolling.auto_revert else ""
    refused = ()
    if not to:
        why = "auto_revert is off" if good else "no other revision has ever proven itself"
        refused = (("go back", why),)
    return Revert(fleet.name, failed.revision, to, Reason("rollout-failed", text, (), refused))


def last_good(fleet: Fleet, but: str) -> Revision | None:
    """The newest revision that has proven itself, other than this one."""
    return next((r for r in reversed(fleet.revisions) if r.good_at is not None and r.revision != but), None)


def _verdict(fleet: Fleet, record: Revision) -> Verdict:
    assert fleet.service is not None
    heads = fleet.heads()
    own = [i for i in fleet.all if i.revision == record.revision and i.created_at >= record.since]
    whole = len(heads) == fleet.wanted > 0
    if whole and all(i.revision == record.revision and fleet.proven(i) for i in heads):
        return Verdict("good", f"all {len(heads)} replicas run it and have proven themselves")
    if record.good_at is not None:
        return Verdict("open")
    rolling = fleet.service.rolling
    crashed = [i for i in own if _speaks_against_it(i)]
    if len(crashed) >= CRASHES_TO_FAIL:
        newest = max(crashed, key=lambda i: i.ended_at or 0.0)
        return Verdict("failed", f"{len(crashed)} instances failed early: {newest.outcome}")
    for instance in own:
        if instance.state is not State.STARTING or instance.started_at is None:
            continue
        # Slurm's clock may be behind ours; and who was not listened to may be ready long since.
        started_at = max(instance.started_at, instance.state_since)
        if fleet.passed(started_at + rolling.healthy_deadline_s) and fleet.heard_out(instance):
            return Verdict(
                "failed",
                f"{short_id(instance.id)} was not ready within {rolling.healthy_deadline_s:.0f} s of its start",
            )
    return _progress(fleet, record, own, rolling.progress_deadline_s)


def _speaks_against_it(instance: Instance) -> bool:
    """Whether it failed by what it runs: before it was ready, soon after, or hanging; not lost, nor by others."""
    if instance.state is not State.FAILED or instance.cancelled_by_others or instance.vanished:
        return False
    if instance.unsent:
        return False
    if instance.end_state in BLAMELESS:
        return False
    if not instance.served or (instance.drain is not None and instance.drain.kind is DrainKind.UNHEALTHY):
        return True
    return (instance.ended_at or 0.0) - (instance.first_ready_at or instance.created_at) < STEADY_S


def _progress(fleet: Fleet, record: Revision, own: list[Instance], deadline_s: float) -> Verdict:
    if any(i.live and i.state in COMING and i.state is not State.STARTING for i in own):
        return Verdict("open")  # Slurm's queue is no fault of the revision
    if own and max(own, key=lambda i: i.created_at).unsent:
        return Verdict("open")  # nor is this host's disk
    if not own or all(i.revision == record.revision for i in fleet.heads()):
        return Verdict("open")  # nothing is rolled out: what else is missing has its own alarms
    steps = [record.since]
    for instance in own:  # each that failed counts there, and is no step
        if instance.state is not State.FAILED:
            seen_at = (instance.started_at, instance.first_ready_at)
            steps += [min(at, fleet.now) for at in seen_at if at is not None]
    if fleet.passed(max(steps) + deadline_s):
        return Verdict("failed", f"no step forward within {deadline_s:.0f} s")
    return Verdict("open")


# ---------------------------------------------------------------- steps


def roll(fleet: Fleet) -> Iterator[Action]:
    """Bring the next old instances to the revision that is asked for."""
    record = target(fleet)
    if fleet.service is None or record is None or fleet.going_back:
        return
    if record.failed_at is not None and record.good_at is None:
        return
    yield from _drop_useless(fleet)
    rolling = fleet.service.rolling
    surging = sum(
        1 for i in fleet.live if i.drain is None and i.id not in fleet.leaving and _surges(fleet, i)
    )
    heads = sorted(fleet.heads(), key=fleet.spare_first)
    for old in heads[max(0, len(heads) - fleet.wanted) :]:  # the surplus goes anyway
        if old.revision == fleet.revision or not old.node or old.state is State.LOST:
            continue  # who may be gone, or was long ago, needs no replacement yet
        if old.id in fleet.replacement or fleet.due(old) is not None:
            continue
        reason = Reason(
            "rollout",
            f"{short_id(old.id)} runs revision {old.revision}, wanted is {fleet.revision}",
            (("surging", surging), ("max_surge", rolling.max_surge)),
            (("replace all old ones at once", "max_surge and max_unavailable bound what changes together"),),
        )
        if surging < rolling.max_surge:
            surging += 1
            yield fleet.launch(reason, replaces=old.id)
        elif _may_be_missing(fleet, old):
            fleet.leaving.add(old.id)
            yield StartDrain(old.id, DrainKind.ROLLOUT, reason)


def _surges(fleet: Fleet, instance: Instance) -> bool:
    """A replacement that is not due but for a rollout, this one or the one before."""
    old = fleet.predecessor(instance)
    return old is not None and fleet.due(old) is None


def _drop_useless(fleet: Fleet) -> Iterator[Action]:
    """Who would have to be replaced as soon as it is ready: better at once."""
    for instance in fleet.live:
        if instance.revision == fleet.revision or instance.drain or instance.id in fleet.leaving:
            continue
        old = fleet.predecessor(instance)
        failed = any(r.revision == instance.revision and r.failed_at is not None for r in fleet.revisions)
        queued = instance.state is State.PENDING
        needed = old is not None and fleet.due(old) is not None  # better the old revision than none
        backward = old is not None and old.revision == fleet.revision
        useless = (failed and (queued or old is not None)) or ((queued or backward) and not needed)
        if useless and fleet.can_spare(instance):
            fleet.leaving.add(instance.id)
            yield StartDrain(
                instance.id,
                DrainKind.ROLLOUT,
                Reason("rollout", f"it is to run revision {instance.revision}, wanted is {fleet.revision}"),
            )


def _may_be_missing(fleet: Fleet, old: Instance) -> bool:
    assert fleet.service is not None
    # A replacement beside the one it replaces fills no slot yet, and who is ready since a moment proves nothing.
    unavailable = fleet.wanted - sum(1 for i in fleet.heads() if fleet.proven(i))
    if not fleet.proven(old):
        return unavailable <= fleet.service.rolling.max_unavailable and fleet.can_spare(old)
    return unavailable < fleet.service.rolling.max_unavailable and fleet.can_spare(old)


def told(record: Revision, instances: Collection[Instance], wanted: int) -> str:
    """A rollout as a sentence; empty when none is under way."""
    if record.failed_at is not None:
        return f"{record.revision} failed: {record.failure}"
    if record.good_at is not None and all(i.revision == record.revision for i in instances if i.live):
        return ""
    done = sum(1 for i in instances if i.state is State.READY and i.revision == record.revision)
    return f"{record.revision}: {done} of {wanted} ready"
