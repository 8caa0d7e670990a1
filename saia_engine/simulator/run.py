"""Runs of many seeds: in parallel, resumable, with a report that anyone can produce again."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from saia_engine.edge import logs
from saia_engine.simulator.chaos import CYCLE_S, FAULTS_PER_HOUR, KINDS, Chaos
from saia_engine.simulator.keeper import Keeper
from saia_engine.simulator.operators import Operators
from saia_engine.simulator.oracle import Oracle
from saia_engine.simulator.site import EPOCH
from saia_engine.simulator.slurm_text import NEW, OLD
from saia_engine.simulator.story import Fingerprint, Story, moment
from saia_engine.simulator.truth import Event, Observer, Violation
from saia_engine.simulator.world import World

TEXT_EVERY = 5
"""One seed of so many reads Slurm's text."""
BEFORE_S = 900.0
AFTER_S = 30.0
VIOLATIONS_KEPT = 20
STEP_S = 1800.0
"""How often a run looks whether it may stop."""


@dataclass(frozen=True, slots=True)
class Task:
    """One seed's run."""

    seed: int
    hours: float
    faults: tuple[str, ...] = ()
    """Only these kinds; empty: all. `none`: none at all."""
    fingerprint: bool = False
    trace: bool = False
    until_h: float = 0.0
    """Stop here, though the run would be longer; 0: run to its end."""
    first_breach: bool = False
    """Stop soon after the first violation."""

    @property
    def length_h(self) -> float:
        return min(self.hours, self.until_h or self.hours)

    @property
    def key(self) -> tuple[int, float]:
        return self.seed, round(self.length_h, 6)

    @property
    def dialect(self) -> str:
        """Of Slurm's text in this seed; empty: answers as values."""
        if self.seed % TEXT_EVERY:
            return ""
        return OLD if self.seed % (2 * TEXT_EVERY) else NEW


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one seed."""

    seed: int
    hours: float
    seconds: float
    """Of one core."""
    faults: dict[str, int]
    rules: dict[str, int]
    violations: list[tuple[float, int, str]]
    """Seconds since the beginning, promise, text."""
    violation_count: int
    events: int
    fingerprint: str = ""
    story: str = field(default="", repr=False)


class _Counted:
    def __init__(self) -> None:
        self.count = 0

    def see(self, event: Event) -> None:
        self.count += 1

    def finish(self, at: float) -> None:
        pass


@logs.silenced()
def run_seed(task: Task) -> Report:
    """One seed's whole run, in this process."""
    began = time.process_time()
    oracle, counted = Oracle(), _Counted()
    observers: list[Observer] = [oracle, counted]
    print_ = Fingerprint() if task.fingerprint else None
    story = Story(200_000) if task.trace else None
    observers += [observer for observer in (print_, story) if observer is not None]
    world = World(task.seed, observers, task.dialect)
    if story is not None:
        site = world.site
        world.watchers.on_journal = lambda engine, event: story.journal(site.now, engine, event)
    keeper = Keeper(world)
    calm = task.faults == ("none",)
    operators = Operators(world, 0.0 if calm else 1.0)
    cycles = max(1, round(task.hours * 3600.0 / CYCLE_S))
    chaos = Chaos(
        world,
        keeper,
        operators,
        per_hour=0.0 if calm else FAULTS_PER_HOUR,
        cycle_s=task.hours * 3600.0 / cycles,
        only=frozenset() if calm else frozenset(task.faults),
    )
    hours = task.length_h
    world.begin()
    chaos.begin()
    try:
        end = EPOCH + hours * 3600.0
        while world.site.now < end and not (task.first_breach and oracle.violations):
            world.run_until(min(end, world.site.now + STEP_S))
        oracle.finish(world.site.now)
    finally:
        world.close()
    return Report(
        seed=task.seed,
        hours=hours,
        seconds=time.process_time() - began,
        faults=dict(sorted(world.site.faults.items())),
        rules=dict(sorted(world.watchers.rules.items())),
        violations=[(v.at - EPOCH, v.promise, v.text) for v in oracle.violations[:VIOLATIONS_KEPT]],
        violation_count=len(oracle.violations),
        events=counted.count,
        fingerprint=print_.hex if print_ else "",
        story=_around(story, oracle.violations, world.site.now) if story else "",
    )


def _around(story: Story, violations: list[Violation], now: float) -> str:
    """The timeline before the first violation of each promise, or before the end."""
    firsts: dict[int, float] = {}
    for violation in violations:
        story.violated(violation)
        firsts.setdefault(violation.promise, violation.at)
    return story.text([(at - BEFORE_S, at + AFTER_S) for at in firsts.values() or [now]])


# ---------------------------------------------------------------- many seeds


def tasks(
    hours: float,
    seeds: int,
    first: int,
    faults: tuple[str, ...],
    *,
    trace: bool = False,
    until_h: float = 0.0,
) -> list[Task]:
    """The hours split over the seeds."""
    return [
        Task(seed, hours / seeds, faults, trace=trace, until_h=until_h)
        for seed in range(first, first + seeds)
    ]


def run_all(todo: Iterable[Task], jobs: int) -> Iterator[Report]:
    """In so many processes; each report as it comes."""
    todo = list(todo)
    if jobs <= 1 or len(todo) <= 1:
        yield from map(run_seed, todo)
        return
    workers = min(jobs, len(todo))
    with multiprocessing.get_context("spawn").Pool(workers, _end_with_parent, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(run_seed, todo)


def _end_with_parent() -> None:
    """A run that is killed leaves no worker behind, deep in its next hours."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class Resumed:
    """A file with a line for each seed that is finished; a run goes on where it was broken off."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.reports: list[Report] = []
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.reports = [report for line in lines if (report := _read(line)) is not None]

    def left(self, todo: Iterable[Task]) -> list[Task]:
        done = {(report.seed, round(report.hours, 6)) for report in self.reports}
        return [task for task in todo if task.key not in done]

    def add(self, report: Report) -> None:
        self.reports.append(report)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(report)) + "\n")


def _read(line: str) -> Report | None:
    """None for the torn last line of a run that was killed."""
    try:
        data = json.loads(line)
        data["violations"] = [(at, promise, text) for at, promise, text in data["violations"]]
        return Report(**data)
    except (ValueError, KeyError, TypeError):
        return None


def summary(reports: list[Report], wall_s: float) -> dict[str, Any]:
    """The one object that a run ends with. `hours_per_second` is per core: simulated hours by the seconds of all."""
    faults: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for report in reports:
        faults.update(report.faults)
        rules.update(report.rules)
    hours = sum(report.hours for report in reports)
    spent = sum(report.seconds for report in reports)
    return {
        "simulated_hours": round(hours, 3),
        "faults": sum(faults.values()),
        "faults_by_kind": dict(sorted(faults.items())),
        "kinds_unseen": sorted(KINDS.keys() - faults.keys()),
        "violations": sum(report.violation_count for report in reports),
        "seeds": sorted(report.seed for report in reports),
        "failing_seeds": sorted(report.seed for report in reports if report.violation_count),
        "hours_per_second": round(hours / spent, 3) if spent else 0.0,
        "wall_seconds": round(wall_s, 1),
        "rules": dict(sorted(rules.items())),
    }


def simulate(
    todo: list[Task], jobs: int, resume: Path | None, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Report]]:
    """Run what is left to do, telling of each seed. Returns the summary and all reports."""
    began = time.perf_counter()
    resumed = Resumed(resume)
    for report in run_all(resumed.left(todo), jobs):
        resumed.add(report)
        say(progress(report))
    wanted = {task.key for task in todo}
    reports = [r for r in resumed.reports if (r.seed, round(r.hours, 6)) in wanted]
    return summary(reports, time.perf_counter() - began), reports


def told(summary: dict[str, Any]) -> str:
    """The summary for people."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary["faults_by_kind"].items())
    return (
        f"{summary['simulated_hours']:g} hours over {len(summary['seeds'])} seeds,"
        f" {summary['hours_per_second']:g} hours a second and core\n"
        f"{summary['faults']} faults: {kinds}\n"
        f"{summary['violations']} violations"
    )


def progress(report: Report) -> str:
    """A line for each seed; for one that failed, what was broken and how to see it again."""
    line = (
        f"seed {report.seed}: {report.hours:g} h in {report.seconds:.1f} s,"
        f" {sum(report.faults.values())} faults, {report.violation_count} violations"
    )
    for at, promise, text in report.violations[:3]:
        line += f"\n  {moment(EPOCH + at).strip()} promise {promise}: {text}"
    if report.violations:
        line += f"\n  replay: saia-engine simulate --hours {report.hours:g} --seeds 1 --seed {report.seed} --trace"
    return line
