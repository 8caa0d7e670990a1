"""Acts that were asked for and are not sent yet: for some seconds they can be revoked, with certainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from saia_tui.acts.plan import Plan

HOLD_S = 5.0


@dataclass(frozen=True, slots=True)
class Held:
    plan: Plan
    reason: str
    due: float
    """On the screen's clock."""


class Hold:
    """First in, first out; each for the same time."""

    def __init__(self, monotonic: Callable[[], float], seconds: float = HOLD_S) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._held: list[Held] = []

    def put(self, plan: Plan, reason: str) -> None:
        self._held.append(Held(plan, reason, self._monotonic() + self._seconds))

    def take_due(self) -> list[Held]:
        """Those whose time is over; they can't be revoked any more."""
        now = self._monotonic()
        due = [held for held in self._held if held.due <= now]
        self._held = [held for held in self._held if held.due > now]
        return due

    def revoke(self) -> Held | None:
        """The newest one is never sent."""
        return self._held.pop() if self._held else None

    def revoke_all(self) -> list[Held]:
        revoked, self._held = self._held, []
        return revoked

    @property
    def told(self) -> str:
        """The newest one and its countdown, in a line; empty where nothing is held."""
        if not self._held:
            return ""
        newest = self._held[-1]
        left = max(0, int(newest.due - self._monotonic() + 0.999))
        more = f" (and {len(self._held) - 1} more)" if len(self._held) > 1 else ""
        return f"{newest.plan.told()}{more}: sent in {left} s, u revokes it"

    def __bool__(self) -> bool:
        return bool(self._held)
