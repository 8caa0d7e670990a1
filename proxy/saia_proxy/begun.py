"""Coroutines that run to their first wait at once, in the callback that began them; only from there on in a task.

What `asyncio.eager_task_factory` does from Python 3.12 on, without its current task: until its first wait a coroutine
has none, so `asyncio.timeout` can't be used there. `time_limit` can.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any


def begin(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """None where it has ended already. Raises what it raises until then."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return loop.create_task(_Begun(coroutine, waits_for))


@asynccontextmanager
async def time_limit(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, also where there is no task yet. Raises TimeoutError."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)
    async with asyncio.timeout(seconds):
        yield


class _Begun(Coroutine[Any, Any, None]):
    """The rest of it: its first wait is repeated to the task, which then goes on as with any other."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._told = False

    def send(self, value: None) -> Any:
        if self._told:
            return self._coroutine.send(value)
        self._told = True
        return self._waits_for

    def throw(self, *fault: Any) -> Any:
        self._told = True
        return self._coroutine.throw(*fault)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("only a task may go on with it")
