"""Where a replay is, for all that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from saia_tui import moments


@dataclass(frozen=True, slots=True)
class Standing:
    position: float
    """The moment asked for."""
    at: float
    """When the sample that is shown was taken: the replay's present."""
    playing: bool = False
    speed: int = 1
    """0: it is one look, and goes nowhere."""
    missing: str = ""
    """Why nothing is known of the position; empty where the sample stands for it."""

    def words(self) -> str:
        """`REPLAY 2026-11-27 03:12:40 paused`."""
        moment = self.position if self.missing else self.at
        pace = f"{self.speed}x" if self.playing else "paused" if self.speed else ""
        return f"REPLAY {moments.stamp(moment)} {pace}".rstrip()
