"""Which instance gets a request: a pure choice among those that may."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

ADMIT_SLACK_S = 1.0
"""A request takes this long to reach the gate: so close to `admit_until`, others are better."""
CLOCK_SKEW_S = 60.0
"""Our clock and the cluster's may differ by this much; the gate has the last word on `admit_until`."""


@dataclass(frozen=True, slots=True)
class Target:
    """One instance, reached through one upstream."""

    upstream: str
    instance: str
    service: str
    admit_until: float
    draining: bool = False


def choose(
    targets: Iterable[Target],
    *,
    now: float,
    in_flight: Mapping[str, int],
    draining: Collection[str] = (),
    resting: Collection[Target] = (),
    tried: Collection[Target] = (),
    pick: Callable[[Sequence[Target]], Target] = random.choice,
) -> Target | None:
    """The target with the fewest of our requests in flight, or None.

    `draining` are instances that said so since the last routes, `resting` targets that just refused: these,
    and targets at the edge of `admit_until`, get a request only where nothing better is left.
    """
    best: list[Target] = []
    best_rank: tuple[bool, int] | None = None
    for target in targets:
        if target.draining or target in tried or target.instance in draining:
            continue
        left_s = target.admit_until - now
        if left_s <= -CLOCK_SKEW_S:
            continue
        rank = (left_s <= ADMIT_SLACK_S or target in resting, in_flight.get(target.instance, 0))
        if best_rank is None or rank < best_rank:
            best, best_rank = [target], rank
        elif rank == best_rank:
            best.append(target)
    if not best:
        return None
    return best[0] if len(best) == 1 else pick(best)
