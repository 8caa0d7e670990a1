"""Rich texts as segments of an exact width."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from rich.text import Text


def cell_segments(content: Text, width: int, right: bool) -> list[Segment]:
    """Exactly `width` cells of it; what is cut off ends in `…`."""
    if width <= 0:
        return []
    if content.cell_len > width:
        content = content.copy()
        content.truncate(width, overflow="ellipsis")
    gap = Segment(" " * max(0, width - content.cell_len))
    parts = [Segment(content.plain[start:end], style) for start, end, style in _spans(content) if end > start]
    return [gap, *parts] if right else [*parts, gap]


def _spans(content: Text) -> list[tuple[int, int, Style]]:
    """Consecutive pieces of a text whose spans do not overlap, as `cells` makes them."""
    base = content.style if isinstance(content.style, Style) else Style()
    pieces: list[tuple[int, int, Style]] = []
    at = 0
    for span in content.spans:
        pieces.append((at, span.start, base))
        pieces.append((span.start, span.end, span.style if isinstance(span.style, Style) else base))
        at = span.end
    pieces.append((at, len(content.plain), base))
    return pieces
