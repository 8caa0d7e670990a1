"""One measurement of one path: the load process, and what the path's processes cost meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import processes
from bench.job import DOWNLOADS, STREAMS, UPLOADS, Load, Outcome, as_json
from bench.paths import Path
from bench.site import ROOT

LOOK_S = 0.25
LIMIT_S = 90.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What is said of one round."""

    figures: dict[str, float] = field(default_factory=dict[str, float])
    cpu_us: dict[str, float] = field(default_factory=dict[str, float])
    """Microseconds of processor time of each part, for each request or, of streams, for each token."""
    rss_mib: dict[str, float] = field(default_factory=dict[str, float])
    """The most that each part had in use."""
    errors: dict[str, int] = field(default_factory=dict[str, int])


def measure(path: Path, load: Load) -> Measured:
    parts = path.parts()
    before = processes.cpu_by_part(parts)
    outcome, rss = _run(path, load, parts)
    after = processes.cpu_by_part(parts)
    spent = {part: after[part] - before[part] for part in parts} | {_load_part(path): outcome.cpu_s}
    each = outcome.tokens if load.kind == STREAMS else outcome.in_all
    return Measured(
        figures=figures(load, outcome),
        cpu_us={part: cpu_s / each * 1e6 for part, cpu_s in spent.items()} if each else {},
        rss_mib=rss,
        errors=outcome.errors,
    )


def _load_part(path: Path) -> str:
    return "load with its ssh" if path.target.command else "load"


def figures(load: Load, outcome: Outcome) -> dict[str, float]:
    """What counts at this kind of load; times in milliseconds. Empty if nothing was answered."""
    if not outcome.answered:
        return {}
    times = {
        name.removesuffix("_s") + "_ms": value * 1e3
        for name, value in outcome.timed.items()
        if name != "tokens_per_s"
    }
    if load.kind == STREAMS:
        return {"tokens_per_s": outcome.timed["tokens_per_s"], **times}
    rate = outcome.answered / outcome.seconds
    if load.kind in (UPLOADS, DOWNLOADS):
        return {"mb_per_s": rate * load.size / 1e6, **times}
    return {"requests_per_s": rate, **times}


def _run(path: Path, load: Load, parts: Mapping[str, list[int]]) -> tuple[Outcome, dict[str, float]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(as_json(load, path.target)))
        process.stdin.close()
        process.stdin = None
        rss = _watch(process, parts)
        said, complaint = process.communicate()
    finally:
        for pid in [*processes.below(process.pid), process.pid] if process.poll() is None else []:
            os.kill(pid, 9)
        process.wait()
    if process.returncode != 0:
        last = (complaint.strip().splitlines() or ["it took too long"])[-1]
        return Outcome(errors={f"the load failed: {last}": 1}), rss
    return Outcome(**json.loads(said)), rss


def _watch(process: subprocess.Popen[str], parts: Mapping[str, list[int]]) -> dict[str, float]:
    """The most memory that each part had, until the process ends."""
    most = dict.fromkeys(parts, 0.0)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        now = processes.rss_by_part(parts)
        most = {part: max(most[part], now[part]) for part in parts}
        try:
            process.wait(LOOK_S)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        process.kill()
    return most
