"""One hand-over, and an engine that is killed at each boundary of an effect in it, once or twice.

As a program: `python -m tests.simulation.crashes [--pairs] [--jobs N]`, which counts doubled and orphaned jobs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from saia_engine.edge import logs
from saia_engine.simulator.agents import Character
from saia_engine.simulator.hosts import EngineProcess
from saia_engine.simulator.oracle import Oracle
from saia_engine.simulator.site import EPOCH, USER
from saia_engine.simulator.truth import Event, JobAccepted, JobChanged
from saia_engine.simulator.world import World

SERVICE = {
    "command": ["serve"],
    "replicas": 1,
    "min_available": 0,
    "gpus": 1,
    "time_limit": "15m",
    "lead_floor": "60s",
    "min_ready": "5s",
    "drain_deadline": "60s",
    "admission_margin": "30s",
    "safety_margin": "30s",
    "stagger": False,
    "partition": "gpu",
}
BEGINS_S, ENDS_S = 600.0, 900.0
"""The hand-over lies in between."""
SETTLED_S = 1150.0
"""By then all is as it should be, before the next one begins."""
RESTART_S = 7.0
SEED = 11


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run with its crashes came to."""

    crashes: tuple[int, ...]
    points: tuple[str, ...]
    """At which boundaries the engine died."""
    most_live: int
    live_at_end: int
    orphaned: int
    """Live jobs that no live record of the engine's claims."""
    violations: tuple[str, ...]
    boundaries: int
    """Of the last engine, since its start or the beginning of the hand-over."""

    @property
    def sound(self) -> bool:
        return self.most_live <= 2 and self.live_at_end == 1 and not self.orphaned and not self.violations


class _Jobs:
    """How many jobs of ours live at once."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.most = 0

    def see(self, event: Event) -> None:
        if isinstance(event, JobAccepted) and event.user == USER:
            self.live.add(event.job_id)
        elif isinstance(event, JobChanged) and event.state not in ("PENDING", "RUNNING"):
            self.live.discard(event.job_id)
        self.most = max(self.most, len(self.live))

    def finish(self, at: float) -> None:
        pass


@logs.silenced()
def run(crashes: tuple[int, ...]) -> Outcome:
    """Kill the engine at these boundaries: the first counted from the hand-over's beginning, each further one
    from the start of the engine that came after."""
    oracle, jobs = Oracle(), _Jobs()
    world = World(SEED, [oracle, jobs], tables={"chat": dict(SERVICE)}, foreign_jobs=0)
    world.agents.characters = {"chat": Character(20.0)}
    left, points = list(crashes), []

    def ended(engine: EngineProcess, how: str) -> None:
        points.append(engine.last_point)
        world.site.after(RESTART_S, start)

    def start() -> None:
        engine = EngineProcess(world.hosts["a"], world.around, ended)
        if left:
            engine.crash_at = left.pop(0)
        if engine.start():
            world.engines.append(engine)

    world.on_engine_end = ended
    world.begin()
    world.run_until(EPOCH + BEGINS_S)
    assert world.engine is not None
    first = world.engine.boundaries
    if left:
        world.engine.crash_at = left.pop(0)
    world.run_until(EPOCH + ENDS_S)
    last = world.engine  # none where it has just died for the last time
    boundaries = last.boundaries - (0 if crashes else first) if last is not None else 0
    world.run_until(EPOCH + SETTLED_S)
    oracle.finish(world.site.now)
    live = [job for job in world.cluster.jobs.values() if job.live]
    claimed = {i.job_id for i in world.engine.reconciler.instances.values() if i.live}  # type: ignore[union-attr]
    outcome = Outcome(
        crashes,
        tuple(points),
        jobs.most,
        len(live),
        sum(1 for job in live if job.id not in claimed),
        tuple(f"promise {v.promise}: {v.text}" for v in oracle.violations),
        boundaries,
    )
    world.on_engine_end = lambda engine, how: None
    for engine in world.engines:
        engine.die("stopped")
    world.close()
    return outcome


def singles() -> list[tuple[int, ...]]:
    """Each boundary of a whole hand-over."""
    return [(number,) for number in range(1, run(()).boundaries + 1)]


def pairs(every: int = 1) -> Iterator[tuple[int, ...]]:
    """Each boundary, and then each boundary of the engine that comes after it; or only so many of them."""
    count = 0
    for (first,) in singles():
        for second in range(1, run((first,)).boundaries + 1):
            count += 1
            if count % every == 0:
                yield first, second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    todo = [*singles(), *(pairs() if options.pairs else ())]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        outcomes = list(pool.imap_unordered(run, todo, chunksize=8))
    bad = [outcome for outcome in outcomes if not outcome.sound]
    for outcome in bad[:20]:
        print(json.dumps(asdict(outcome)))
    print(
        json.dumps(
            {
                "boundaries": sum(1 for crashes in todo if len(crashes) == 1),
                "pairs": sum(1 for crashes in todo if len(crashes) == 2),
                "doubled": sum(1 for o in outcomes if o.most_live > 2 or o.live_at_end > 1),
                "orphaned": sum(o.orphaned for o in outcomes),
                "lost": sum(1 for o in outcomes if o.live_at_end < 1),
                "violations": sum(len(o.violations) for o in outcomes),
                "points": sorted({point for o in outcomes for point in o.points}),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
