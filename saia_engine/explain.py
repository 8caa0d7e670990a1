"""Stories as text for a terminal of 80 columns: what was done to an instance or a service, and why.

Takes what `story` makes. Times are this host's local ones.
"""

from __future__ import annotations

import pwd
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from saia_engine.edge.durations import show
from saia_engine.edge.text import clean, plain
from saia_engine.model import short_id

WIDTH = 80
TAIL_LINES = 20
"""Of a log's end; `--json` holds all that the journal does."""
INSTANCES_SHOWN = 20
INDENT = " " * 10
_DURATIONS = frozenset(
    "admission_margin drain_deadline lead lead_floor min_ready safety_margin time_limit".split()
)
"""Inputs in seconds; those whose names end in `_s` are, too."""
_FIRST_TIME, _LAST_TIME = 1e9, 1e10
"""Inputs between these are times: no duration or count of ours is so large."""


# ---------------------------------------------------------------- one instance


def instance_lines(story: Mapping[str, Any]) -> list[str]:
    """`story.of_instance` in words: the record, then each event with what decided it."""
    record = story.get("instance")
    if record:
        lines = _record(record, plain(story.get("log", "")))
    else:
        lines = _field("record", "none any more: only its events are left")
    return [*lines, "", *event_lines(story.get("events") or ())]


def _record(i: Mapping[str, Any], log: str) -> list[str]:
    spec = i.get("spec") or {}
    job = f"{i['job_id']} on {i['node'] or 'no node'}" if i["job_id"] else "none is known"
    limit = f", limit {show(spec.get('time_limit_s', 0))}"
    lines = _field("instance", plain(i["id"]))
    lines += _field("service", f"{plain(i['service'])}, revision {plain(i['revision'])}")
    lines += _field("job", f"{plain(job)}, generation {i['generation']}{limit}")
    lines += _field("state", _standing(i))
    lines += _field("times", ", ".join(_times(i)))
    if i.get("replaces"):
        lines += _field("replaces", short_id(plain(i["replaces"])))
    if drain := i.get("drain"):
        lines += _field("drain", f"{plain(drain['kind'])}, since {_moment(drain['started_at'])}")
    if log:
        lines.append(f"{'output':{len(INDENT)}}{log}")  # one word, for who copies it
    return lines + _tail(i.get("log_tail", ""))


def _standing(i: Mapping[str, Any]) -> str:
    since = i["ended_at"] if i.get("ended_at") is not None else i["state_since"]
    told = f"{plain(i['state'])} since {_moment(since)}"
    if i.get("outcome"):
        told += f": {plain(i['outcome'])}"
    if i.get("end_state"):
        told += f" (Slurm: {plain(i['end_state'])})"
    if i["state"] == "pending" and i.get("reason"):
        told += f": {plain(i['reason'])}"
    return told


def _times(i: Mapping[str, Any]) -> Iterator[str]:
    end = "" if i.get("ended_at") is not None else "ends"
    for name, at in (
        ("created", i["created_at"]),
        ("submitted", i.get("submit_time")),
        ("started", i.get("started_at")),
        ("first ready", i.get("first_ready_at")),
        (end, i.get("end_time")),
        ("ended", i.get("ended_at")),
    ):
        if name and at:
            yield f"{name} {_moment(at)}"


def _tail(log: str) -> list[str]:
    kept = log.rstrip("\n").split("\n")[-TAIL_LINES:] if log.strip() else []
    return [line for raw in kept for line in wrapped(f"{INDENT}| ", clean(raw.rstrip("\r")), f"{INDENT}| ")]


# ---------------------------------------------------------------- one service


def service_lines(story: Mapping[str, Any]) -> list[str]:
    """`story.of_service` in words; `row` in it is the service's `ServiceView`, where an engine runs."""
    row = story.get("row") or {}
    lines = _field("service", _replicas(story, row))
    lines += _field("runs", _asked_for(story))
    if row.get("lead_s") is not None:
        lines += _field("lead", f"{show(row['lead_s'])}: {plain(row.get('lead_because', ''))}")
    if row.get("rollout"):
        lines += _field("rollout", plain(row["rollout"]))
    blocks = (revision_lines(story), _instances(story), event_lines(story.get("events") or ()))
    return lines + [line for block in blocks for line in ("", *block)]


def _replicas(story: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    name, override = plain(story["service"]), story.get("override")
    status = f", {plain(row['status'])}" if row.get("status") else ""
    if not story.get("configured"):
        return f"{name}, not in the configuration any more"
    told = f"{name}, {story['replicas']} replicas{status}"
    wish = story.get("pause") or override
    return f"{told}, by {_whom(wish)}" if wish else told


def _whom(wish: Mapping[str, Any]) -> str:
    """Who wants it, since when, and why."""
    because = f" ({plain(wish['because'])})" if wish.get("because") else ""
    return f"{_user(wish['uid'])} since {_moment(wish['at'])}{because}"


def _asked_for(story: Mapping[str, Any]) -> str:
    pin = story.get("pin")
    if not story.get("configured"):
        return "nothing is asked for"
    if not pin:
        return f"revision {plain(story['asked_for'])}, as the file says"
    who = "the engine" if pin.get("uid") is None else _user(pin["uid"])
    return (
        f"revision {plain(pin['revision'])} instead of {plain(pin['instead_of'])} of the file,"
        f" rolled back by {who} on {_moment(pin['at'])}: {plain(pin['because'])}"
    )


def revision_lines(story: Mapping[str, Any]) -> list[str]:
    """`story.revisions` in words, the newest first."""
    known = story.get("revisions") or []
    if not known:
        return ["no revisions are known yet"]
    asked = next((r for r in known if r["revision"] == story.get("asked_for")), known[-1])
    lines = ["revisions, the newest first:"]
    for revision in reversed(known):
        lines += wrapped(f"  {plain(revision['revision'])}  ", _fate(revision, story))
        fields = _difference(revision["spec"], asked["spec"])
        if revision is not asked and fields:
            told = f"differs from {plain(asked['revision'])} in {', '.join(fields)}"
            lines += wrapped(" " * 16, told)
    return lines


def _fate(revision: Mapping[str, Any], story: Mapping[str, Any]) -> str:
    told = [f"asked for {_moment(revision['since'])}"]
    if revision.get("good_at") is not None:
        told.append(f"good since {_moment(revision['good_at'])}")
    if revision.get("failed_at") is not None:
        told.append(f"failed {_moment(revision['failed_at'])} ({plain(revision.get('failure', ''))})")
    if revision.get("instances"):
        told.append(f"run by {revision['instances']} now")
    if revision["revision"] == story.get("configured"):
        told.append("the file's")
    elif not revision.get("kept"):
        told.append("its launch spec is lost, so no way back to it")
    return ", ".join(told)


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)] or [
        "the values of its environment"
    ]  # which are redacted


def _instances(story: Mapping[str, Any]) -> list[str]:
    known = story.get("instances") or []
    if not known:
        return ["no instances are known"]
    earlier = (
        f" ({len(known) - INSTANCES_SHOWN} earlier ones left out)" if len(known) > INSTANCES_SHOWN else ""
    )
    lines = [f"instances, the newest last{earlier}:"]
    for i in known[-INSTANCES_SHOWN:]:
        where = f", job {i['job_id']} on {i['node']}" if i.get("node") else ""
        outcome = f": {i['outcome']}" if i.get("outcome") else ""
        told = f"{i['state']} since {_moment(i['since'])}{where}, revision {i['revision']}{outcome}"
        lines += wrapped(f"  {plain(short_id(i['id']))}  ", plain(told), " " * 4)
    return lines


# ---------------------------------------------------------------- events


def event_lines(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each event with its time, act, author, inputs and refused alternatives, oldest first."""
    lines: list[str] = []
    day = ""
    for event in events:
        moment = datetime.fromtimestamp(event["at"]).astimezone()
        if day != (day := f"{moment:%Y-%m-%d}"):
            lines.append(f"{day} ({moment:%Z})")
        urgent = "" if event.get("severity") == "info" else f"{plain(event.get('severity')).upper()} "
        author = "" if event.get("uid") is None else f" by {_user(event['uid'])}"
        told = f"{urgent}{plain(event['code'])}{author}: {plain(event.get('text', ''))}"
        lines += wrapped(f"{moment:%H:%M:%S}  ", told)
        lines += why_lines(event.get("detail") or {}, INDENT, day)
    return lines or ["no events are known"]


def why_lines(reason: Mapping[str, Any], indent: str, day: str = "") -> list[str]:
    """The inputs that decided an act, and what was refused. `day`: times of it need no date."""
    lines: list[str] = []
    inputs = reason.get("inputs") or {}
    if inputs:
        told = (_input(plain(name), value, day) for name, value in inputs.items())
        lines += wrapped(f"{indent}inputs: ", ", ".join(told))
    for refused in reason.get("refused") or ():
        alternative, because = _refused(refused)
        lines += wrapped(f"{indent}not: ", f"{plain(alternative)}: {plain(because)}")
    return lines


def _refused(refused: Mapping[str, Any] | Sequence[Any]) -> tuple[object, object]:
    """As the plan tells it, or as the journal does."""
    if isinstance(refused, Mapping):
        return refused.get("alternative"), refused.get("because")
    return refused[0], refused[1]


def _input(name: str, value: object, day: str) -> str:
    label = name.replace("_", " ")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if _FIRST_TIME <= value < _LAST_TIME:
            return f"{label} {_moment(value).removeprefix(day).lstrip()}"
        if name in _DURATIONS or name.endswith("_s"):
            return f"{label.removesuffix(' s')} {show(value)}"
        return f"{label} {value:g}"
    return f"{label} {'unknown' if value is None else short_id(plain(value))}"


# ---------------------------------------------------------------- words


def _field(label: str, text: str) -> list[str]:
    return wrapped(label.ljust(len(INDENT)), text)


def wrapped(head: str, text: str, indent: str = "") -> list[str]:
    """`head`, then the text, going on below its own beginning (or after `indent`)."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent or " " * len(head),
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M:%S}"


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
