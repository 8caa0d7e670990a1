"""All that is known of one instance, as lines: its fields, its job, its GPUs, what happened to it and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.text import Text

from saia_engine.edge.text import plain
from saia_engine.model import Gpu, Severity
from saia_engine.view import InstanceView, JobView
from saia_tui import moments
from saia_tui.cells import fold, gpu_bar, join, known, state_cell, text

TWO_COLUMNS_FROM = 100
NAME_WIDTH = 12
EVENTS_SHOWN = 200
TAIL_SHOWN = 20

Pairs = list[tuple[str, str]]


def standing_lines(
    name: str,
    row: InstanceView | None,
    job: JobView | None,
    story: Mapping[str, Any] | None,
    now: float,
    width: int,
) -> list[Text]:
    """What it is now; without a row, what the journal's record says of one that ended."""
    fields = _fields_of_row(row, now) if row else _fields_of_record(name, story, now)
    if width >= TWO_COLUMNS_FROM:
        half = _half(width)
        lines = _side_by_side(_block("INSTANCE", fields, half), _job(row, job, now, half), width)
    else:  # the events may be out of sight
        lines = _block("INSTANCE", [*fields[:3], *_newest(story, now), *fields[3:]], width)
    gpus = _gpus(row.gpus if row else (), width)
    return [*lines, text(""), *gpus, text("")] if gpus else [*lines, text("")]


def story_lines(
    row: InstanceView | None, story: Mapping[str, Any] | None, now: float, width: int
) -> list[Text]:
    """What happened to it. `story` is as `EngineClient.instance_story` gives it; None while it is on its way."""
    output = _last_output(row.log_tail if row else _record(story).get("log_tail", ""), width)
    return [*output, text(""), *_events(story, now, width)] if output else _events(story, now, width)


def job_lines(row: InstanceView | None, job: JobView | None, now: float, width: int) -> list[Text]:
    """The job where there is no room for it beside the instance; what happened is wanted before it."""
    return [text(""), *_job(row, job, now, width)] if width < TWO_COLUMNS_FROM else []


def _half(width: int) -> int:
    return (width - 2) // 2 if width >= TWO_COLUMNS_FROM else width


def _side_by_side(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    half, lines = _half(width), []
    for one, other in zip_longest(left, right, fillvalue=text("")):
        gap = text(" " * (half + 2 - one.cell_len))
        lines.append(join(one, gap, other))
    return lines


def _block(title: str, pairs: Pairs, width: int) -> list[Text]:
    lines = [text(title, "title")]
    for name, value in pairs:
        folded = fold(plain(value), max(8, width - NAME_WIDTH - 2))
        for number, part in enumerate(folded):
            label = name if number == 0 else ""
            lines.append(join(text(f"{label:>{NAME_WIDTH}}  ", "quiet"), text(part)))
    return lines


# ---------------------------------------------------------------- fields


def _fields_of_row(row: InstanceView, now: float) -> Pairs:
    pairs = [
        ("id", row.id),
        ("service", row.service),
        ("state", row.state + (f", {row.drain_kind}" if row.drain_kind else "")),
        ("since", _moment(row.since, now)),
        ("why", row.outcome or row.reason),
        ("revision", row.revision),
        ("replaces", row.replaces),
        ("generation", str(row.generation) if row.generation else ""),
        ("started", _moment(row.started_at, now)),
        ("ready", _moment(row.ready_since, now)),
        ("admits until", _moment(row.admit_until, now)),
        ("drains by", _moment(row.drain_by, now)),
        ("ends", _moment(row.end, now)),
        ("open", "" if row.open_connections is None else f"{row.open_connections} connections"),
        ("in flight", str(row.in_flight) if row.in_flight else ""),
        ("log", row.log),
    ]
    return [pair for pair in pairs if pair[1]]


def _record(story: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (story or {}).get("instance") or {}


def _fields_of_record(name: str, story: Mapping[str, Any] | None, now: float) -> Pairs:
    """Of one that the engine's state does not show any more."""
    record = _record(story)
    if not record:
        return [("id", name), ("record", "none any more" if story else "is being asked for")]
    pairs = [
        ("id", name),
        ("service", plain(record.get("service", ""))),
        ("state", f"{plain(record.get('state', ''))}: it has left the engine's view"),
        ("why", plain(record.get("outcome", ""))),
        ("revision", plain(record.get("revision", ""))),
        ("job", str(record.get("job_id") or "")),
        ("node", plain(record.get("node", ""))),
        ("started", _moment(record.get("started_at"), now)),
        ("ready", _moment(record.get("first_ready_at"), now)),
        ("ended", _moment(record.get("ended_at"), now)),
        ("log", plain((story or {}).get("log", ""))),
    ]
    return [pair for pair in pairs if pair[1]]


def _newest(story: Mapping[str, Any] | None, now: float) -> Pairs:
    events: Sequence[Mapping[str, Any]] = (story or {}).get("events") or ()
    if not events:
        return []
    at = moments.clock(float(events[-1].get("at") or 0.0), now)
    return [("newest event", f"{at.strip()} {plain(events[-1].get('text', ''))}")]


def _moment(at: float | None, now: float) -> str:
    if not at:
        return ""
    distance = f"in {moments.countdown(at - now)}" if at > now else f"{moments.age(now - at)} ago"
    return f"{moments.stamp(at)} ({distance})"


def _job(row: InstanceView | None, job: JobView | None, now: float, width: int) -> list[Text]:
    if job is None:
        number = row.job_id if row else 0
        none = f"Slurm does not show job {number}" if number else "none yet"
        return _block("JOB", [("job", none)] if row else [], width)
    pairs = [
        ("job", str(job.id)),
        ("name", job.name),
        ("user", job.user),
        ("state", job.state.lower()),
        ("reason", job.reason),
        ("nodes", job.nodes),
        ("partition", job.partition),
        ("gres", job.gres),
        ("submitted", _moment(job.submit_time, now)),
        ("started", _moment(job.start_time, now)),
        ("ends", _moment(job.end_time, now)),
        ("time limit", moments.age(job.time_limit_s)),
    ]
    return _block("JOB, AS SLURM SHOWS IT", [pair for pair in pairs if pair[1]], width)


# ---------------------------------------------------------------- GPUs, output, events


def _gpus(gpus: Sequence[Gpu], width: int) -> list[Text]:
    """One line a GPU; a dash where its agent says nothing."""
    bar = max(4, min(24, (width - 44) // 2))
    lines = [text("GPUS", "title")] if gpus else []
    for gpu in gpus:
        use, used, total = gpu.utilisation_percent, gpu.memory_used_mib, gpu.memory_total_mib
        share = used / total * 100 if used is not None and total else None
        lines.append(
            join(
                text(f"{gpu.index:>{NAME_WIDTH}}  ", "quiet"),
                text("use ", "quiet"),
                *_bar(use, bar),
                text("  memory ", "quiet"),
                *_bar(share, bar),
                text("" if used is None or not total else f"  {used / 1024:.1f} of {total / 1024:.0f} GiB"),
            )
        )
    return lines


def _bar(percent: float | None, width: int) -> tuple[Text, Text]:
    number = known(None) if percent is None else text(f"{percent:4.0f}%")
    return gpu_bar(percent, width), number


def _last_output(tail: object, width: int) -> list[Text]:
    rows = [row.rstrip("\r") for row in str(tail).rstrip("\n").split("\n")[-TAIL_SHOWN:]] if tail else []
    folded = (part for row in rows for part in fold(plain(row), width - 2))
    return [text("LAST OUTPUT", "title"), *(text(f"  {part}") for part in folded)] if rows else []


def _events(story: Mapping[str, Any] | None, now: float, width: int) -> list[Text]:
    if story is None:
        return [text("EVENTS", "title"), text("  the journal is being asked", "quiet")]
    events: Sequence[Mapping[str, Any]] = story.get("events") or ()
    newest = list(reversed(events))[:EVENTS_SHOWN]
    lines = [text("EVENTS, the newest first", "title")]
    for event in newest:
        lines += _event(event, now, width)
    if len(events) > len(newest):
        lines.append(
            text(f"  {len(events) - len(newest)} older ones: saia-engine explain tells them all", "quiet")
        )
    return lines


def _event(event: Mapping[str, Any], now: float, width: int) -> Iterator[Text]:
    severity, uid = plain(event.get("severity", "")), event.get("uid")
    words = plain(event.get("text", ""))
    who = "" if uid is None else f"  by uid {plain(uid)}"
    head = join(
        text(f"  {moments.clock(float(event.get('at') or 0.0), now)} ", "quiet"),
        state_cell(severity)[:1],
        text(" "),
    )
    indent = " " * head.cell_len
    style = "quiet" if severity == Severity.INFO else ""
    for number, part in enumerate(fold(words + who, max(8, width - head.cell_len))):
        yield join(head if number == 0 else text(indent), text(part, style))
    for why in _why(event.get("detail") or {}):
        for part in fold(why, max(8, width - head.cell_len)):
            yield join(text(indent), text(part, "faint"))


def _why(detail: Mapping[str, Any]) -> Iterable[str]:
    """The rule that decided, what went into it, and what was refused."""
    if rule := detail.get("rule"):
        inputs = ", ".join(
            f"{plain(name)} {plain(value)}" for name, value in (detail.get("inputs") or {}).items()
        )
        yield f"rule {plain(rule)}" + (f": {inputs}" if inputs else "")
    for refused in detail.get("refused") or ():
        yield f"not {' because '.join(plain(part) for part in refused)}"
