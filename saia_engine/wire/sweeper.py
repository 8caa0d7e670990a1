"""Deadlines that hardly ever come true: looked through from time to time, instead of a timer for each."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

PERIOD_S = 0.1


class Late(Protocol):
    """Something with a deadline by the monotonic clock, which may be moved at any time."""

    deadline: float

    def late(self) -> None:
        """Its deadline has passed; called each time it is found so."""
        ...


class Sweeper:
    """Tells each of its members within PERIOD_S after its deadline. At rest while it has none."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._members: set[Late] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: Late) -> None:
        self._members.add(member)
        if self._timer is None:
            self._timer = self._loop.call_later(PERIOD_S, self._sweep)

    def discard(self, member: Late) -> None:
        self._members.discard(member)

    def _sweep(self) -> None:
        now = monotonic()
        for member in [member for member in self._members if member.deadline <= now]:
            if member in self._members:
                member.late()
        self._timer = self._loop.call_later(PERIOD_S, self._sweep) if self._members else None
