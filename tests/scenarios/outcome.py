"""What a scenario comes to: the part that a real and a simulated site must agree on."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Self

from tests.scenarios.port import Event, Instance, Job, Site, Watch

ENDED = ("stopped", "failed")
SETTLE_LIMIT_S = 60.0
STATES = {
    **{f"instance-{state}": state for state in ("pending", "starting", "ready", "lost", "stopped", "failed")},
    "drain": "draining",
}
"""Events that tell of a state. `unready` is left out: how long it lasts, and whether at all, is chance."""
TELLING = frozenset(
    "slurm-unavailable submit-unknown mass-absence unknown-job adopted service-down submits-exhausted"
    " crash-loop replacement-late drain-overdue cancel-failed".split()
)
"""Alarms and warnings that do not depend on how fast the machine is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    live: int
    """Jobs at the end."""
    doubled: int
    """Jobs beyond one for each slot and each replacement that was due, and names that two jobs had at once."""
    orphans: int
    """Jobs at the end that no instance claims."""
    lost: int
    """Requests that failed though a healthy instance was there."""
    states: tuple[str, ...]
    """Of the instance that was hit, in order."""
    alarms: frozenset[str] = frozenset()
    """Codes of what was raised meanwhile."""


class Trial:
    """A scenario's time on a site, from one quiet moment to the next."""

    def __init__(self, site: Site, watch: Watch, mark: int, first: tuple[Instance, ...]) -> None:
        self.first = first
        """The ready instances at its beginning, the oldest first."""
        self.requests = 0
        self.cut = 0
        self._site = site
        self._watch = watch
        self._mark = mark

    @classmethod
    async def begin(cls, site: Site) -> Self:
        await settled(site, site.replicas)
        ready = tuple(i for i in await site.instances() if i.state == "ready")
        mark = max((event.seq for event in await site.events()), default=0)
        return cls(site, await site.watch(), mark, ready)

    async def give_up(self) -> None:
        """After a scenario that did not come to its end."""
        await self._watch.end()

    async def events(self, subject: str = "") -> list[Event]:
        """Since its beginning."""
        found = [event for event in await self._site.events() if event.seq > self._mark]
        return [event for event in found if not subject or event.subject == subject]

    async def said(self, code: str) -> bool:
        return any(event.code == code for event in await self.events())

    async def end(self, hit: str, allowed: int, but_for: Container[str] = ()) -> Outcome:
        """Waits until all is quiet. `allowed` is how many live jobs there may be at once.

        `but_for` are states of `hit` that are left out, for chance decides whether it has them.
        """
        site = self._site
        await settled(site, site.replicas)
        watched = await self._watch.end()
        self.requests, self.cut = watched.requests, watched.cut
        jobs, instances = await site.jobs(), await site.instances()
        told = await self.events()
        states = [STATES[e.code] for e in told if e.subject == hit and e.code in STATES]
        return Outcome(
            live=len(jobs),
            doubled=watched.twins + max(0, watched.most_live - allowed),
            orphans=len(orphans(jobs, instances)),
            lost=watched.lost,
            states=tuple(state for state in states if state not in but_for),
            alarms=frozenset(e.code for e in told if e.severity != "info" and e.code in TELLING),
        )


async def settled(site: Site, replicas: int, limit_s: float = SETTLE_LIMIT_S) -> None:
    """So many are ready, no other lives, and Slurm knows of no more."""

    async def quiet() -> bool:
        live = [i.state for i in await site.instances() if i.state not in ENDED]
        return live == ["ready"] * replicas and len(await site.jobs()) == replicas

    await site.wait_until(f"{replicas} ready instances and no others", quiet, limit_s)


def orphans(jobs: Iterable[Job], instances: Iterable[Instance]) -> list[Job]:
    """Live jobs that no live instance claims."""
    claimed = {i.job_id for i in instances if i.state not in ENDED}
    return [job for job in jobs if job.id not in claimed]
