"""Whether acts may be asked for here: not before they are armed, and for ten minutes after the last one."""

from __future__ import annotations

import math
from collections.abc import Callable

ARMED_S = 600.0


class Arming:
    """`monotonic` is the screen's clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float], *, read_only: bool = False) -> None:
        self.read_only = read_only
        """For ever: nothing arms it."""
        self.replaying = False
        """What is shown is over: nothing arms it meanwhile."""
        self._monotonic = monotonic
        self._until = 0.0

    @property
    def barred(self) -> bool:
        """Nothing arms it now."""
        return self.read_only or self.replaying

    @property
    def armed(self) -> bool:
        return not self.barred and self._monotonic() < self._until

    @property
    def shown(self) -> bool | None:
        """None where nothing arms it."""
        return None if self.barred else self.armed

    @property
    def minutes_left(self) -> int:
        """Begun ones count: never 0 while it is armed."""
        return math.ceil((self._until - self._monotonic()) / 60.0) if self.armed else 0

    def toggle(self) -> None:
        if self.armed:
            self._until = 0.0
        elif not self.barred:
            self.prolong()

    def lock(self) -> None:
        self._until = 0.0

    def prolong(self) -> None:
        """Something was done: ten minutes from now."""
        self._until = self._monotonic() + ARMED_S

    @property
    def refusal(self) -> str:
        """Why an act may not be asked for; empty if it may."""
        if self.replaying:
            return "this is a replay: nothing can be asked of the past"
        if self.read_only:
            return "this screen is read-only (--read-only)"
        return "" if self.armed else "acts are locked: W arms them for 10 minutes"
