"""The moment of a plan, and how long the plan holds."""

from __future__ import annotations

from dataclasses import dataclass

NEVER = float("inf")


@dataclass(slots=True)
class Moment:
    """Now. Every rule that depends on time asks here, so that the plan can say when it must be made anew."""

    now: float
    again_at: float = NEVER
    """Until then the same records give the same plan, but for what its sentences say of the time."""

    def reached(self, at: float) -> bool:
        """Whether this time has come."""
        if self.now >= at:
            return True
        self.again_at = min(self.again_at, at)
        return False

    def passed(self, deadline: float) -> bool:
        """Whether this time is over."""
        if self.now > deadline:
            return True
        self.again_at = min(self.again_at, deadline)
        return False

    def look_again_in(self, seconds: float) -> None:
        """For what grows with time: no later than so."""
        self.again_at = min(self.again_at, self.now + seconds)
