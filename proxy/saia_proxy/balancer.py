"""Which instance gets a request: a pure choice among those that may."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

ADMIT_SLACK_S = 1.0
"""A request takes this long to reach the gate: so close to `admit_until`, others are better."""
CLOCK_SKEW_S = 60.0
"""Our clock and the cluster's may differ by this much; the gate has the last word on `admit_until`."""
AFFINITY_BOUND = 1.25
"""Affinity yields where its instance has so many times the average under way (consistent hashing with bounded loads,
Mirrokni, Thorup, Zadimoghaddam 2018)."""


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
    in_flight: Callable[[str], int],
    doubtful: Callable[[Target], bool] = lambda target: False,
    draining: Collection[str] = (),
    tried: Collection[Target] = (),
    affinity: bytes = b"",
    sample: Callable[[Sequence[Target], int], list[Target]] = random.sample,
) -> Target | None:
    """The target for a request, or None.

    Of two at random the one with fewer requests under way ("the power of two choices", Mitzenmacher 2001): several
    proxies that know nothing of each other's do not all run to the same. With an affinity, the instance to which
    it always goes, unless that has much more to do than the others. `draining` are instances that said so since
    the last routes. Targets that are doubtful, or at the edge of `admit_until`, get a request only where nothing
    better is left.
    """
    good: list[Target] = []
    poor: list[Target] = []
    for target in targets:
        if target.draining or target.instance in draining or (tried and target in tried):
            continue
        left_s = target.admit_until - now
        if left_s <= -CLOCK_SKEW_S:
            continue
        (poor if left_s <= ADMIT_SLACK_S or doubtful(target) else good).append(target)
    candidates = good or poor
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    if affinity:
        return _faithful(candidates, affinity, in_flight, sample)
    one, other = sample(candidates, 2)
    return other if in_flight(other.instance) < in_flight(one.instance) else one


def _faithful(
    candidates: Sequence[Target],
    affinity: bytes,
    in_flight: Callable[[str], int],
    sample: Callable[[Sequence[Target], int], list[Target]],
) -> Target:
    """By rendezvous hashing: who comes or goes moves only its own share."""
    instances = {target.instance for target in candidates}
    most = AFFINITY_BOUND * (sum(map(in_flight, instances)) + 1) / len(instances)
    ranked = sorted(instances, key=lambda instance: _weight(affinity, instance), reverse=True)
    chosen = next(instance for instance in ranked if in_flight(instance) < most)
    ways = [target for target in candidates if target.instance == chosen]
    return sample(ways, 1)[0]


def _weight(affinity: bytes, instance: str) -> bytes:
    return blake2b(affinity + b"\0" + instance.encode(), digest_size=8).digest()
