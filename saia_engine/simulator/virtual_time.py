"""An event loop whose clock jumps to the next timer instead of waiting: an hour passes as fast as it computes."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import base_events
from collections.abc import Callable
from typing import Any


class Stuck(RuntimeError):
    """Nothing is left that could ever happen."""


class Timer:
    """A callback that is due at a time: what asyncio's own does, without a context where none is asked for."""

    __slots__ = ("_act", "_args", "_context", "off")

    def __init__(self, act: Callable[..., object], args: tuple[Any, ...], context: Any) -> None:
        self.off = False
        self._act, self._args, self._context = act, args, context

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off

    def _run(self) -> None:
        if self._context is None:
            self._act(*self._args)
        else:
            self._context.run(self._act, *self._args)


class VirtualLoop(base_events.BaseEventLoop):
    """Runs timers in order of time, those of one moment in the order in which they were set.

    It waits for nothing else: what runs on it has neither sockets nor threads.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self._now = start
        self._timers: list[tuple[float, int, Timer]] = []
        self._set = 0
        self._fault: BaseException | None = None

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Timer:
        timer = Timer(callback, args, context)
        self._set += 1
        heapq.heappush(self._timers, (when, self._set, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Timer:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        if not ready:
            while timers and timers[0][2].off:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("no timer is left")
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer.off:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

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
