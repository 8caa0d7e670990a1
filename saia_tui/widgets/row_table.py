"""A table of keyed rows on Textual's line API: only lines that look different are painted again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

from rich.segment import Segment
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
from saia_tui.export import as_csv, as_json
from saia_tui.ordered_rows import OrderedRows
from saia_tui.widgets.row_lines import MARGIN, LineLook, RowLines, strip
from saia_tui.widgets.segments import cell_segments

SCROLLBAR = 1
"""Kept free, so that columns stay where they are when the rows outgrow the screen."""


class RowTable(ScrollView, can_focus=True):
    """Shows a listing. Cursor and marks belong to keys, and stay on them through insert, sort and filter."""

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
        self.columns: list[tuple[Column, int]] = []
        """Those that are shown, each with its width."""
        self._fitted = 0
        """The width that they are for."""
        self._wanted: Sequence[Column] = listing.columns
        self._lines = RowLines()
        self._line_looks: dict[tuple[bool, bool, bool], LineLook] = {}
        """By whether a line has the cursor, a mark, and is stale."""
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
        choices: list[Column | None] = [None, *(column for column, _ in self.columns if column.sort)]
        at = choices.index(self.rows.sort) if self.rows.sort in choices else 0
        self.rows.sort_by(choices[(at + step) % len(choices)])
        self._settle(True)

    def sort_reverse(self) -> None:
        self.rows.sort_by(self.rows.sort, reverse=not self.rows.reverse)
        self._settle(True)

    def show_columns(self, columns: Sequence[Column]) -> None:
        """These, in this order, as far as there is room."""
        self._wanted = columns
        self._fit(self.size.width)
        self.refresh()

    def _fit(self, width: int) -> None:
        self._fitted = width
        self.columns = fit(self._wanted, width - MARGIN - SCROLLBAR)
        self._lines.show_columns(self.columns)
        self._line_looks.clear()
        self._painted.clear()

    def exported(self, kind: str) -> str:
        """All rows that the filter lets through: `csv` of the columns shown, or `json` of all fields."""
        rows = (self.rows[key] for key in self.rows.keys)
        return as_json(rows) if kind == "json" else as_csv(rows, self.columns, self._sight())

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
            self._fit_scrollbar()
        self._keep_cursor_in_sight()
        self.repaint()
        self.post_message(self.Arranged(self))

    def _fit_scrollbar(self) -> None:
        """To the number of rows, without a layout of the whole screen unless the bar comes or goes."""
        (width, height), lines = self.size, len(self.rows.keys) + 1
        if (lines > height) != self.show_vertical_scrollbar:
            self.virtual_size = Size(width, lines)
            return
        self.set_reactive(cast(Any, RowTable.virtual_size), Size(width, lines))
        bar = self.vertical_scrollbar
        if self.show_vertical_scrollbar and abs(lines - bar.window_virtual_size) * height > lines:
            bar.window_virtual_size = lines  # where it would look the same it is not painted again
        if self.scroll_y > self.max_scroll_y:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    # ------------------------------------------------------------ painting

    def repaint(self) -> None:
        """Refresh the visible cells that look different from what was painted; time passing counts."""
        if not self.display or not self.size:
            return
        (width, height), sight = self.size, self._sight()
        regions = []
        for y in range(height):
            line, painted = self._line(y, sight), self._painted.get(y)
            if painted is None:
                regions.append(Region(0, y, width, 1))
            elif line is not painted and line != painted:
                regions += [Region(x, y, end - x, 1) for x, end in self._lines.differences(painted, line)]
        if regions:
            self.refresh(*regions)

    def look_again(self) -> None:
        """What cells are made of beside their rows is new: cells that were to hold for a while may not."""
        self._lines.forget()
        self.repaint()

    def forget_painted(self) -> None:
        """Paint every line anew: the look changed."""
        self._painted.clear()
        self._line_looks.clear()
        self._lines.forget()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        line = self._painted[y] = self._line(y, self._sight())
        return line

    def notify_style_update(self) -> None:
        """Colours may be others now."""
        super().notify_style_update()
        self._line_looks.clear()
        self._lines.forget()

    def _look(self, key: str | None = None, stale: bool = False) -> LineLook:
        chosen = key is not None and key == self.rows.cursor and self.has_focus
        marked = key is not None and self.rows.is_marked(key)
        kind = (chosen, marked, stale)
        look = self._line_looks.get(kind)
        if look is None:
            # Asking for the style costs more than all the rest of a line.
            look = self._line_looks[kind] = LineLook(self.size.width, self.rich_style, *kind)
        return look

    def _line(self, y: int, sight: Sight) -> Strip:
        if not self.rows.total:
            return self._nothing(sight) if y == 0 else self._said(Text())
        if y == 0:
            return self._lines.header(self._look(), self.rows.sort, self.rows.reverse)
        index = int(self.scroll_y) + y - 1
        if index < len(self.rows.keys):
            key = self.rows.keys[index]
            row = self.rows[key]
            stale = self.stale or self.listing.stale(row, sight)
            return self._lines.row(key, row, sight, sight.now, self._look(key, stale))
        note = f"Nothing matches {self.rows.filter!r}: Esc shows all again." if index == 0 else ""
        return self._said(text(note, "quiet"))

    def _nothing(self, sight: Sight) -> Strip:
        """One line instead of an empty table; no claim before the engine gave its state."""
        if not sight.now:
            return self._said(Text())
        return self._said(
            join(text(f"{self.listing.title}  ", "title"), text(self.listing.empty, self.listing.empty_style))
        )

    def _said(self, words: Text) -> Strip:
        """A line that is no row."""
        look = self._look()
        return strip([Segment(" " * MARGIN), *cell_segments(words, look.width - MARGIN, False)], look)

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

    def action_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away, and go on to the next."""
        if self.rows.cursor is not None:
            self.rows.toggle_mark(self.rows.cursor)
            self.action_move(1)
            self.post_message(self.Arranged(self))

    def action_mark_all(self) -> None:
        self.rows.mark_all()
        self._settle(False)

    def action_clear_marks(self) -> None:
        self.rows.clear_marks()
        self._settle(False)

    def action_choose(self) -> None:
        if self.rows.cursor is not None:
            self.post_message(self.Chosen(self, self.rows.cursor))

    # ------------------------------------------------------------ events

    def on_resize(self, event: events.Resize) -> None:
        if event.size.width != self._fitted:
            self._fit(event.size.width)
        self._line_looks.clear()
        self.virtual_size = Size(event.size.width, len(self.rows.keys) + 1)
        self._keep_cursor_in_sight()
        self.repaint()

    def _sort_by_name_at(self, x: int) -> None:
        """A click on a column's name sorts by it, a second one turns the order round."""
        at = MARGIN
        for column, width in self.columns:
            if at <= x < at + width and column.sort is not None:
                self.rows.sort_by(column, reverse=column is self.rows.sort and not self.rows.reverse)
                self._settle(True)
            at += width + GAP

    def on_focus(self) -> None:
        self.repaint()

    def on_blur(self) -> None:
        self.repaint()

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            self._sort_by_name_at(event.x)
            return
        index = self.scroll_offset.y + event.y - 1
        if index < len(self.rows.keys):
            again = self.rows.keys[index] == self.rows.cursor and event.chain > 1
            self._move_to(index)
            if again:
                self.action_choose()
