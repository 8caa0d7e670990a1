"""The lines of a table as strips. A line is made anew only where there is a reason: another row, look or second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip

from saia_tui.columns import FOREVER, GAP, Column, Sight
from saia_tui.palette import STYLES, on_cursor
from saia_tui.widgets.segments import cell_segments, joined

CURSOR_SIGN = "▸"
MARK_SIGN = "*"
STALE_SIGN = "≈"
"""Before a row that is older than it should be."""
MARGIN = len(CURSOR_SIGN + MARK_SIGN)
MOST_KEPT = 500
"""Lines; more than a screen has."""


@dataclass(frozen=True, slots=True, eq=False)
class LineLook:
    """All that a line shows beside its row. Two are the same only if they are one."""

    width: int
    background: Style
    chosen: bool = False
    marked: bool = False
    stale: bool = False

    @property
    def signs(self) -> str:
        """The two cells before the row."""
        mark = MARK_SIGN if self.marked else " "
        if self.stale:
            return (CURSOR_SIGN if self.chosen else mark) + STALE_SIGN
        return (CURSOR_SIGN if self.chosen else " ") + mark


@dataclass(slots=True)
class _Kept:
    row: Any
    look: LineLook
    cells: list[list[Segment]]
    until: list[float]
    """Of each cell: how long it holds, by the engine's clock."""
    first_until: float
    strip: Strip


class RowLines:
    def __init__(self) -> None:
        self._columns: Sequence[tuple[Column, int]] = ()
        self._cuts = [MARGIN]
        """Where each column ends, its gap included."""
        self._kept: dict[str, _Kept] = {}

    def show_columns(self, columns: Sequence[tuple[Column, int]]) -> None:
        """Each with its width."""
        self._columns = columns
        self._cuts = [MARGIN]
        for _, width in columns:
            self._cuts.append(self._cuts[-1] + width + GAP)
        self.forget()

    def forget(self) -> None:
        """After a change of colours, which lines that were kept would not show."""
        self._kept.clear()

    def header(self, look: LineLook, sort: Column | None, reverse: bool) -> Strip:
        segments = [Segment(" " * MARGIN, STYLES["header"])]
        for number, (column, width) in enumerate(self._columns):
            name = column.name
            if column is sort:
                name += "▴" if reverse else "▾"
            style = STYLES["title" if number == 0 else "header"]
            segments += cell_segments(Text(name, style, end=""), width, column.right)
            segments.append(Segment(" " * GAP, STYLES["header"]))
        return strip(segments, look)

    def row(self, key: str, row: Any, sight: Sight, now: float, look: LineLook) -> Strip:
        """The very strip of the last call where nothing looks different."""
        kept = self._kept.get(key)
        if kept is not None and kept.row is row and kept.look is look and now < kept.first_until:
            return kept.strip
        if kept is None or kept.row is not row:
            made = [self._cell(number, row, sight) for number in range(len(self._columns))]
        else:
            made = [
                (cell, until) if now < until else self._cell(number, row, sight)
                for number, (cell, until) in enumerate(zip(kept.cells, kept.until, strict=True))
            ]
        cells, until = [cell for cell, _ in made], [until for _, until in made]
        same = kept is not None and kept.cells == cells and kept.look is look
        line = kept.strip if kept is not None and same else self._row_strip(cells, look)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = _Kept(row, look, cells, until, min(until, default=FOREVER), line)
        return line

    def differences(self, old: Strip, new: Strip) -> list[tuple[int, int]]:
        """Where the lines differ: begin and end of each stretch of columns."""
        if old.cell_length != new.cell_length:
            return [(0, new.cell_length)]
        stretches: list[tuple[int, int]] = []
        at = 0
        # The last column's gap may lie beyond the line, where `divide` gives nothing.
        cuts = [*(cut for cut in self._cuts if cut < new.cell_length), new.cell_length]
        for before, after, end in zip(old.divide(cuts), new.divide(cuts), cuts, strict=True):
            if before != after:
                joins = stretches and stretches[-1][1] == at
                stretches[-1:] = [(stretches[-1][0], end)] if joins else [*stretches[-1:], (at, end)]
            at = end
        return stretches

    def _cell(self, number: int, row: Any, sight: Sight) -> tuple[list[Segment], float]:
        """A cell, and how long it holds."""
        column, width = self._columns[number]
        sight.until = FOREVER
        return cell_segments(column.cell(row, sight, width), width, column.right), sight.until

    def _row_strip(self, cells: Sequence[Sequence[Segment]], look: LineLook) -> Strip:
        segments = [
            Segment(look.signs[0], STYLES["key"]),
            Segment(look.signs[1], STYLES["warn"]),
        ]
        gap = Segment(" " * GAP)
        for cell in cells:
            segments += cell
            segments.append(gap)
        if look.stale:
            segments = [Segment(part.text, (part.style or Style()) + STYLES["stale"]) for part in segments]
        if look.chosen:
            segments = [Segment(part.text, on_cursor(part.style)) for part in segments]
        return strip(segments, look)


def strip(segments: Sequence[Segment], look: LineLook) -> Strip:
    """A line of these, as wide as wanted."""
    background = STYLES["cursor"] if look.chosen else Style(bgcolor=look.background.bgcolor)
    return Strip(joined(segments)).adjust_cell_length(look.width).apply_style(background)
