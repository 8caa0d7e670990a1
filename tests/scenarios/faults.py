"""`make test-slurm-faults N=20`: each fault so many times on real Slurm, and the figures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

from tests.e2e.installed import install
from tests.scenarios.pool import Result, run
from tests.scenarios.scripts import FAULTS, SCENARIOS
from tests.slurm.versions import LATER, NATIVE

VERSIONS = {"native": (NATIVE,), "24.11": (LATER,), "both": (NATIVE, LATER)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=20, metavar="N", help="of each fault")
    parser.add_argument("--sites", type=int, default=6, metavar="N", help="clusters side by side")
    parser.add_argument("--slurm", default="both", choices=VERSIONS)
    parser.add_argument("--faults", nargs="+", default=FAULTS, choices=SCENARIOS, metavar="NAME")
    options = parser.parse_args()
    versions = VERSIONS[options.slurm]
    rounds = [name for _ in range(options.count) for name in options.faults]
    # In turn, so that each version meets each fault.
    work = [
        (name, versions[(index // len(options.faults)) % len(versions)]) for index, name in enumerate(rounds)
    ]
    sites = [versions[index % len(versions)] for index in range(options.sites)]
    began = time.monotonic()
    results = run(work, sites, install(), tell)
    return conclude(results, time.monotonic() - began)


def tell(result: Result) -> None:
    verdict = "as expected" if result.as_expected else f"NOT AS EXPECTED: {result.outcome}\n{result.fault}"
    print(f"{result.scenario} on {result.version.name}, {result.seconds:.0f} s: {verdict}", flush=True)


def conclude(results: Iterable[Result], seconds: float) -> int:
    """Prints the table; 0 if nothing was doubled, orphaned or lost, and all went as expected."""
    rows = list(results)
    head = ("runs", "expected", "doubled", "orphans", "lost", "cut", "requests")
    print(f"\n{'fault':<22}" + "".join(f"{word:>10}" for word in head))
    total = [0] * len(head)
    for name in dict.fromkeys(row.scenario for row in rows):
        figures = figures_of([row for row in rows if row.scenario == name])
        total = [a + b for a, b in zip(total, figures, strict=True)]
        print(f"{name:<22}" + "".join(f"{figure:>10}" for figure in figures))
    print(f"{'in all':<22}" + "".join(f"{figure:>10}" for figure in total))
    print(
        f"lost: though a healthy instance was there; cut: under way on the instance that was hit. {seconds:.0f} s"
    )
    runs, as_expected, doubled, orphans, lost = total[:5]
    return 0 if runs == as_expected and doubled == orphans == lost == 0 else 1


def figures_of(rows: list[Result]) -> list[int]:
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    return [
        len(rows),
        sum(row.as_expected for row in rows),
        sum(outcome.doubled for outcome in outcomes),
        sum(outcome.orphans for outcome in outcomes),
        sum(outcome.lost for outcome in outcomes),
        sum(row.cut for row in rows),
        sum(row.requests for row in rows),
    ]


if __name__ == "__main__":
    sys.exit(main())
