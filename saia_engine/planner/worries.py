"""What operators should know of a service: conditions that hold now, each an alarm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from saia_engine.model import Alarm, Instance, Severity, State, short_id
from saia_engine.planner import rollout, timeline, walltime
from saia_engine.planner.brakes import backoff_until
from saia_engine.planner.fleet import Fleet
from saia_engine.planner.lifecycle import HELD
from saia_engine.planner.sizing import drain_ends

STATE_DEADLINE_S: Mapping[State, float] = {
    State.INTENDED: 120.0,
    State.SUBMITTED: 120.0,
    State.UNREADY: 60.0,
    State.LOST: 60.0,
}
"""A longer stay raises an alarm (promise 24)."""
DRAIN_OVERDUE_S = 60.0
"""So much later than its last moment a drained job should be gone."""
QUEUED_LONG_S = 3600.0
QUEUED_LONG = 3.0
"""In the queue for an hour, and so many times as long as is usual: worth a look."""
TAIL_LINES = 3


def alarms(fleet: Fleet) -> Iterator[Alarm]:
    yield from _strength(fleet)
    for instance in fleet.live:
        yield from _instance(fleet, instance)
    yield from _failures(fleet)
    yield from _ahead(fleet)


def _strength(fleet: Fleet) -> Iterator[Alarm]:
    service, ready = fleet.service, len(fleet.ready())
    if service and fleet.wanted > 0 and ready == 0:
        yield Alarm("service-down", Severity.CRITICAL, fleet.name, "no instance is ready")
    elif service and ready < min(fleet.wanted, service.min_available):
        yield Alarm(
            "below-min-available",
            Severity.CRITICAL,
            fleet.name,
            f"{ready} ready, min_available is {service.min_available}",
        )
    elif ready < fleet.wanted:
        yield Alarm(
            "service-degraded", Severity.WARNING, fleet.name, f"{ready} of {fleet.wanted} replicas ready"
        )


def _instance(fleet: Fleet, instance: Instance) -> Iterator[Alarm]:
    limit = STATE_DEADLINE_S.get(instance.state)
    if instance.state is State.STARTING:
        limit = fleet.timing(instance).startup_deadline_s
    elif instance.state is State.PENDING:
        limit = max(QUEUED_LONG_S, QUEUED_LONG * fleet.lead.queue_s)
    if limit is not None and fleet.passed(instance.state_since + limit):
        why = f" ({instance.reason})" if instance.state is State.PENDING and instance.reason else ""
        yield Alarm(
            "state-overdue",
            Severity.WARNING,
            instance.id,
            f"{instance.state} for longer than {limit:.0f} s{why}",
        )
    if instance.state is State.PENDING and instance.reason.startswith(HELD):
        yield Alarm(
            "job-held",
            Severity.WARNING,
            instance.id,
            f"job {instance.job_id} is held ({instance.reason}): release it, or cancel it",
        )
    if instance.drain is not None:
        ends = drain_ends(fleet, instance, instance.drain)[1]
        if fleet.passed(ends + DRAIN_OVERDUE_S):
            yield Alarm("drain-overdue", Severity.WARNING, instance.id, "its job should have ended by now")
    if _replacement_late(fleet, instance):
        yield Alarm(
            "replacement-late",
            Severity.CRITICAL,
            instance.id,
            "its replacement is not ready and its time to drain has begun",
        )


def _replacement_late(fleet: Fleet, old: Instance) -> bool:
    if fleet.service is None or old.drain is not None or old.end_time is None or old.node == "":
        return False
    heir = fleet.replacement.get(old.id)
    late = fleet.reached(timeline.drain_by(old.end_time, fleet.service.timing))
    return late and (heir is None or heir.state is not State.READY)


def _failures(fleet: Fleet) -> Iterator[Alarm]:
    resume_at = backoff_until(i for i in fleet.all if i.revision == fleet.revision)
    if fleet.service and not fleet.reached(resume_at) and fleet.wanted > len(fleet.heads()):
        last = last_failed(fleet)
        outcome = last.outcome if last else "unknown"
        tail = " | ".join(last.log_tail.splitlines()[-TAIL_LINES:]) if last else ""
        yield Alarm(
            "crash-loop",
            Severity.CRITICAL,
            fleet.name,
            f"its last instances failed; launches are slowed; the last one: {outcome}"
            + (f"; its log ends: {tail}" if tail else ""),
        )
    record = rollout.target(fleet)
    if fleet.service and record is not None and record.failed_at is not None and record.good_at is None:
        no_way = (
            "auto_revert is off"
            if rollout.last_good(fleet, record.revision)
            else "there is no other to go back to"
        )
        yield Alarm(
            "rollout-failed",
            Severity.CRITICAL,
            fleet.name,
            f"revision {record.revision} failed, and {no_way}: {record.failure}",
        )


def last_failed(fleet: Fleet) -> Instance | None:
    failed = [i for i in fleet.all if i.ended_at is not None]
    return max(failed, key=lambda i: i.ended_at or 0.0, default=None)


def _ahead(fleet: Fleet) -> Iterator[Alarm]:
    if fleet.service is None or not fleet.wanted:
        return
    if fleet.lead.capped:
        yield Alarm(
            "lead-capped",
            Severity.WARNING,
            fleet.name,
            f"starts take longer than a hand-over may wait: {fleet.lead.because}; lengthen time_limit or lead_cap",
        )
    if text := walltime.partition_too_short(fleet.service, fleet.outlook, fleet.poll_s):
        yield Alarm("partition-limit", Severity.CRITICAL, fleet.name, text)
    for old in fleet.ready():
        window = fleet.outlook.maintenance_of(old)
        if window is not None and old.end_time is not None and window.start < old.end_time:
            yield Alarm(
                "maintenance-ahead",
                Severity.WARNING,
                old.id,
                f"{short_id(old.id)} runs on {old.node}, which the maintenance {window.name} takes before its end",
            )
