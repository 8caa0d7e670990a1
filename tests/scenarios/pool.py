"""Many scenarios on a few real sites side by side: they wait far more than they compute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.e2e.installed import Installed
from tests.scenarios.outcome import Outcome, Trial
from tests.scenarios.real import RealSite
from tests.scenarios.scripts import SCENARIOS
from tests.slurm.versions import Version

Work = tuple[str, Version]
"""A scenario's name, and the Slurm to run it on."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one run of a scenario went; `outcome` is None where it did not come to its end, and `fault` says why."""

    scenario: str
    version: Version
    outcome: Outcome | None
    seconds: float
    fault: str = ""
    requests: int = 0
    cut: int = 0

    @property
    def as_expected(self) -> bool:
        return self.outcome == SCENARIOS[self.scenario].expected


def run(
    work: Iterable[Work],
    sites: Sequence[Version],
    installed: Installed,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Each piece of work once, on as many sites at once as `sites` names versions for."""
    return asyncio.run(_run(tuple(work), sites, installed, report))


async def _run(
    work: tuple[Work, ...],
    sites: Sequence[Version],
    installed: Installed,
    report: Callable[[Result], None],
) -> list[Result]:
    results: list[Result] = []
    queues = {version: deque(name for name, wanted in work if wanted == version) for version in set(sites)}
    assert sum(map(len, queues.values())) == len(work), "no site for some of the work"

    def note(result: Result) -> None:
        results.append(result)
        report(result)

    async with asyncio.TaskGroup() as group:
        for version in sites:
            group.create_task(_serve(queues[version], version, installed, note))
    return results


async def _serve(
    queue: deque[str], version: Version, installed: Installed, note: Callable[[Result], None]
) -> None:
    """Until nothing is left. A site that a scenario has left its mark on is given up for a fresh one."""
    while queue:
        began = time.monotonic()
        try:
            async with RealSite(version, installed) as site:
                while queue:
                    result = await _one(queue.popleft(), site)
                    note(result)
                    if SCENARIOS[result.scenario].remembered or not result.as_expected:
                        break
        except Exception as exc:  # the other sites go on
            if queue:
                fault = f"its site: {type(exc).__name__}: {exc}"
                note(Result(queue.popleft(), version, None, time.monotonic() - began, fault))


async def _one(name: str, site: RealSite) -> Result:
    began = time.monotonic()
    trial = None
    try:
        trial = await Trial.begin(site)
        outcome = await SCENARIOS[name].run(site, trial)
    except Exception as exc:  # the other sites go on
        if trial is not None:
            await trial.give_up()
        fault = f"{type(exc).__name__}: {exc}"
        return Result(name, site.version, None, time.monotonic() - began, fault)
    seconds = time.monotonic() - began
    fault = "" if outcome == SCENARIOS[name].expected else await site.explain()
    return Result(name, site.version, outcome, seconds, fault, trial.requests, trial.cut)
