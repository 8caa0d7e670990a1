"""Whether only those requests failed whose instance or way had been killed, each in the right way; and for how long.

Recovery, of one kill: from it to the last moment before the next kill at which any client noticed something. Clients
notice a failure when it ends; and where nothing came for more than NOTICED_S, the end of that silence. It is 0 where
nobody noticed anything. The next kill comes only after all is whole again and has been for a second under load.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import figures
from bench.kills.load import STREAM, TOO_LATE, Request
from bench.kills.victims import GATE, INSTANCE, SSHD, WORKER, Kill

NOTICED_S = 1.0
PROMISED_S = 5.0
"""Of recovery, at its 99th percentile."""
CUT = "the connection ended before the answer"
REFUSED = "no connection"
CODES: Mapping[str, str] = {GATE: "tunnel_lost", SSHD: "tunnel_lost", INSTANCE: "instance_lost"}
"""The one right error of a request whose answer had not begun."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What the proxy's access log says of a request."""

    instance: str
    relay: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Log:
    """Of the proxy."""

    requests: Mapping[str, Logged]
    lost: Sequence[tuple[float, str]]
    """(wall clock, name) of relays that were lost."""


@dataclass(slots=True)
class Found:
    """Of one kill."""

    kind: str
    recovery_s: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    """Right errors, by their names."""
    went_on: int = 0
    """Streams under way at the kill that came to their whole end."""
    broken: list[str] = field(default_factory=list)
    """Each a promise that was not kept."""


def judged(kills: Sequence[Kill], requests: Sequence[Request], log: Log) -> list[Found]:
    """The first of them is what was before any kill."""
    begin = Kill("", float("-inf"), float("-inf"))
    times = [*(kill.at for kill in kills), float("inf")]
    walls = [*(kill.wall_at for kill in kills), float("inf")]
    by_end = sorted(requests, key=lambda request: request.ended_at)
    found: list[Found] = []
    position = 0
    for kill, until, wall_until in zip([begin, *kills], times, walls, strict=True):
        first = position
        while position < len(by_end) and by_end[position].ended_at < until:
            position += 1
        lost = [name for at, name in log.lost if kill.wall_at <= at < wall_until]
        found.append(_one(kill, by_end[first:position], lost, log))
        found[-1].went_on = sum(
            1 for r in requests if r.kind == STREAM and r.began_at < kill.at < r.ended_at and not r.fault
        )
    return found


def _one(kill: Kill, ended: Sequence[Request], lost: Sequence[str], log: Log) -> Found:
    """`ended` are the requests that ended before the next kill."""
    found = Found(kill.kind)
    if kill.kind in (GATE, SSHD) and len(lost) != 1:
        found.broken.append(f"{len(lost)} connections were lost: {', '.join(lost)}")
    if kill.kind not in (GATE, SSHD, WORKER) and lost:
        found.broken.append(f"connections were lost: {', '.join(lost)}")
    for request in ended:
        if not request.fault:
            continue
        logged = log.requests.get(request.id)
        where = f"{request.id}: {request.fault}"
        if logged is not None:
            where += f" ({logged.outcome}, {logged.instance}, relay {logged.relay})"
        if not _died_with(kill, request, logged, lost):
            found.broken.append(f"{where}: neither its instance nor its way was killed")
        elif wrong := wrong_error(kill.kind, request):
            found.broken.append(f"{where}: {wrong}")
        else:
            found.failures[_name(request)] += 1
    noticed = [at for request in ended for at in _noticed(request) if at > kill.at]
    if kill.kind and noticed:
        found.recovery_s = max(noticed) - kill.at
    if kill.kind and not any(not request.fault and request.began_at > kill.at for request in ended):
        found.broken.append("no request was answered after it")
    return found


def _died_with(kill: Kill, request: Request, logged: Logged | None, lost: Sequence[str]) -> bool:
    if kill.kind == WORKER:
        return request.port in kill.ports or kill.at <= request.connected_at <= kill.gone_at
    if logged is None:
        return False
    if kill.kind == INSTANCE:
        return logged.instance == kill.instance
    return kill.kind in (GATE, SSHD) and logged.relay in lost


def wrong_error(kind: str, request: Request) -> str:
    """What is wrong with how it failed; empty where it is as it should be."""
    if request.fault == REFUSED and kind == WORKER:
        return ""
    if request.fault == CUT:
        if kind == WORKER or request.status:
            return "" if request.prefix else "what came before the cut was not its own answer"
        return "it was cut without an error, though nothing had been answered"
    if kind == WORKER:
        return "the worker is gone, but it was answered"
    if request.fault == TOO_LATE:
        return "it was left waiting"
    if request.status not in (502, 503):
        return "it is no 502 or 503"
    code = _code(request.body)
    return "" if code == CODES.get(kind) else f"its error's code is {code or 'missing'}"


def _code(body: str) -> str:
    """Of an error in OpenAI's form."""
    try:
        error = json.loads(body)["error"]
        return error["code"] if error["message"] and error["type"] and "param" in error else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _name(request: Request) -> str:
    if request.fault in (CUT, REFUSED):
        return "cut" if request.status else "reset"
    return f"{request.status} {_code(request.body)}"


def _noticed(request: Request) -> Iterable[float]:
    if request.fault:
        yield request.ended_at
    if request.gap_s > NOTICED_S:
        yield request.gap_ended_at


# ---------------------------------------------------------------- in short


def summary(found: Sequence[Found]) -> dict[str, Any]:
    """By kind, and of all of them."""
    kinds = dict.fromkeys(one.kind for one in found)
    return {kind: _summed([one for one in found if one.kind == kind]) for kind in kinds} | {
        "all": _summed(found)
    }


def _summed(found: Sequence[Found]) -> dict[str, Any]:
    times = [one.recovery_s for one in found]
    return {
        "kills": len(found),
        "failures": dict(sum((one.failures for one in found), Counter[str]())),
        "streams_went_on": sum(one.went_on for one in found),
        "broken": sum(len(one.broken) for one in found),
        "recovery_p50_s": round(figures.percentile(times, 0.5), 3),
        "recovery_p99_s": round(figures.percentile(times, 0.99), 3),
        "recovery_max_s": round(max(times, default=0.0), 3),
    }


def table(summed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """For people."""
    heads = ("kills", "p50 s", "p99 s", "max s", "went on", "broken")
    lines = [f"{'killed':18}" + "".join(f"{head:>9}" for head in heads) + "   failed with it"]
    for kind, row in summed.items():
        times = (row["recovery_p50_s"], row["recovery_p99_s"], row["recovery_max_s"])
        cells = (
            row["kills"],
            *(f"{seconds:.2f}" for seconds in times),
            row["streams_went_on"],
            row["broken"],
        )
        failed = ", ".join(f"{count} {name}" for name, count in row["failures"].items())
        lines.append(f"{kind:18}" + "".join(f"{cell:>9}" for cell in cells) + f"   {failed or '-'}")
    return lines
