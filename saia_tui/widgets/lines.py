"""A page of rich lines to scroll; only visible lines that changed are painted again."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from saia_tui.palette import STYLES
from saia_tui.widgets.segments import cell_segments

MARGIN = 2
STALE = Style(dim=True, color=STYLES["faint"].color)


class Lines(ScrollView):
    DEFAULT_CSS = """
    Lines { overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; background: $background; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: Sequence[Text] = ()
        self._stale = False

    @property
    def page_width(self) -> int:
        """Cells that a line may have."""
        return max(1, self.size.width - MARGIN - 1)

    def show(self, lines: Sequence[Text], *, stale: bool = False) -> None:
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.virtual_size = Size(self.size.width, len(lines))
        restyled, self._stale = stale != self._stale, stale
        top = self.scroll_offset.y
        for y in range(top, top + self.size.height):
            if restyled or not _same(before, lines, y):
                self.refresh(Region(0, y - top, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        index, width = self.scroll_offset.y + y, self.size.width
        background = Style(bgcolor=self.rich_style.bgcolor)
        if index >= len(self._lines):
            return Strip.blank(width, background)
        segments = [Segment(" " * MARGIN), *cell_segments(self._lines[index], width - MARGIN, False)]
        if self._stale:
            segments = [*Segment.apply_style(segments, post_style=STALE)]
        return Strip(segments).adjust_cell_length(width).apply_style(background)


def _same(before: Sequence[Text], after: Sequence[Text], index: int) -> bool:
    old = before[index] if index < len(before) else None
    new = after[index] if index < len(after) else None
    if old is None or new is None:
        return old is new
    return old == new and old.style == new.style
