"""Lines in fewer bytes look the same, cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from saia_tui.widgets.tidy import Tidy

GROUND = Color.parse("#000000")
COLOURS = st.sampled_from([None, "red", "#102030", "default"])
FLAGS = st.sampled_from([None, True, False])
STYLES = st.one_of(
    st.none(),
    st.builds(
        Style,
        color=COLOURS,
        bgcolor=COLOURS,
        bold=FLAGS,
        dim=FLAGS,
        underline=FLAGS,
        reverse=FLAGS,
        meta=st.sampled_from([None, {"@mouse.down": "grab"}]),
    ),
)


def _segment(words: str, style: Style | None) -> Segment:
    return Segment(words, style)


LINES = st.lists(st.builds(_segment, st.text(" ab漢│", max_size=4), STYLES), max_size=12)


def cells(line: list[Segment]) -> list[tuple[object, ...]]:
    """Each character as one sees it, and what a click on it does; of a blank only its ground shows."""
    seen: list[tuple[object, ...]] = []
    for words, style, _ in line:
        style = style or Style()
        front, back = (style.color, style.bgcolor)
        ground = (front, True) if style.reverse else (back, False)
        ink = (front, back, bool(style.reverse), bool(style.bold), bool(style.dim))
        for char in words:
            lined = bool(style.underline)
            seen.append((char, ground, lined, str(style.meta), ink if not char.isspace() else None))
    return seen


@given(LINES)
def test_a_tidy_line_looks_the_same_and_has_no_empty_pieces(line: list[Segment]) -> None:
    tidy = Tidy().apply(line, GROUND)
    assert cells(tidy) == cells(line)
    assert all(segment.text for segment in tidy)
    assert len(tidy) <= len(line)
    assert Tidy().apply(tidy, GROUND) == tidy


def test_pieces_that_look_alike_become_one_and_blanks_go_with_them() -> None:
    bold, dim = Style(bold=True, bgcolor="#102030"), Style(dim=True, bgcolor="#102030")
    line = [Segment("a", bold), Segment("", dim), Segment("  ", dim), Segment("b", bold), Segment("c", dim)]
    assert Tidy().apply(line, GROUND) == [Segment("a  b", bold), Segment("c", dim)]
