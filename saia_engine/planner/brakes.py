"""What holds launches and cancels back: the hourly bound, the crash-loop back-off, and the freeze."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from saia_engine.model import Instance, Launch, Reason, State
from saia_engine.planner.moment import Moment

HOUR_S = 3600.0
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 300.0
STEADY_S = 600.0
"""Who lived longer was no crash."""
SERVICE_SHARE = 0.5
"""Of the hourly bound: so much is any one service's at most, so that a crash loop leaves room for others."""


class Budget:
    """Submits per hour, per service and in all, and crash-loop back-off (promise 16)."""

    def __init__(
        self, by_service: Mapping[str, Sequence[Instance]], per_hour: int, services: int, moment: Moment
    ) -> None:
        """`by_service` are the records of all instances."""
        self._by_service = by_service
        self._used = {
            name: sum(1 for i in own if not moment.reached(i.created_at + HOUR_S))
            for name, own in by_service.items()
        }
        self._left = per_hour - sum(self._used.values())
        self._share = max(1, int(per_hour * SERVICE_SHARE)) if services > 1 else per_hour
        self._moment = moment
        self.exhausted: set[str] = set()
        """Who had to wait for the bound: services, or `cluster`."""

    def refuses(self, launch: Launch) -> Reason | None:
        """Why this launch must wait; None grants it."""
        service = launch.service
        used = self._used.get(service, 0)
        # Each revision by itself: a mended one, or the good one of before, need not wait for a bad one's end.
        own = (i for i in self._by_service.get(service, ()) if i.revision == launch.revision)
        resume_at = backoff_until(own)
        if not self._moment.reached(resume_at):
            return Reason(
                "crash-loop-back-off",
                f"{service}: its last instances failed; next launch in {resume_at - self._moment.now:.0f} s",
                (("until", resume_at),),
            )
        spent = "cluster" if self._left <= 0 else service if used >= self._share else ""
        if spent:
            self.exhausted.add(spent)
            return Reason("submits-per-hour", f"{service}: the hourly bound on submits is reached")
        self._left -= 1
        self._used[service] = used + 1
        return None


def backoff_until(instances: Iterable[Instance]) -> float:
    """When a service's next launch is allowed: 10 s after a failure, doubled for each in a row, 300 s at most.

    `instances` are those of one revision of a service. One that served and then failed early counts too, but is
    replaced at once when it is the first. What Slurm has lost without a word neither counts nor forgives.
    """
    told = (i for i in instances if i.ended_at is not None and not i.vanished)
    ended = sorted(told, key=lambda i: i.ended_at or 0.0, reverse=True)
    failures, counted_at = 0, float("inf")
    for instance in ended:
        if not _crashed(instance):
            break
        ended_at = instance.ended_at or 0.0
        if counted_at - ended_at > BACKOFF_FIRST_S:  # replicas that fall together are one failure
            failures, counted_at = failures + 1, ended_at
    if failures == 0 or (failures == 1 and ended[0].served):
        return 0.0
    return (ended[0].ended_at or 0.0) + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (failures - 1))


def _crashed(instance: Instance) -> bool:
    if instance.state is not State.FAILED:
        return False
    if instance.cancelled_by_others:
        return True
    # Slurm's clock may be behind ours: no job started before it was thought of.
    lived_s = (instance.ended_at or 0.0) - max(instance.started_at or 0.0, instance.created_at)
    return not instance.served or lived_s < STEADY_S


def mass_absent(instances: Iterable[Instance], unfrozen_at: float = 0.0) -> frozenset[str]:
    """Whose jobs are gone at once without a word: at least two, and half of all known; else none (promise 7).

    Each stays `lost` until its agent is silent and two good snapshots agree; then this shrinks by itself. An
    operator's word at `unfrozen_at` ends it for all that were gone by then.
    """
    known = [i for i in instances if i.live and (i.submit_time or i.node) and i.cancel_sent_at is None]
    gone = [
        i
        for i in known
        if i.absent_since is not None
        and i.absent_since > unfrozen_at
        and (i.end_time is None or i.absent_since < i.end_time)
    ]
    return frozenset(i.id for i in gone) if len(gone) >= 2 and 2 * len(gone) >= len(known) else frozenset()
