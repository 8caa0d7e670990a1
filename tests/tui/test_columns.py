import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from saia_tui.columns import GAP, Column, fit
from saia_tui.listings import LISTINGS


def column(name: str, width: int, *, grow: int = 0, drop: int = 0, limit: int = 400) -> Column:
    return Column(name, lambda row, sight, cells: Text(name), width, grow=grow, drop=drop, limit=limit)


def test_the_least_important_column_goes_first() -> None:
    columns = [column("a", 10), column("b", 10, drop=1), column("c", 10, drop=2)]
    assert [each.name for each, _ in fit(columns, 34)] == ["a", "b", "c"]
    assert [each.name for each, _ in fit(columns, 33)] == ["a", "b"]
    assert [each.name for each, _ in fit(columns, 12)] == ["a"]


def test_what_is_left_over_goes_to_those_that_grow_up_to_their_limit() -> None:
    shown = fit([column("a", 10, grow=1, limit=12), column("b", 10), column("c", 10, grow=1)], 60)
    assert [width for _, width in shown] == [12, 10, 34]


@pytest.mark.parametrize("table", LISTINGS)
@given(width=st.integers(20, 300))
def test_every_listing_fits_every_width_it_can(table: str, width: int) -> None:
    shown = fit(LISTINGS[table].columns, width)
    used = sum(cells for _, cells in shown) + GAP * (len(shown) - 1)
    assert used <= width or all(each.drop == 0 for each, _ in shown)
    if width >= 77:  # 80 columns of a terminal
        assert used <= width


@pytest.mark.parametrize("table", LISTINGS)
def test_columns_have_names_of_their_own(table: str) -> None:
    names = [each.name for each in LISTINGS[table].columns]
    assert len(set(names)) == len(names)
