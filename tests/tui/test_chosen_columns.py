"""Columns chosen, ordered and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from saia_tui.chosen_columns import Choice, ChosenColumns
from saia_tui.kept import Kept
from saia_tui.listings import JOBS, NODES
from saia_tui.windows.choose_columns import ColumnsWindow
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

FIRST = [column.name for column in JOBS.columns]


def names(choice: Choice) -> list[str]:
    return [column.name for column in choice.shown]


def test_at_first_a_listing_is_shown_as_it_is() -> None:
    assert names(ChosenColumns(Kept()).of(JOBS)) == FIRST


def test_a_choice_holds_at_the_next_start_for_its_table_alone(tmp_path: Path) -> None:
    file = tmp_path / "tui.json"
    chosen = ChosenColumns(Kept(file))
    chosen.keep(JOBS, chosen.of(JOBS).toggled("USER").moved(0, 1))
    again = ChosenColumns(Kept(file))
    assert names(again.of(JOBS)) == [FIRST[1], FIRST[0], *(name for name in FIRST[2:] if name != "USER")]
    assert names(again.of(NODES)) == [column.name for column in NODES.columns]
    again.keep(JOBS, Choice(JOBS.columns))
    assert Kept(file).get("columns") is None


@pytest.mark.parametrize(
    "section",
    ["x", {"jobs": 3}, {"jobs": {"order": "JOB", "hidden": {}}}, {"jobs": {"order": [1, None], "hidden": [[]]}},
     {"jobs": {"order": [], "hidden": FIRST}}],
)  # fmt: skip
def test_a_section_of_another_form_is_passed_over(section: object) -> None:
    kept = Kept()
    kept.put("columns", section)
    assert names(ChosenColumns(kept).of(JOBS)) == FIRST


def test_columns_of_other_versions_go_or_come_where_the_listing_has_them() -> None:
    kept = Kept()
    order = [*FIRST[::-1], "COLOUR", "JOB"]
    order.remove("USER")
    kept.put("columns", {"jobs": {"order": order, "hidden": ["COLOUR", "GPUS"]}})
    found = names(ChosenColumns(kept).of(JOBS))
    assert "COLOUR" not in found and "GPUS" not in found
    assert found.index("USER") == FIRST.index("USER")


def test_the_last_column_stays() -> None:
    choice = Choice(JOBS.columns[:2])
    assert choice.toggled(FIRST[0]).toggled(FIRST[1]) == choice.toggled(FIRST[0])


async def test_by_keys(tmp_path: Path) -> None:
    async with shown(FakeEngine(), (200, 60), kept=Kept(tmp_path / "tui.json")) as (app, pilot):
        await pilot.press("3", "vertical_line")
        await until(pilot, lambda: "[x] PARTITION" in words(app))
        await pilot.press(
            "greater_than_sign", "down", "down", "space"
        )  # JOB one place on; NAME and USER passed
        await until(pilot, lambda: "[ ] USER" in words(app))
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ColumnsWindow))
        header = next(line for line in words(app).splitlines() if "NODES (REASON)" in line)
        assert "USER" not in header and "PARTITION" in header
    async with shown(FakeEngine(), (200, 60), kept=Kept(tmp_path / "tui.json")) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: "NODES (REASON)" in words(app) and "USER" not in words(app))
        await pilot.press("vertical_line", "r", "enter")
        await until(pilot, lambda: "USER" in words(app))


async def test_escape_changes_nothing_and_narrow_screens_say_what_has_no_room() -> None:
    async with shown(FakeEngine(), (80, 24)) as (app, pilot):
        await pilot.press("3", "vertical_line")
        await until(pilot, lambda: isinstance(app.screen, ColumnsWindow))
        await pilot.press("space", *["down"] * 11)
        await until(pilot, lambda: "no room now" in words(app))
        await pilot.press("escape")
        await until(pilot, lambda: "  JOB " in words(app))
