"""The whole record in one line: where there is one, what of note happened, and where one is."""

from __future__ import annotations

from rich.text import Text

from saia_engine.record.index import Index
from saia_tui import moments
from saia_tui.cells import join, text

MARKS = {"alarm": ("✖", "bad"), "act": ("◆", "warn"), "engine": ("▴", "busy")}
"""In order of importance."""


def timeline(index: Index, position: float, width: int) -> Text:
    """`22:00 ─────✖──█──── ───── 08:00`."""
    begin, end = index.begin, index.end
    if begin is None or end is None:
        return text("")
    first, last = (f" {moments.hour(edge)} " for edge in (begin, end))
    room = width - len(first) - len(last)
    if room < 10:
        return text("")

    def cell(moment: float) -> int:
        return min(room - 1, max(0, int((moment - begin) / max(1.0, end - begin) * room)))

    signs: list[tuple[str, str]] = [(" ", "")] * room
    for span in index.spans:
        for at in range(cell(span.begin), cell(min(span.until, end)) + 1):
            signs[at] = ("─", "faint")
    for kind in reversed(MARKS):
        for moment in index.moments:
            if moment.kind == kind:
                signs[cell(moment.at)] = MARKS[kind]
    signs[cell(position)] = ("█", "strong")
    return join(text(first, "quiet"), *(text(sign, style) for sign, style in signs), text(last, "quiet"))
