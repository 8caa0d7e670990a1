"""Shows the rows of a log window on Textual's line API; only lines that look different are painted again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from saia_tui.cells import text
from saia_tui.log.search import Pattern
from saia_tui.log.window import LogWindow, Notice
from saia_tui.palette import STYLES
from saia_tui.widgets.segments import cell_segments

SIDEWAYS = 20
HIT_MARK, NO_MARK = "▸", " "
EDGE_ROWS = 200
"""So near to the first or last row held, more is asked for."""


class LogPane(Widget, can_focus=True):
    """The top is a row's number and a line of it, so that it stays where it is while rows come and go."""

    DEFAULT_CSS = "LogPane { background: $background; }"

    class Moved(Message):
        """What is shown changed, by the operator or by another size."""

    def __init__(self, window: Callable[[], LogWindow]) -> None:
        super().__init__()
        self._window = window
        self.following = True
        self.wrap = True
        self.pattern: Pattern | None = None
        self.hit: int | None = None
        """Number of the row that was found last."""
        self._top, self._line, self._left = 0, 0, 0
        self._fresh: list[Strip] = []
        self._painted: dict[int, Strip] = {}

    # ------------------------------------------------------------ what is shown

    @property
    def rows_shown(self) -> tuple[int, int]:
        """Numbers of the first and the last row on the screen."""
        shown = [number for number, _ in self._places()]
        return (shown[0], shown[-1]) if shown else (0, 0)

    @property
    def wants_older(self) -> bool:
        return self.rows_shown[0] - self._window().first < EDGE_ROWS

    @property
    def wants_newer(self) -> bool:
        return self._window().beyond - self.rows_shown[1] < EDGE_ROWS

    def show(self) -> None:
        """Bring what the window holds to the screen; at its end, where that is followed."""
        window = self._window()
        if self.following:
            self._go_to_end()
        elif self._top < window.first:
            self._top, self._line = window.first, 0
        self.repaint()

    def show_row(self, number: int) -> None:
        """Bring a row into sight, a third from the top if it is not there."""
        first, last = self.rows_shown
        if not first <= number < last:
            self._top, self._line = number, 0
            self._step(-(self.size.height // 3))
        self.following = False
        self.repaint()

    def show_top(self, number: int) -> None:
        self._top, self._line, self.following = number, 0, False
        self._keep_in_bounds()
        self.repaint()

    def follow(self, on: bool) -> None:
        self.following = on
        self.show()

    def toggle_wrap(self) -> None:
        self.wrap, self._left, self._line = not self.wrap, 0, 0
        self.show()

    # ------------------------------------------------------------ moving

    def move_lines(self, lines: int) -> None:
        self._step(lines)
        self._moved()

    def move_pages(self, pages: int) -> None:
        self._step(pages * max(1, self.size.height - 1))
        self._moved()

    def move_sideways(self, steps: int) -> None:
        if not self.wrap:
            self._left = max(0, self._left + steps * SIDEWAYS)
            self._moved()

    def _moved(self) -> None:
        self.following = self.following and self._is_at_end()
        self.repaint()
        self.post_message(self.Moved())

    def _step(self, lines: int) -> None:
        window = self._window()
        while lines < 0 and (self._line > 0 or self._top > window.first):
            if self._line == 0:
                self._top -= 1
                self._line = self._height(self._top)
            back = min(-lines, self._line)
            self._line -= back
            lines += back
        while lines > 0 and self._top < window.beyond:
            ahead = min(lines, self._height(self._top) - self._line)
            self._line += ahead
            lines -= ahead
            if self._line >= self._height(self._top):
                self._top, self._line = self._top + 1, 0
        if lines <= 0:
            self._keep_in_bounds()

    def _keep_in_bounds(self) -> None:
        end = self._end_place()
        if (self._top, self._line) > end:
            self._top, self._line = end

    def _go_to_end(self) -> None:
        self._top, self._line = self._end_place()

    def _is_at_end(self) -> bool:
        return (self._top, self._line) >= self._end_place()

    def _end_place(self) -> tuple[int, int]:
        """The top at which the last line is at the bottom."""
        window, left = self._window(), self.size.height
        number = window.beyond
        while number > window.first and left > 0:
            number -= 1
            left -= self._height(number)
        return number, max(0, -left)

    # ------------------------------------------------------------ painting

    def repaint(self) -> None:
        if not self.display or not self.size:
            return
        self._fresh = list(self._strips())
        for y, strip in enumerate(self._fresh):
            if strip != self._painted.get(y):
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        strip = self._fresh[y] if y < len(self._fresh) else Strip.blank(self.size.width, self.rich_style)
        self._painted[y] = strip
        return strip

    def _places(self) -> Iterator[tuple[int, int]]:
        """Row and line of it, for each line on the screen that shows something."""
        number, line, beyond = self._top, self._line, self._window().beyond
        for _ in range(self.size.height):
            if number >= beyond:
                return
            yield number, line
            line += 1
            if line >= self._height(number):
                number, line = number + 1, 0

    def _strips(self) -> Iterator[Strip]:
        width = self.size.width
        shown = 0
        for number, line in self._places():
            shown += 1
            yield self._strip(number, line, width)
        for _ in range(self.size.height - shown):
            yield Strip.blank(width, self.rich_style)

    def _strip(self, number: int, line: int, width: int) -> Strip:
        mark = HIT_MARK if number == self.hit and line == 0 else NO_MARK
        segments = [
            Segment(mark, STYLES["key"]),
            *cell_segments(self._content(number, line), width - 1, False),
        ]
        return Strip(segments).adjust_cell_length(width).apply_style(Style(bgcolor=self.rich_style.bgcolor))

    def _content(self, number: int, line: int) -> Text:
        row = self._window()[number]
        if isinstance(row, Notice):
            return text(f"── {row.text} ──" if line == 0 else "", "warn")
        words = row.text
        start, part = self._part(words, line)
        shown = text(part)
        for begin, end in self.pattern.spans(words) if self.pattern else ():
            if begin < start + len(part) and end > start:
                shown.stylize(STYLES["alert"], max(0, begin - start), end - start)
        return shown

    def _part(self, words: str, line: int) -> tuple[int, str]:
        """Where a line of a row begins in it, and its words."""
        if not self.wrap:
            return (self._left, words[self._left :]) if self._left else (0, words)
        parts = self._fold(words)
        part = parts[line] if line < len(parts) else ""
        return sum(map(len, parts[:line])), part

    def _height(self, number: int) -> int:
        row = self._window()[number]
        return len(self._fold(row.text)) if self.wrap and not isinstance(row, Notice) else 1

    def _fold(self, words: str) -> list[str]:
        return fold_hard(words, max(2, self.size.width - 1))

    # ------------------------------------------------------------ events

    def on_resize(self, event: events.Resize) -> None:
        self._painted.clear()
        self._line = 0
        self.show()
        self.refresh()
        self.post_message(self.Moved())  # other rows are shown, the first ones perhaps

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self.move_lines(-3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self.move_lines(3)


def fold_hard(words: str, width: int) -> list[str]:
    """Clean words in lines of at most `width` cells (2 or more), cut wherever a line is full; never none."""
    if words.isascii():
        return [words[at : at + width] for at in range(0, len(words), width)] or [""]
    return [words] if cell_len(words) <= width else chop_cells(words, width)
