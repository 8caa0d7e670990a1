"""How long before it is needed a replacement must be submitted: learned from how long past starts took.

    lead = (queue wait + start to ready) * MARGIN, between lead_floor and lead_cap

Both terms are high quantiles of what the journal remembers, with weights that halve every HALF_LIFE_S.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from saia_engine.model import Instance, LaunchSpec, Service, State, Timing, WaitSample
from saia_engine.planner import timeline
from saia_engine.planner.moment import Moment

QUANTILE = 0.9
MARGIN = 1.2
HALF_LIFE_S = 3 * 86400.0
LONGEST_SHARE = 0.75
"""No learned lead asks for a replacement in the first quarter of a life: else each would be replaced as soon as it
serves."""
GROWS_S = 5.0
"""A wait that is longer than any known is measured so often."""
REMEMBER_S = 30 * 86400.0
"""Older starts weigh less than a thousandth: not asked for."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What past starts of a service took (s); None where none is known."""

    queue_s: float | None = None
    load_s: float | None = None
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Lead:
    """A service's lead time now (s), and how it came about."""

    seconds: float
    because: str
    queue_s: float = 0.0
    """The part of it that is expected to pass in Slurm's queue."""
    capped: bool = False
    """More would be needed than is allowed: hand-overs may come late."""


def shape(spec: LaunchSpec) -> str:
    """Jobs of one shape wait alike: partition, QOS and resources."""
    where = spec.partition + (f"/{spec.qos}" if spec.qos else "")
    return f"{where or 'default'} {spec.nodes}x{spec.gres or 'cpu'},{spec.cpus}"


def learn(alike: Iterable[WaitSample], own: Iterable[WaitSample], now: float) -> Learned:
    """Queue waits of all jobs of its shape (`alike`), loads of the service itself (`own`)."""
    queue = [(sample.queue_s, _weight(sample, now)) for sample in alike]
    load = [(sample.load_s, _weight(sample, now)) for sample in own if sample.load_s is not None]
    return Learned(_quantile(queue), _quantile(load), len(load))


def _weight(sample: WaitSample, now: float) -> float:
    return 0.5 ** (max(0.0, now - sample.at) / HALF_LIFE_S)


def lead(
    learned: Learned, service: Service, waiting: Sequence[Instance], poll_s: float, moment: Moment
) -> Lead:
    """`waiting` are instances of its shape that are in the queue now: their waits count as soon as they are longer.

    A wait is what has passed, or what Slurm's own forecast says will have.
    """
    timing = service.timing
    counted = [i for i in waiting if i.state is State.PENDING and i.submit_time and not held(i)]
    in_queue = max((_wait(i, moment.now) for i in counted), default=0.0)
    queue_s = max(learned.queue_s or 0.0, in_queue)
    load_s = learned.load_s or 0.0
    needed = (queue_s + load_s) * MARGIN
    cap = longest(service, poll_s)
    grows_from = max(learned.queue_s or 0.0, timing.lead_floor_s / MARGIN - load_s)
    for instance in counted:
        _grows(instance.created_at + grows_from, instance.created_at + cap / MARGIN - load_s, moment)
    seconds = min(max(needed, timing.lead_floor_s), cap)
    if learned.queue_s is None and learned.load_s is None and not in_queue:
        told = "no start is known yet"
    else:
        source = "a job that waits now" if in_queue > (learned.queue_s or 0.0) else "past waits"
        told = (
            f"queue {queue_s:.0f} s ({source}) + start {load_s:.0f} s ({learned.starts} known), by {MARGIN:g}"
        )
    if needed > cap:
        told += f"; capped at {cap:.0f} s"
    elif needed < timing.lead_floor_s:
        told += f"; lead_floor is {timing.lead_floor_s:.0f} s"
    return Lead(seconds, told, queue_s, needed > cap)


def longest(service: Service, poll_s: float) -> float:
    """The most a lead may be (s): lead_cap, and what leaves the first quarter of a life alone."""
    timing = service.timing
    return within(timing.lead_cap_s or float("inf"), timing, service.launch.time_limit_s, poll_s)


def within(seconds: float, timing: Timing, limit_s: float, poll_s: float) -> float:
    """What remains of a lead where the job itself may run only so long, as one that was fitted or clipped."""
    others_s = timeline.shortest_time_limit(timing, poll_s) - timing.lead_floor_s
    return max(timing.lead_floor_s, min(seconds, LONGEST_SHARE * limit_s - others_s))


def sample(instance: Instance, at: float, watched: bool) -> WaitSample | None:
    """What the start of an instance teaches; None where it teaches nothing.

    A requeued job waits for its BeginTime, a held one for somebody's word: neither tells of the queue. Unless its
    start was `watched`, it may have been ready long before we knew. Slurm's clock may jump: nothing took longer
    than by ours.
    """
    if instance.generation or instance.held or instance.started_at is None or not instance.submit_time:
        return None
    all_s = max(0.0, at - instance.created_at)
    load_s = None
    if instance.first_ready_at is not None and watched:
        load_s = min(max(0.0, instance.first_ready_at - instance.started_at), all_s)
    queue_s = min(max(0.0, instance.started_at - instance.submit_time), all_s)
    return WaitSample(at, instance.service, shape(instance.spec), queue_s, load_s)


def _wait(instance: Instance, now: float) -> float:
    """What has passed by our clock, what will by Slurm's."""
    return max(0.0, now - instance.created_at, (instance.forecast_at or 0.0) - instance.submit_time)


def _grows(since: float, until: float, moment: Moment) -> None:
    """Between the floor and the cap a lead grows while a job waits."""
    if moment.reached(since) and not moment.passed(until):
        moment.look_again_in(GROWS_S)


def held(instance: Instance) -> bool:
    """Somebody holds its job back: its wait says nothing about the queue."""
    return instance.reason.startswith(("JobHeld", "Dependency", "BeginTime"))


def _quantile(weighted: list[tuple[float, float]]) -> float | None:
    """The least value that QUANTILE of all weight does not exceed."""
    total, below = sum(weight for _, weight in weighted), 0.0
    for value, weight in sorted(weighted):
        below += weight
        if below >= QUANTILE * total:
            return value
    return None
