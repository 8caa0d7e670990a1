"""The same cells in fewer bytes: each change of style costs a sequence, so that pieces that look alike become one."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

_NO_STYLE = Style()


class Tidy(LineFilter):
    """Drops empty pieces, joins what looks alike, and lets blanks go with what stands before them."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        tidy: list[Segment] = []
        for segment in segments:
            words, style, control = segment
            if control:
                tidy.append(segment)
            elif words:
                before = tidy[-1] if tidy else None
                if before is not None and not before.control and _joins(before.style, style, words):
                    tidy[-1] = Segment(before.text + words, before.style)
                else:
                    tidy.append(segment)
        return tidy


def _joins(before: Style | None, style: Style | None, words: str) -> bool:
    if before is style or before == style:
        return True
    return words.isspace() and _ground(before) == _ground(style)


@lru_cache(2048)
def _ground(style: Style | None) -> tuple[object, ...]:
    """All of a style that shows on a blank, and what a click on it does."""
    style = style or _NO_STYLE
    reverse = bool(style.reverse)
    lines = (style.underline, style.underline2, style.strike, style.overline)
    return (style.bgcolor, style.color if reverse else None, reverse, *map(bool, lines), _meta(style))


def _meta(style: Style) -> str:
    return repr(style.meta) if style.meta else ""
