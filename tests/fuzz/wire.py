"""Harmed bytes for everything that reads bytes from another host: `python -m tests.fuzz.wire --seconds 60`.

Each case is made of the seed and its number alone. It fails on any exception but the named ones, a broken promise of
its target, a hang, or memory that grows; then the command that repeats it is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.targets import TARGETS

HANG_S = 20
WARM_CASES = 400
GROWTH_MIB = 80


class Hang(BaseException):
    """One case took longer than any may."""


@dataclass
class Findings:
    cases: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    grown_mib: float = 0.0


def fuzz(
    seed: int,
    *,
    seconds: float = float("inf"),
    cases: float = float("inf"),
    targets: Iterable[str] = TARGETS,
    most_failures: int = 5,
) -> Findings:
    """Cases of all targets in turn, until the time is over or there were so many."""
    findings, names = Findings(), list(targets)
    deadline, number, warm = time.monotonic() + seconds, 0, 0.0
    while number < cases and time.monotonic() < deadline and len(findings.failures) < most_failures:
        name = names[number % len(names)]
        fault = run_case(seed, number, name)
        findings.cases[name] += 1
        if fault:
            findings.failures.append(f"{fault}\n{replay(seed, number, name)}")
        number += 1
        if number == WARM_CASES:
            warm = _memory_mib()
    if number > WARM_CASES:
        findings.grown_mib = _memory_mib() - warm
        if findings.grown_mib > GROWTH_MIB:
            findings.failures.append(f"memory grew by {findings.grown_mib:.0f} MiB in {number} cases")
    return findings


def replay(seed: int, number: int, target: str) -> str:
    return f"again: python -m tests.fuzz.wire --seed {seed} --case {number} --target {target}"


def run_case(seed: int, number: int, target: str) -> str:
    """What went wrong, or nothing."""
    previous = signal.signal(signal.SIGALRM, _hangs)
    signal.setitimer(signal.ITIMER_REAL, HANG_S, 0.2)  # and again, while what hangs is cleared away
    try:
        return asyncio.run(_case(random.Random(f"{seed} {number} {target}"), target))
    except (Exception, Hang):
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


async def _case(dice: random.Random, target: str) -> str:
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    await TARGETS[target](dice)
    if dice.random() < 0.02:
        gc.collect()  # a failed task that nobody asked is told of when it goes
    return "".join(f"unseen: {context}" for context in unseen)


def _hangs(*_: object) -> None:
    raise Hang(f"a case took longer than {HANG_S} s")


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--target", choices=TARGETS)
    given = parser.parse_args()
    targets = [given.target] if given.target else list(TARGETS)
    if given.case is not None:
        fault = run_case(given.seed, given.case, targets[given.case % len(targets)])
        print(fault or "nothing wrong")
        return bool(fault)
    findings = fuzz(given.seed, seconds=given.seconds, targets=targets)
    for failure in findings.failures:
        print(failure, end="\n\n")
    counts = ", ".join(f"{name} {count}" for name, count in findings.cases.items())
    print(
        f"seed {given.seed}: {counts}; memory +{findings.grown_mib:.0f} MiB; {len(findings.failures)} failures"
    )
    return bool(findings.failures)


if __name__ == "__main__":
    sys.exit(main())
