"""Lets the simulator find the planted bugs: no scenario, only its random faults.

    python -m tests.simulation.planted.hunt [--hours 500] [--seeds 5] [--resume FILE] [NAME ...]
    python -m tests.simulation.planted.hunt --known [NAME ...]

The first prints after how many simulated hours each seed showed each bug, and the median. The second looks for the
quickest catches and writes them to `known.json`, for the tests to replay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.soil import Bug, plant

HOURS = 500.0
SEEDS = 5
FIRST_LOOK_H = 60.0
"""Most bugs show by then: a seed is followed for longer only where the median asks for it."""
KNOWN = Path(__file__).parent / "known.json"
KNOWN_WITHIN_H = 40.0
KNOWN_KEPT = 3
"""Of each bug: should one not show it any more, the next one may."""


@dataclass(frozen=True, slots=True)
class Catch:
    """What a seed's run showed of a bug, or of the sound engine where `bug` is empty."""

    bug: str
    mark: str
    """Of the bug's text: a changed one is looked for anew."""
    seed: int
    hours: float
    """When it was caught, or how long it was looked for."""
    promise: int = -1
    """The first that was broken; -1: none."""
    text: str = ""
    others: tuple[int, ...] = ()
    """Promises broken before, which are none of the bug's."""
    seconds: float = 0.0
    breaches: tuple[tuple[float, int], ...] = ()
    """Of the sound engine: when it broke which promise, or seemed to."""

    @property
    def caught(self) -> bool:
        return self.promise >= 0


def run(bug: Bug | None, seed: int, until_h: float) -> Catch:
    """The beginning of the seed's 500 hours, in this process, in which the bug stays planted."""
    if bug is not None:
        plant(bug)
    from saia_engine.simulator import oracle, run
    from saia_engine.simulator.truth import Violation

    class Ear(oracle.Oracle):
        """Hears only what the bug is planted for."""

        @property
        def violations(self) -> list[Violation]:
            found = super().violations
            return [v for v in found if bug is None or v.promise in bug.promises]

        @property
        def all_of_them(self) -> list[Violation]:
            return super().violations

    heard: list[Ear] = []

    def ear() -> Ear:
        heard.append(Ear())
        return heard[-1]

    run.Oracle = ear  # type: ignore[misc,assignment]
    began = time.process_time()
    run.run_seed(run.Task(seed, HOURS, until_h=until_h, first_breach=bug is not None))
    spent, found = round(time.process_time() - began, 1), heard[0].violations
    if bug is None:
        breaches = tuple((_hours(v.at), v.promise) for v in found)
        return Catch("", "", seed, until_h, seconds=spent, breaches=breaches)
    end = found[0].at if found else float("inf")
    before = {v.promise for v in heard[0].all_of_them if v.at < end and v.promise not in bug.promises}
    others = tuple(sorted(before))
    if not found:
        return Catch(bug.name, bug.mark, seed, until_h, others=others, seconds=spent)
    first = found[0]
    return Catch(bug.name, bug.mark, seed, _hours(first.at), first.promise, first.text, others, spent)


def _hours(at: float) -> float:
    from saia_engine.simulator.site import EPOCH

    return round((at - EPOCH) / 3600.0, 2)


def run_apart(name: str, seed: int, until_h: float) -> Catch:
    """In a process of its own. Raises RuntimeError where the run itself fails: that shows no bug."""
    words = [sys.executable, "-m", "tests.simulation.planted.hunt", "--one", name, str(seed), str(until_h)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise RuntimeError(f"seed {seed} with {name or 'no bug'}: the run failed: {why}")
    return read(done.stdout.splitlines()[-1])


def written(catch: Catch) -> str:
    return json.dumps({name: value for name, value in asdict(catch).items() if name != "breaches" or value})


def read(line: str) -> Catch:
    data = json.loads(line)
    pairs = tuple((at, promise) for at, promise in data.get("breaches", ()))
    return Catch(**{**data, "others": tuple(data["others"]), "breaches": pairs})


class Found:
    """What has been found so far; with a file, a hunt that was broken off goes on from there."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._catches: dict[tuple[str, str, int], Catch] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.endswith("}"):
                    self._take(read(line))

    def _take(self, catch: Catch) -> None:
        self._catches[catch.bug, catch.mark, catch.seed] = catch

    def look(self, bug: Bug | None, seed: int, until_h: float) -> Catch:
        """That seed's catch, looked for until then at least."""
        name, mark = (bug.name, bug.mark) if bug is not None else ("", "")
        known = self._catches.get((name, mark, seed))
        if known is not None and (known.hours >= until_h or (known.caught and bug is not None)):
            return known
        catch = run_apart(name, seed, until_h)
        self._take(catch)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(written(catch) + "\n")
        return catch


def median(catches: Iterable[Catch]) -> float:
    """Of an odd number; infinite where too few have caught it."""
    hours = sorted(c.hours if c.caught else float("inf") for c in catches)
    return hours[len(hours) // 2]


def hunted(
    bug: Bug, hours: float, seeds: int, look: Callable[[Bug | None, int, float], Catch]
) -> list[Catch]:
    """Each seed's catch, followed as long as it takes to know the median."""
    catches = {seed: look(bug, seed, min(hours, FIRST_LOOK_H)) for seed in range(1, seeds + 1)}
    for seed, catch in catches.items():
        enough = min(hours, median(catches.values()))
        if not catch.caught and catch.hours < enough:
            catches[seed] = look(bug, seed, enough)
    return list(catches.values())


def row(bug: Bug, catches: list[Catch]) -> str:
    """One line of the table."""
    each = " ".join(f"{c.hours:7.1f}" if c.caught else f" >{c.hours:6.1f}"[-8:] for c in catches)
    seen = ",".join(str(p) for p in sorted({c.promise for c in catches if c.caught}))
    what = f"{bug.name:28} {bug.promises[0]:7} {'race' if bug.race else '':4}"
    return f"{what} {each} {median(catches):8.1f}  {seen or '-'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="an odd number")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="what was found; it goes on from there")
    parser.add_argument("--known", action="store_true", help="write known.json")
    parser.add_argument("--one", nargs=3, metavar=("NAME", "SEED", "HOURS"), help="one run in this process")
    parser.add_argument("names", nargs="*", default=[])
    given = parser.parse_args()
    if given.one:
        name, seed, hours = given.one
        print(written(run(BUGS[name] if name else None, int(seed), float(hours))))
        return 0
    bugs = [BUGS[name] for name in given.names or BUGS]
    found = Found(given.resume)
    if given.known:
        return write_known(bugs, found)
    return hunt(bugs, given.hours, given.seeds, found)


def hunt(bugs: list[Bug], hours: float, seeds: int, found: Found) -> int:
    print(f"{'bug':28} promise      {'hours until each seed shows it':{8 * seeds - 1}}   median  shown as")
    table: dict[str, list[Catch]] = {}
    for bug in bugs:
        table[bug.name] = hunted(bug, hours, seeds, found.look)
        print(row(bug, table[bug.name]), flush=True)
    sound = _sound(table, found)
    missed = []
    for name, catches in table.items():
        good = [c if _counts(c, sound[c.seed]) else replace(c, promise=-1) for c in catches]
        if median(good) > hours:
            missed.append(name)
    print(f"{len(missed)} of {len(bugs)} were not caught{': ' + ', '.join(missed) if missed else ''}")
    return 1 if missed else 0


def _sound(table: dict[str, list[Catch]], found: Found) -> dict[int, Catch]:
    """Of each seed the run without a bug, up to its last catch."""
    last: dict[int, float] = {}
    for catch in (catch for catches in table.values() for catch in catches):
        last[catch.seed] = max(last.get(catch.seed, 0.0), catch.hours if catch.caught else 0.0)
    sound = {seed: found.look(None, seed, until_h) for seed, until_h in last.items()}
    for seed, run_of in sound.items():
        told = ", ".join(f"{promise} at {at:.1f} h" for at, promise in run_of.breaches)
        print(f"seed {seed} without a bug, {run_of.hours:.1f} h: {told or 'clean'}")
    return sound


def _counts(catch: Catch, sound: Catch) -> bool:
    """Not where the sound engine seems to break the same promise by then."""
    return not any(promise == catch.promise and at <= catch.hours for at, promise in sound.breaches)


# ---------------------------------------------------------------- known catches, for the tests


def known() -> dict[str, list[Catch]]:
    """By bug, quickest first."""
    if not KNOWN.exists():
        return {}
    data = json.loads(KNOWN.read_text(encoding="utf-8"))
    return {
        name: [Catch(name, BUGS[name].mark, seed, hours, promise) for seed, hours, promise in catches]
        for name, catches in data.items()
        if name in BUGS
    }


def quickest(bug: Bug, look: Callable[[Bug | None, int, float], Catch]) -> list[Catch]:
    """The seeds that show it first; each seed is looked at no longer than the best ones took."""
    best: list[Catch] = []
    for within_h in (KNOWN_WITHIN_H, HOURS):
        for seed in range(1, SEEDS + 1):
            catch = look(bug, seed, best[-1].hours if len(best) == KNOWN_KEPT else within_h)
            if catch.caught:
                best = sorted([*best, catch], key=lambda c: c.hours)[:KNOWN_KEPT]
            if within_h == HOURS and best:
                return best
        if best:
            return best
    return best


def write_known(bugs: list[Bug], found: Found) -> int:
    """Those of other bugs stay as they are."""
    kept = {name: catches for name, catches in known().items() if name not in {bug.name for bug in bugs}}
    for bug in bugs:
        kept[bug.name] = quickest(bug, found.look)
        print(bug.name, *(f"seed {c.seed}: {c.hours:.1f} h" for c in kept[bug.name]), sep="  ", flush=True)
    lines = [
        f"  {json.dumps(name)}: {json.dumps([[c.seed, c.hours, c.promise] for c in kept[name]])}"
        for name in BUGS
        if kept.get(name)
    ]
    KNOWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return 0 if all(kept.get(bug.name) for bug in bugs) else 1


if __name__ == "__main__":
    sys.exit(main())
