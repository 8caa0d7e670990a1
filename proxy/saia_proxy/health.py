"""What an instance's own answers tell of it: how much is under way there, whether it fails, whether it stalls.

Nothing is asked of it for this: real requests alone speak (passive ejection). Times are a monotonic clock's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LONGEST_EJECTION_S = 60.0
FAILS_FROM = 500
"""A status from here on is the instance's failure, not the client's."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """When an instance gets requests only where nothing better is left."""

    eject_after: int = 5
    """Failures in a row."""
    eject_for_s: float = 5.0
    """The first time; each further time in a row twice as long, up to a minute."""
    stall_after_s: float = 30.0
    """Without a byte from it, while requests are under way there."""


TOLERANCE = Tolerance()


@dataclass(slots=True)
class Condition:
    """One instance as it has been seen from here."""

    in_flight: int = 0
    silent: int = 0
    """Of these, those that need not say anything, such as open WebSockets."""
    heard_at: float = 0.0
    """When a byte last came from it, or the first of what is under way went there."""
    failures: int = 0
    """In a row."""
    ejections: int = 0
    """In a row."""
    ejected_until: float = 0.0
    on_trial: bool = False
    """After an ejection one request goes there, and decides."""

    def doubtful(self, now: float, tolerance: Tolerance) -> bool:
        """Whether others are better."""
        if self.ejections and (self.on_trial or now < self.ejected_until):
            return True
        return self.in_flight > self.silent and now - self.heard_at > tolerance.stall_after_s


class Use:
    """One request at one instance, under way while its `with` lasts. Whoever carries it says what comes back.

    A trial that ends without a verdict leaves the next request to try.
    """

    def __init__(self, condition: Condition, clock: Callable[[], float], tolerance: Tolerance) -> None:
        self._condition = condition
        self._clock = clock
        self._tolerance = tolerance
        self._silent = False

    def __enter__(self) -> Use:
        condition, now = self._condition, self._clock()
        self._tries = condition.ejections > 0 and not condition.on_trial and now >= condition.ejected_until
        if self._tries:
            condition.on_trial = True
        if condition.in_flight == condition.silent:
            condition.heard_at = now
        condition.in_flight += 1
        self._ejections = condition.ejections
        return self

    def __exit__(self, *_: object) -> None:
        condition = self._condition
        condition.in_flight -= 1
        condition.silent -= self._silent
        if self._tries and condition.on_trial and condition.ejections == self._ejections:
            condition.on_trial = False

    def may_be_silent(self) -> None:
        """From now on nothing follows from its silence."""
        if not self._silent:
            self._silent = True
            self._condition.silent += 1

    def heard(self) -> None:
        """A byte came."""
        self._condition.heard_at = self._clock()

    def answered(self, status: int) -> None:
        """Its answer began."""
        self.heard()
        if status >= FAILS_FROM:
            self.failed()
        else:
            condition = self._condition
            condition.failures = condition.ejections = 0
            condition.on_trial = False

    def failed(self) -> None:
        """It was unreachable, was lost, was too late, or said that it cannot."""
        condition, tolerance = self._condition, self._tolerance
        condition.failures += 1
        if condition.on_trial or condition.failures >= tolerance.eject_after:
            for_s = min(tolerance.eject_for_s * 2.0 ** min(condition.ejections, 16), LONGEST_EJECTION_S)
            condition.ejected_until = self._clock() + for_s
            condition.ejections += 1
            condition.failures = 0
            condition.on_trial = False
