"""How a call that may block leaves the event loop, and what stands for it where nothing blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Offload(Protocol):
    """Runs `act(...)` without holding up the loop; its exceptions are the caller's."""

    async def __call__(self, act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


in_thread: Offload = asyncio.to_thread


async def inline(act: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """At once, on the loop: for a world in memory."""
    return act(*args, **kwargs)
