"""What is known of a row in trouble, as plain text to paste into a ticket or a chat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from saia_engine.client import Tables
from saia_engine.edge.text import clean
from saia_engine.model import short_id
from saia_engine.view import AlarmView, EventView, InstanceView, ServiceView
from saia_tui import moments

LARGEST_BYTES: Final = 6000
"""In base64 8 kB, which terminals take in one OSC 52."""
MOST_EVENTS: Final = 12
MOST_INSTANCES: Final = 8
LONGEST_LINE: Final = 300


def report(tables: Tables, table: str, key: str, now: float) -> str:
    """Of the row, its alarms, its service with the instances, and the newest events of these."""
    row = getattr(tables, table).get(key)
    service = service_of(tables, table, row)
    subjects = {name for name in (key, getattr(row, "subject", ""), getattr(row, "id", ""), service) if name}
    subjects |= {name for name, each in tables.instances.items() if service and each.service == service}
    lines = [_head(tables, now), *_row(row, table, key), *_alarms(tables, subjects, row, now)]
    if service in tables.services:
        lines += _service(tables, tables.services[service], now)
    lines += _events(tables, subjects)
    return _bounded([clean(line, LONGEST_LINE) for line in lines])


def service_of(tables: Tables, table: str, row: Any) -> str:
    """The service that a row is about; empty where there is none."""
    if table == "services":
        return row.name if row is not None else ""
    name = {"jobs": "instance", "alarms": "subject", "events": "subject"}.get(table, "id")
    subject = getattr(row, name, "")
    if table == "instances" or subject in tables.instances:
        return getattr(row if table == "instances" else tables.instances[subject], "service", "")
    if subject in tables.services:
        return subject
    parts = subject.split(".")
    return parts[2] if len(parts) == 4 and parts[2] in tables.services else ""


def _head(tables: Tables, now: float) -> str:
    engine = tables.engine
    if engine is None:
        return "saia: no engine has told its state yet"
    age = "never heard" if engine.snapshot_at is None else f"{moments.age(now - engine.snapshot_at)} old"
    acting = "" if engine.acting else f", not acting: {engine.not_acting_because}"
    return (
        f"saia {engine.version} of cluster {engine.cluster} ({engine.installation}) on {engine.host}, "
        f"{moments.stamp(now)}; Slurm's word: {age}{acting}"
    )


def _row(row: Any, table: str, key: str) -> Iterator[str]:
    if row is None:
        yield f"{table}: {key} is gone"
    elif isinstance(row, InstanceView):
        yield f"instance: {_instance(row)}"
    elif not isinstance(row, AlarmView | EventView | ServiceView):
        said = ("reason", "nodes", "peer", "excluded_because")
        facts = [str(getattr(row, "state", ""))] + [str(getattr(row, name, "")) for name in said]
        yield f"{table}: {key} {' '.join(fact for fact in facts if fact)}"


def _alarms(tables: Tables, subjects: set[str], row: Any, now: float) -> Iterator[str]:
    for alarm in sorted(tables.alarms.values(), key=lambda each: (each.severity, each.since)):
        if alarm is row or alarm.subject in subjects:
            lasts = moments.age(now - alarm.since)
            yield f"alarm: {alarm.severity} {alarm.code} {short_id(alarm.subject)}, for {lasts}"
            yield f"  {alarm.text}"
            if alarm.acked_by is not None:
                why = f": {alarm.acked_because}" if alarm.acked_because else ""
                yield f"  taken up by uid {alarm.acked_by} at {moments.stamp(alarm.acked_at or now)}{why}"


def _service(tables: Tables, row: ServiceView, now: float) -> Iterator[str]:
    ends = "" if row.next_end is None else f", the next ends in {moments.countdown(row.next_end - now)}"
    yield (
        f"service {row.name}: {row.status}, {row.ready} of {row.replicas} ready, {row.starting} starting, "
        f"{row.draining} draining, {row.unready} unready{ends}"
    )
    yield f"  {row.requests_per_s:.1f} requests/s, {row.in_flight} open, {row.errors} errors of {row.requests}"
    if row.override_by_uid is not None:
        yield f"  uid {row.override_by_uid} asks for {row.replicas}; the file says {row.configured_replicas}"
    for words in (
        row.rollout and f"rollout {row.rollout}",
        row.pinned_to and f"rolled back to {row.pinned_to}",
    ):
        if words:
            yield f"  {words}"
    mine = sorted(
        (each for each in tables.instances.values() if each.service == row.name), key=lambda each: -each.since
    )
    for instance in mine[:MOST_INSTANCES]:
        yield f"  {_instance(instance)}"
    if len(mine) > MOST_INSTANCES:
        yield f"  and {len(mine) - MOST_INSTANCES} more"


def _instance(row: InstanceView) -> str:
    job = f", job {row.job_id}" if row.job_id else ""
    node = f" on {row.node}" if row.node else ""
    why = "; ".join(word for word in (row.reason, row.outcome) if word)
    return f"{short_id(row.id)} {row.state} since {moments.stamp(row.since)}{job}{node}{': ' if why else ''}{why}"


def _events(tables: Tables, subjects: set[str]) -> Iterator[str]:
    mine = sorted(
        (each for each in tables.events.values() if each.subject in subjects), key=lambda each: -each.seq
    )
    for each in mine[:MOST_EVENTS]:
        by = "" if each.uid is None else f" (uid {each.uid})"
        yield f"{moments.stamp(each.at)} {each.severity} {short_id(each.subject)}: {each.text}{by}"


def _bounded(lines: list[str]) -> str:
    """As many whole lines as there is room for."""
    kept: list[str] = []
    room = LARGEST_BYTES
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(kept) + "\n"
