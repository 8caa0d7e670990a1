"""Which loads are measured, how often and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.job import DOWNLOADS, REQUESTS, STREAMS, UPLOADS, Load

SLOW_PATHS = ("litellm", "exec")
SLOW_LOADS = ("1 client", "16 clients", "64 clients", "100 slow streams")
"""The only ones that those paths can bear."""
SLOW_LEAST_S = 1.5
"""In less they answer too few requests to say anything."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds of each measurement, rounds of each kind, and what is measured at all."""

    small_s: float
    streams_s: float
    bodies_s: float
    rounds: int
    stream_rounds: int
    body_rounds: int
    names: tuple[str, ...] = ()
    """Of the loads; empty for all."""


QUICK = Effort(
    small_s=0.5,
    streams_s=0.6,
    bodies_s=0.4,
    rounds=2,
    stream_rounds=1,
    body_rounds=1,
    names=(
        "1 client",
        "64 clients",
        "300 streams",
        "1000 streams",
        "1MB up",
        "1MB down",
        "50MB up",
        "50MB down",
    ),
)
WHOLE = Effort(small_s=1.5, streams_s=2.0, bodies_s=1.0, rounds=5, stream_rounds=3, body_rounds=3)


def sections(effort: Effort) -> list[list[Load]]:
    """Each is measured on a site of its own: many channels leave ssh slower, and large bodies the proxy larger."""
    found = (_small(effort), _streams(effort), _bodies(effort))
    return [[load for load in loads if not effort.names or load.name in effort.names] for loads in found]


def _small(effort: Effort) -> Iterator[Load]:
    for clients in (1, 16, 64, 256):
        yield Load(f"{clients} client{'s' * (clients > 1)}", REQUESTS, clients, effort.small_s)


def _streams(effort: Effort) -> Iterator[Load]:
    def load(count: int, rate: int, opens_per_s: int, words: str = "streams") -> Load:
        return Load(f"{count} {words}", STREAMS, count, effort.streams_s, rate=rate, opens_per_s=opens_per_s)

    yield load(100, 5, 25, "slow streams")
    for count in (100, 150, 300):
        yield load(count, 50, 250)
    yield load(1000, 5, 400)


def _bodies(effort: Effort) -> Iterator[Load]:
    for name, size, clients in (("1kB", 1_000, 4), ("1MB", 1_000_000, 4), ("50MB", 50_000_000, 2)):
        yield Load(f"{name} up", UPLOADS, clients, effort.bodies_s, size=size)
        yield Load(f"{name} down", DOWNLOADS, clients, effort.bodies_s, size=size)


def rounds(load: Load, effort: Effort) -> int:
    if load.kind == STREAMS:
        return effort.stream_rounds
    return effort.rounds if load.kind == REQUESTS else effort.body_rounds


def chosen(loads: Sequence[Load], names: Sequence[str]) -> list[Load]:
    """Those of which some name is a part, all of them without names."""
    return [load for load in loads if not names or any(name in load.name for name in names)]


def bears(path: str, load: Load) -> bool:
    return path not in SLOW_PATHS or load.name in SLOW_LOADS


def fit(path: str, load: Load) -> Load:
    """The load as this path is measured at it."""
    if path in SLOW_PATHS and load.kind == REQUESTS:
        return replace(load, seconds=max(load.seconds, SLOW_LEAST_S))
    return load


def turn(paths: Sequence[str], number: int) -> list[str]:
    """The order of a round: each begins with another, so that none always runs on a warm or a tired machine."""
    shift = number % len(paths) if paths else 0
    return [*paths[shift:], *paths[:shift]]
