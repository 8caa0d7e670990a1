from __future__ import annotations

from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from saia_tui.cells import gpu_cells, gpu_marks, heat_cells, meter, sparkline, text
from saia_tui.columns import Sight
from saia_tui.listings import JOBS
from saia_tui.widgets.segments import cell_segments
from tests.tui.sample import HOSTILE_NAMES, jobs


@given(st.text(st.characters(codec=None), max_size=60))
def test_no_control_byte_passes_and_markup_stays_text(hostile: str) -> None:
    shown = text(hostile)
    assert not {category(char) for char in shown.plain} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not shown.spans


@given(st.text(max_size=40), st.integers(0, 50), st.booleans())
def test_a_cell_is_exactly_as_wide_as_its_column(words: str, width: int, right: bool) -> None:
    segments = cell_segments(text(words), width, right)
    assert sum(segment.cell_length for segment in segments) == width


def test_hostile_job_names_stay_in_their_cells() -> None:
    rows = [row for row in jobs().values() if row.name in HOSTILE_NAMES]
    assert len(rows) == len(HOSTILE_NAMES)
    for row in rows:
        for column in JOBS.columns:
            assert column.cell(row, Sight(0.0), column.width).plain.isprintable()


def test_gpu_cells_tell_ours_others_and_free() -> None:
    assert gpu_cells(4, 2, 3, 8).plain == "■■▣□"
    assert gpu_cells(4, 0, 0, 8, usable=False).plain == "××××"
    assert gpu_cells(16, 2, 3, 8).plain == "2+1/16"


def test_heat_shows_how_busy_each_of_our_gpus_is() -> None:
    marks = gpu_marks(6, 4, 5)
    assert marks == "■■■■▣□"
    assert heat_cells(marks, [0.0, 12.0, 88.0, None], 8).plain == "·░█■▣□"
    assert heat_cells(marks, [0.0, 12.0, 100.0, None], 24).plain == "·0  ░12 █100■   ▣   □   "
    assert heat_cells(gpu_marks(2, 0, 0, usable=False), [], 4).plain == "××"


def test_sparkline_is_as_wide_as_asked() -> None:
    assert sparkline([0, 1, 2], 5).plain == "▁▁▁▄▇"
    assert sparkline([], 4).plain == "▁▁▁▁"
    assert sparkline([5.0] * 100, 3).plain == "▇▇▇"


def test_unknown_use_is_never_zero() -> None:
    assert meter(None, 4).plain == "–"
    assert meter(0.0, 4).plain == "────   0%"
