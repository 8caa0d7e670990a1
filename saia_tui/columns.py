"""Columns of a table: what a cell shows, what it sorts by, and which of them fit a given width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rich.text import Text

from saia_tui import moments

FOREVER = float("inf")
TICK_S = 0.001
"""So that a label is made after the moment at which it changes, not at it."""
GAP = 2
"""Cells between two columns."""

NARROWEST = 6
"""No column that may grow becomes smaller."""


class Sight:
    """What cells need beside their row: the engine's clock, and the recent rate of each service.

    It notes how long what it told holds, so that a cell is made anew only when it may look different.
    """

    __slots__ = ("_now", "_rates", "slurm_late", "until")

    def __init__(
        self,
        now: float,
        rates: Mapping[str, Sequence[float]] = MappingProxyType({}),
        slurm_late: bool = False,
    ) -> None:
        self._now = now
        self._rates = rates
        self.slurm_late = slurm_late
        """Slurm's last good answer is older than two polls."""
        self.until = FOREVER
        """By the engine's clock: up to then a cell that asked holds. Whoever makes a cell sets it to FOREVER first."""

    @property
    def now(self) -> float:
        """0 until the engine first gave its state. Holds for a second."""
        self._holds_until(self._now // 1 + 1)
        return self._now

    @property
    def rates(self) -> Mapping[str, Sequence[float]]:
        self._holds_until(self._now // 1 + 1)
        return self._rates

    def distance(self, at: float) -> float:
        """Seconds from now to a moment; negative if it has passed. For labels of `moments`, which change by the
        minute but for the last two before the moment."""
        distance = at - self._now
        fine = 0 < distance <= moments.SECONDS_SHOWN_BELOW_S
        self._holds_until(self._now + (distance % 1 if fine else distance % 60) + TICK_S)
        return distance

    def _holds_until(self, at: float) -> None:
        self.until = min(self.until, at)


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Of those that don't fit, the one with the highest `drop` goes first; 0 never goes."""

    name: str
    cell: Callable[[Any, Sight, int], Text]
    """Of row, sight and width."""
    width: int
    sort: Callable[[Any], Any] | None = None
    """The value to sort by; None or not a number: unknown, which comes last in both directions."""
    grow: int = 0
    """Share of the width that is left over."""
    limit: int = 400
    """It never grows beyond."""
    drop: int = 0
    right: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """All there is to know about showing one table of the state."""

    table: str
    title: str
    columns: tuple[Column, ...]
    order: Callable[[Any], tuple[Any, ...]]
    """The order nobody chose: worst, or most urgent, first."""
    words: Callable[[Any], str]
    """What a filter searches."""
    empty: str
    empty_style: str = "quiet"
    stale: Callable[[Any, Sight], bool] = lambda row, sight: False
    """Whether a row is older than it should be; such a row is dimmed, and marked."""


def fit(columns: Sequence[Column], width: int) -> list[tuple[Column, int]]:
    """The columns to show in `width` cells, each with its width."""
    shown = list(columns)
    while _needed(shown) > width:
        victim = max(shown, key=lambda column: column.drop)
        if victim.drop == 0:
            break
        shown.remove(victim)
    widths = {column.name: column.width for column in shown}
    _share_out(shown, widths, width - _needed(shown))
    return [(column, widths[column.name]) for column in shown]


def _needed(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + GAP * max(0, len(columns) - 1)


def _share_out(shown: Sequence[Column], widths: dict[str, int], spare: int) -> None:
    if spare < 0:
        _take_in(shown, widths, -spare)
        return
    growing = [column for column in shown if column.grow]
    while spare > 0 and growing:
        total = sum(column.grow for column in growing)
        before = spare
        for column in growing:
            more = min(max(1, before * column.grow // total), column.limit - widths[column.name], spare)
            widths[column.name] += more
            spare -= more
        growing = [column for column in growing if widths[column.name] < column.limit]


def _take_in(shown: Sequence[Column], widths: dict[str, int], missing: int) -> None:
    """Narrower than the columns that never go: the widest of those that may grow gives, cell by cell."""
    giving = [column.name for column in shown if column.grow]
    for _ in range(missing):
        widest = max(giving, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= NARROWEST:
            return
        widths[widest] -= 1
