"""An event loop whose clock jumps to the next timer instead of waiting: an hour passes as fast as it computes."""

from __future__ import annotations

import asyncio
from asyncio import base_events
from typing import Any

RESOLUTION_S = 1e-6
"""Of seconds since the epoch in a float: two timers closer than this may fire in one turn."""


class Stuck(RuntimeError):
    """Nothing is left that could ever happen."""


class VirtualLoop(base_events.BaseEventLoop):
    """Runs timers in order of time; those of one moment in the order of a heap, which is the same each time."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self._now = start
        self._clock_resolution = RESOLUTION_S
        self._selector = self
        self._fault: BaseException | None = None

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None) -> list[object]:
        """In place of a selector's: the wait itself."""
        if timeout is None:
            raise Stuck("no timer is left")
        if timeout > 0.0:
            self._now += timeout
        return []

    def _process_events(self, event_list: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A fault of the world itself, or of the engine where it should have none: the run ends with it."""
        self._fault = self._fault or context.get("exception") or RuntimeError(context["message"])
        self.stop()

    def run_until(self, at: float) -> None:
        """Let everything happen that is due by this time. Raises what any callback raised."""
        asyncio.set_event_loop(self)
        last = self.call_at(at, self.stop)
        try:
            self.run_forever()
        finally:
            last.cancel()
        if self._fault is not None:
            raise self._fault
