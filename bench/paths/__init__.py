"""The ways from a client to the service, one module each: `open_path(site)` starts what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.job import Target


@dataclass(frozen=True, slots=True)
class Path:
    """A way that stands."""

    name: str
    target: Target
    parts: Callable[[], Mapping[str, list[int]]]
    """What it consists of -> process ids, the service included."""
    version: str = ""
