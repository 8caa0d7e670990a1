"""One measurement: what the load process is told, and what it says in the end. Both travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

REQUESTS, STREAMS, UPLOADS, DOWNLOADS = "requests", "streams", "uploads", "downloads"


@dataclass(frozen=True, slots=True)
class Load:
    """So many clients that do the same at once."""

    name: str
    kind: str
    clients: int
    seconds: float
    """How long new requests are sent; for streams, how long their tokens are counted."""
    rate: int = 0
    """Tokens a second of each stream."""
    opens_per_s: int = 0
    """How fast streams begin, one after another."""
    size: int = 0
    """Bytes of a body."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a path begins. With a `command` each request is one run of it, with the body on its stdin."""

    host: str = ""
    port: int = 0
    key: str = ""
    """Goes into the header Authorization."""
    command: tuple[str, ...] = ()
    exact: bool = True
    """The answer is byte for byte the service's; else it only has to hold what was asked for."""


@dataclass(slots=True)
class Outcome:
    """What came of it; times in seconds."""

    answered: int = 0
    """Right answers to requests that were counted."""
    in_all: int = 0
    """Right answers, also those from before the clock ran."""
    tokens: int = 0
    """Of all streams."""
    seconds: float = 0.0
    timed: dict[str, float] = field(default_factory=dict[str, float])
    """Percentiles, and tokens a second."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    """What was wrong -> how often."""
    cpu_s: float = 0.0
    """Of the load process and of the commands that it ran."""


def as_json(load: Load, target: Target) -> dict[str, Any]:
    return {"load": asdict(load), "target": asdict(target)}


def from_json(document: dict[str, Any]) -> tuple[Load, Target]:
    target = document["target"]
    return Load(**document["load"]), Target(**target | {"command": tuple(target["command"])})
