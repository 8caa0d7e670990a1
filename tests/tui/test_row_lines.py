"""Lines are made anew only where something looks different, and only that is painted."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from saia_engine.view import JobView
from saia_tui.columns import TICK_S, Sight, fit
from saia_tui.listings import JOBS, LISTINGS
from saia_tui.listings.fields import since, until
from saia_tui.widgets.row_lines import MARGIN, LineLook, RowLines
from saia_tui.widgets.segments import joined
from tests.tui import sample

ROW = JobView(
    88415,
    "train",
    "anna",
    "RUNNING",
    "gpu",
    nodes="gpu01",
    end_time=1000.0,
    start_time=100.0,
    time_limit_s=900.0,
)
LOOK = LineLook(120, Style(bgcolor="#000000"))


def lines() -> RowLines:
    made = RowLines()
    made.show_columns(fit(JOBS.columns, 120 - MARGIN))
    return made


def line(made: RowLines, row: JobView, now: float, look: LineLook) -> Strip:
    return made.row("1", row, Sight(now), now, look)


def test_where_nothing_looks_different_it_is_the_very_same_strip() -> None:
    made = lines()
    first = line(made, ROW, 300.0, LOOK)
    assert line(made, ROW, 300.9, LOOK) is first
    assert line(made, ROW, 301.0, LOOK) is first  # 11m to the end, 3m since the start
    assert line(made, replace(ROW, submit_time=0.0), 301.0, LOOK) is first


def test_time_another_row_and_another_look_each_make_a_new_one() -> None:
    made = lines()
    first = line(made, ROW, 300.0, LOOK)
    later = line(made, ROW, 400.0, LOOK)
    assert "11m" in first.text and "10m" in later.text
    assert "pending" in line(made, replace(ROW, state="PENDING"), 400.0, LOOK).text
    chosen = line(made, ROW, 400.0, LineLook(120, LOOK.background, chosen=True, marked=True))
    assert chosen.text.startswith("▸*")


def test_only_the_columns_that_differ_are_painted() -> None:
    made = lines()
    first = line(made, ROW, 300.0, LOOK)
    changed = line(made, replace(ROW, gpus=4), 300.0, LOOK)
    [(begin, end)] = made.differences(first, changed)
    assert first.text[:begin] == changed.text[:begin] and first.text[end:] == changed.text[end:]
    assert changed.text[begin:end].strip() == "4" and end - begin < 10
    both = line(made, replace(ROW, gpus=4, user="bert"), 300.0, LOOK)
    assert len(made.differences(first, both)) == 2
    assert made.differences(first, first) == []


@given(st.data())
def test_what_is_painted_anew_makes_the_old_line_the_new_one(data: st.DataObject) -> None:
    table = data.draw(st.sampled_from([name for name in LISTINGS if len(sample.state()[name]) > 1]))
    rows = list(sample.state()[table].values())
    width = data.draw(st.integers(20, 220))
    made, look = RowLines(), LineLook(width, Style())
    made.show_columns(fit(LISTINGS[table].columns, width - MARGIN - 1))
    old, new = (
        made.row(str(number), data.draw(st.sampled_from(rows)), Sight(sample.NOW), sample.NOW, look)
        for number in range(2)
    )
    shown, at = [], 0
    for begin, end in [*made.differences(old, new), (width, width)]:
        shown += [old.crop(at, begin), new.crop(begin, end)]
        at = end
    assert list(_cells(Strip.join(shown))) == list(_cells(new))


def _cells(line: Strip) -> Iterator[tuple[str, Style | None]]:
    for part in line:
        for letter in part.text:
            yield letter, part.style


def test_neighbours_are_one_stretch() -> None:
    made = lines()
    first = line(made, ROW, 300.0, LOOK)
    changed = line(made, replace(ROW, user="bert", state="PENDING"), 300.0, LOOK)
    assert len(made.differences(first, changed)) == 1


def test_blanks_join_what_is_before_them_unless_that_shows() -> None:
    red, blue, lined = Style(color="red"), Style(color="blue"), Style(underline=True)
    assert joined([Segment("a", red), Segment("  ", blue), Segment("b", red)]) == [Segment("a  b", red)]
    apart = [Segment("a", lined), Segment("  ", blue), Segment("b", Style(bgcolor="red")), Segment(" ")]
    assert joined(apart) == apart
    assert joined([Segment(""), Segment("a"), Segment("b")]) == [Segment("ab")]


@given(st.floats(0, 400_000), st.floats(0, 400_000), st.floats(0, 1))
def test_a_label_of_time_holds_as_long_as_is_said(at: float, now: float, share: float) -> None:
    for label in (until, since):
        sight = Sight(now)
        first = label(at, sight)
        assert sight.until > now
        later = now + min(sight.until - 2 * TICK_S - now, 1000.0) * share
        if later > now:
            assert label(at, Sight(later)) == first
