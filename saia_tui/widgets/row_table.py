"""A table of keyed rows on Textual's line API: only lines that look different are painted again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from saia_tui.actions import bindings
from saia_tui.cells import join, text
from saia_tui.columns import GAP, Column, Listing, Sight, fit
from saia_tui.ordered_rows import OrderedRows
from saia_tui.palette import STYLES, on_cursor
from saia_tui.widgets.segments import cell_segments

CURSOR_MARK = "▸ "
STALE_MARK = "≈"
"""Before a row that is older than it should be."""
MARGIN = len(CURSOR_MARK)
SCROLLBAR = 1
"""Kept free, so that columns stay where they are when the rows outgrow the screen."""


class RowTable(ScrollView, can_focus=True):
    """Shows a listing. The cursor belongs to a key, and stays on it through insert, sort and filter."""

    DEFAULT_CSS = """
    RowTable { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(table=True)]

    class Chosen(Message):
        """Enter, or a click on the row under the cursor."""

        def __init__(self, table: RowTable, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

    class Arranged(Message):
        """Rows came, went or moved, or the filter or order changed."""

        def __init__(self, table: RowTable) -> None:
            super().__init__()
            self.table = table

    def __init__(
        self,
        listing: Listing,
        sight: Callable[[], Sight],
        *,
        where: Callable[[Any], bool] = lambda row: True,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.listing = listing
        self.rows = OrderedRows(listing, where)
        self.stale = False
        self._sight = sight
        self._columns: list[tuple[Column, int]] = []
        self._painted: dict[int, Strip] = {}

    # ------------------------------------------------------------ rows

    def take(self, rows: Mapping[str, Any], changed: Iterable[str] | None = None) -> None:
        """Show the new state of these rows (of all: None)."""
        before = len(self.rows.keys)
        self.rows.take(rows, changed)
        self._settle(len(self.rows.keys) != before)

    def filter_by(self, words: str) -> None:
        self.rows.filter_by(words)
        self._settle(True)

    def show_where(self, where: Callable[[Any], bool]) -> None:
        self.rows.show_where(where)
        self._settle(True)

    def sort_next(self, step: int = 1) -> None:
        """Sort by the next column that is shown and sorts; after the last comes the listing's own order."""
        choices: list[Column | None] = [None, *(column for column, _ in self._columns if column.sort)]
        at = choices.index(self.rows.sort) if self.rows.sort in choices else 0
        self.rows.sort_by(choices[(at + step) % len(choices)])
        self._settle(True)

    def sort_reverse(self) -> None:
        self.rows.sort_by(self.rows.sort, reverse=not self.rows.reverse)
        self._settle(True)

    def sort_on(self, name: str | None, *, reverse: bool = False) -> None:
        """Sort by the column of that name; None is the listing's own order."""
        column = next((each for each in self.listing.columns if each.name == name), None)
        self.rows.sort_by(column, reverse=reverse)
        self._settle(True)

    def put_cursor(self, key: str) -> bool:
        """On this row, for which a filter that hides it is cleared; False where there is no such row."""
        if key not in self.rows.keys and self.rows.filter:
            self.filter_by("")
        if key not in self.rows.keys:
            return False
        self._move_to(self.rows.keys.index(key))
        return True

    def show_stale(self, stale: bool) -> None:
        if stale != self.stale:
            self.stale = stale
            self.repaint()

    def _settle(self, resized: bool) -> None:
        if resized:
            self.virtual_size = Size(self.size.width, len(self.rows.keys) + 1)
        self._keep_cursor_in_sight()
        self.repaint()
        self.post_message(self.Arranged(self))

    # ------------------------------------------------------------ painting

    def repaint(self) -> None:
        """Refresh the visible lines that look different from what was painted; time passing counts."""
        if not self.display or not self.size:
            return
        for y in range(self.size.height):
            if self._line(y) != self._painted.get(y):
                self.refresh(Region(0, y, self.size.width, 1))

    def forget_painted(self) -> None:
        """Paint every line anew: the look changed."""
        self._painted.clear()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        strip = self._painted[y] = self._line(y)
        return strip

    def _line(self, y: int) -> Strip:
        width = self.size.width
        if not self.rows.total:
            return self._nothing(width) if y == 0 else Strip.blank(width, self.rich_style)
        if y == 0:
            return self._header(width)
        index = self.scroll_offset.y + y - 1
        if index < len(self.rows.keys):
            return self._row(self.rows.keys[index], width)
        note = f"Nothing matches {self.rows.filter!r}: Esc shows all again." if index == 0 else ""
        return self._strip(
            [Segment(" " * MARGIN), *cell_segments(text(note, "quiet"), width - MARGIN, False)], width
        )

    def _nothing(self, width: int) -> Strip:
        """One line instead of an empty table; no claim before the engine gave its state."""
        if not self._sight().now:
            return Strip.blank(width, self.rich_style)
        line = join(
            text(f"{self.listing.title}  ", "title"), text(self.listing.empty, self.listing.empty_style)
        )
        return self._strip([Segment(" " * MARGIN), *cell_segments(line, width - MARGIN, False)], width)

    def _header(self, width: int) -> Strip:
        segments = [Segment(" " * MARGIN, STYLES["header"])]
        for number, (column, cells) in enumerate(self._columns):
            name = column.name
            if column is self.rows.sort:
                name += "▴" if self.rows.reverse else "▾"
            style = STYLES["title" if number == 0 else "header"]
            segments += cell_segments(Text(name, style, end=""), cells, column.right)
            segments.append(Segment(" " * GAP, STYLES["header"]))
        return self._strip(segments, width)

    def _row(self, key: str, width: int) -> Strip:
        sight, row = self._sight(), self.rows[key]
        chosen = key == self.rows.cursor and self.has_focus
        stale = self.stale or self.listing.stale(row, sight)
        mark = CURSOR_MARK[0] if chosen else " "
        segments = [Segment(mark, STYLES["key"]), Segment(STALE_MARK if stale else " ", STYLES["warn"])]
        for column, cells in self._columns:
            segments += cell_segments(column.cell(row, sight, cells), cells, column.right)
            segments.append(Segment(" " * GAP))
        if stale:
            segments = [Segment(part.text, (part.style or Style()) + STYLES["stale"]) for part in segments]
        if not chosen:
            return self._strip(segments, width)
        lifted = [Segment(part.text, on_cursor(part.style)) for part in segments]
        return self._strip(lifted, width, STYLES["cursor"])

    def _strip(self, segments: list[Segment], width: int, background: Style | None = None) -> Strip:
        background = background or Style(bgcolor=self.rich_style.bgcolor)
        return Strip(segments).adjust_cell_length(width).apply_style(background)

    # ------------------------------------------------------------ moving

    def _keep_cursor_in_sight(self) -> None:
        if not self.rows.pinned:
            self.scroll_to(y=0, animate=False, immediate=True)
            return
        index, page = self.rows.index, max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if index < top:
            self.scroll_to(y=index, animate=False, immediate=True)
        elif index >= top + page:
            self.scroll_to(y=index - page + 1, animate=False, immediate=True)

    def _move_to(self, index: int) -> None:
        self.rows.move_to(index)
        self._keep_cursor_in_sight()
        self.repaint()

    def action_move(self, step: int) -> None:
        self._move_to(self.rows.index + step)

    def action_page(self, pages: int) -> None:
        self._move_to(self.rows.index + pages * max(1, self.size.height - 2))

    def action_top(self) -> None:
        self.rows.release()
        self._keep_cursor_in_sight()
        self.repaint()

    def action_bottom(self) -> None:
        self._move_to(len(self.rows.keys) - 1)

    def action_choose(self) -> None:
        if self.rows.cursor is not None:
            self.post_message(self.Chosen(self, self.rows.cursor))

    # ------------------------------------------------------------ events

    def on_resize(self, event: events.Resize) -> None:
        self._columns = fit(self.listing.columns, event.size.width - MARGIN - SCROLLBAR)
        self._painted.clear()
        self.virtual_size = Size(event.size.width, len(self.rows.keys) + 1)
        self._keep_cursor_in_sight()
        self.refresh()

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            return
        index = self.scroll_offset.y + event.y - 1
        if index < len(self.rows.keys):
            again = self.rows.keys[index] == self.rows.cursor and event.chain > 1
            self._move_to(index)
            if again:
                self.action_choose()
