"""Rich texts as segments of an exact width."""

from __future__ import annotations

from collections.abc import Iterable

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


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same to the eye in fewer pieces, for each costs the terminal's line some forty bytes of colour.

    Blanks take the style before them, unless that would show.
    """
    parts: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        last = parts[-1] if parts else None
        if last is not None and (
            last.style == segment.style
            or (segment.text.isspace() and _blank_alike(last.style, segment.style))
        ):
            parts[-1] = Segment(last.text + segment.text, last.style)
        else:
            parts.append(segment)
    return parts


def _blank_alike(one: Style | None, other: Style | None) -> bool:
    """Whether a blank looks the same in both."""
    for style in (one, other):
        if style is not None and (
            style.underline or style.strike or style.reverse or style.overline or style.link
        ):
            return False
    return (one.bgcolor if one else None) == (other.bgcolor if other else None)
