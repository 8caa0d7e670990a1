"""The engine's steady clock, and how far it is from the one that Slurm goes by."""

from __future__ import annotations

import time
from collections.abc import Callable

APART_S = 60.0
"""Two clocks that differ by less agree: the timeline's margins absorb it."""


class SteadyClock:
    """Seconds since the epoch that never jump: the wall clock at the start, advanced by the monotonic one.

    A wall clock set forward by a day then causes no submit and no cancel (promise 14); `skew_s` tells of it.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        return self._monotonic() + self._offset

    @property
    def skew_s(self) -> float:
        """How far the wall clock has moved against this one since the start."""
        return self._wall() - self.now()

    def follow_wall(self) -> float:
        """Go on by the wall clock as it is now; returns by how many seconds that is a move."""
        moved_s = self.skew_s
        self._offset += moved_s
        return moved_s


class Disagreement(Exception):
    """The clocks differ, and it cannot be told which one is right; the text says what to do."""


class ClockCheck:
    """Compares the steady clock with the one of Slurm's controller, answer by answer."""

    FOLLOW_AFTER_S = 300.0
    """A clock that was right once is given up when the two others have agreed against it for so long."""

    def __init__(self, clock: SteadyClock) -> None:
        self._clock = clock
        self._was_right = False
        self._alone_since: float | None = None

    def corrects(self, told: float, took_s: float) -> bool:
        """Whether the steady clock must follow the wall clock. Raises Disagreement.

        `told` is the controller's time in an answer that took so long and has just come; 0 where it had none.
        """
        apart_s, skew_s = _apart_s(told, self._clock.now(), took_s), self._clock.skew_s
        if not told or abs(apart_s) <= APART_S:
            self._was_right = self._was_right or bool(told)
            self._alone_since = None
            return False
        if abs(_apart_s(told, self._clock.now() + skew_s, took_s)) > APART_S:
            self._alone_since = None
            others = "this host's"
            if abs(skew_s) > APART_S:
                others = f"the engine's and {_off(apart_s - skew_s)} this host's"
            raise Disagreement(
                f"the clock of Slurm's controller is {_off(apart_s)} {others}: nothing is submitted or cancelled"
                " until they agree; set the wrong one right (timedatectl, chronyc makestep)"
            )
        if not self._was_right:
            return True  # started while the wall clock was wrong, and that is mended
        if self._alone_since is None:
            self._alone_since = self._clock.now()
        if (left_s := self._alone_since + self.FOLLOW_AFTER_S - self._clock.now()) > 0:
            raise Disagreement(
                f"the clocks of this host and of Slurm's controller have moved, to {_off(apart_s)} the engine's:"
                f" nothing is submitted or cancelled; if they stay so, the engine follows in {left_s:.0f} s"
            )
        return True


def _apart_s(told: float, now: float, took_s: float) -> float:
    """How far a clock is ahead of ours, which it was read from at some moment of the last `took_s`."""
    return told - now if told > now else min(0.0, told - (now - took_s))


def _off(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"
