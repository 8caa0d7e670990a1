"""One line of rich text that is painted only when it changes."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from saia_tui.widgets.segments import cell_segments


class Line(Widget):
    DEFAULT_CSS = "Line { height: 1; background: $background; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._line = Text(end="")

    def show(self, line: Text) -> None:
        if line != self._line or line.style != self._line.style:
            self._line = line
            self.refresh()

    def render_line(self, y: int) -> Strip:
        strip = Strip(cell_segments(self._line, self.size.width, False))
        return strip.apply_style(Style(bgcolor=self.rich_style.bgcolor))
