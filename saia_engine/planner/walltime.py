"""The time limit of one launch: the service's, fitted to the partition, to maintenance, and to its sisters' ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saia_engine.model import LaunchSpec, Service
from saia_engine.planner import timeline
from saia_engine.planner.foresight import FAR, Outlook
from saia_engine.planner.lead import Lead

SHORTEST_SHARE = 0.75
"""Staggering takes no more than a quarter of a time limit."""
WINDOW_MARGIN_S = 60.0
"""A clipped job ends so long before the window: Slurm counts minutes, late rather than early."""
WHOLE_MINUTES_FROM_S = 600.0
"""Slurm counts limits by the minute: from here on a limit is rounded down to whole ones."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What to submit, and why the time limit is what it is."""

    spec: LaunchSpec
    because: tuple[tuple[str, str], ...] = ()
    """Time limits that were refused, each with why."""


def fit(
    service: Service,
    lead: Lead,
    sisters_end: Sequence[float],
    outlook: Outlook,
    poll_s: float,
    now: float,
) -> Fitted:
    """`sisters_end` are the expected ends of the service's other instances."""
    spec = service.launch
    shortest_s = timeline.shortest_time_limit(service.timing, poll_s)
    limit_s, refused = float(spec.time_limit_s), []
    partition_s = outlook.longest_time_s(spec)
    if partition_s < limit_s:
        refused.append((_limit(limit_s), f"the partition allows {_limit(partition_s)}"))
        limit_s = partition_s
    start = now + lead.queue_s
    if not spec.time_min_s:  # else the scheduler fits it
        until = outlook.free_until(spec)
        room_s = until - WINDOW_MARGIN_S - start
        if until < FAR and shortest_s < _whole(room_s) < limit_s:
            refused.append((_limit(limit_s), "would reach into a reservation of all its nodes"))
            limit_s = room_s
    if service.stagger and service.replicas > 1 and sisters_end:
        apart_s = lead.seconds + service.timing.min_ready_s + service.timing.drain_deadline_s
        staggered_s = _apart(
            limit_s,
            max(shortest_s + lead.seconds - service.timing.lead_floor_s, SHORTEST_SHARE * limit_s),
            [end - start for end in sisters_end],
            min(apart_s, limit_s * (1 - SHORTEST_SHARE) / service.replicas),
        )
        if staggered_s < limit_s:
            refused.append((_limit(limit_s), "would end together with another replica"))
            limit_s = staggered_s
    if limit_s == spec.time_limit_s:
        return Fitted(_kept_off(spec, outlook))
    fitted = replace(spec, time_limit_s=int(max(1.0, _whole(limit_s))))
    if fitted.time_min_s > fitted.time_limit_s:
        fitted = replace(fitted, time_min_s=0)
    return Fitted(_kept_off(fitted, outlook), tuple(refused))


def partition_too_short(service: Service, outlook: Outlook, poll_s: float) -> str:
    """What an operator should know where no job may be long enough for a hand-over; else empty."""
    allowed_s = outlook.longest_time_s(service.launch)
    shortest_s = timeline.shortest_time_limit(service.timing, poll_s)
    if allowed_s > shortest_s:
        return ""
    return (
        f"its partition allows jobs of {_limit(allowed_s)}, and saia needs more than"
        f" {_limit(shortest_s)} to hand over in time"
    )


def _whole(limit_s: float) -> float:
    return limit_s // 60 * 60 if limit_s >= WHOLE_MINUTES_FROM_S else limit_s // 1


def _kept_off(spec: LaunchSpec, outlook: Outlook) -> LaunchSpec:
    """The same, without the excluded nodes; Slurm refuses a job that excludes a node it does not know."""
    excluded = sorted(name for name in outlook.excluded if name in outlook.nodes)
    if not excluded:
        return spec
    names = [*([spec.exclude] if spec.exclude else []), *excluded]
    return replace(spec, exclude=",".join(names))


def _apart(longest_s: float, shortest_s: float, ends: Sequence[float], apart_s: float) -> float:
    """The longest limit that keeps `apart_s` from all ends; else the one that is farthest from them."""
    if shortest_s >= longest_s:
        return longest_s
    candidates = [longest_s, *(end - apart_s for end in ends), shortest_s]
    allowed = sorted((c for c in candidates if shortest_s <= c <= longest_s), reverse=True)

    def distance(limit_s: float) -> float:
        return min(abs(limit_s - end) for end in ends)

    for limit_s in allowed:
        if distance(limit_s) >= apart_s - 0.5:
            return limit_s
    return max(allowed, key=distance)


def _limit(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes} min" if seconds >= 120 else f"{seconds:.0f} s"
