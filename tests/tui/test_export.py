"""Tables and screens as files."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saia_engine.view import JobView
from saia_tui import export
from saia_tui.columns import Sight
from saia_tui.listings import JOBS
from saia_tui.windows.export import ExportWindow
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

COLUMNS = [(column, column.width) for column in JOBS.columns]


def cells(*names: str) -> list[list[str]]:
    rows = [JobView(number, name, "anna", "RUNNING") for number, name in enumerate(names, 1)]
    return list(csv.reader(io.StringIO(export.as_csv(rows, COLUMNS, Sight(1.0)))))


def test_a_csv_has_names_and_whole_cells() -> None:
    long = "a name that is longer than its column is wide, with a comma"
    assert cells(long)[0][:3] == ["JOB", "NAME", "USER"]
    assert cells(long)[1][:3] == ["1", long, "anna"]


@given(st.text(max_size=40))
def test_no_cell_of_a_csv_is_a_formula_or_holds_a_control_character(name: str) -> None:
    for row in cells(name, f"={name}", f" +{name}"):
        assert len(row) == len(COLUMNS) - 1
        for cell in row:
            assert not any(unicodedata.category(char).startswith("C") for char in cell)
            assert not cell.startswith(export.FORMULA) and not cell.strip().startswith(export.FORMULA)


def test_formulas_become_texts() -> None:
    assert cells("=HYPERLINK(1)", "-1+1", "@x", "plain=1")[1:][0][1] == "'=HYPERLINK(1)"
    assert [row[1] for row in cells("-1+1", "@x", "plain=1")[1:]] == ["'-1+1", "'@x", "plain=1"]


def test_a_json_has_all_fields_as_they_came_in_harmless_form() -> None:
    rows = [JobView(7, name, "anna", "RUNNING") for name in sample.HOSTILE_NAMES]
    content = export.as_json(rows)
    assert content.isascii() and "\x1b" not in content
    assert [row["name"] for row in json.loads(content)] == list(sample.HOSTILE_NAMES)
    assert json.loads(content)[0]["partition"] == ""


def test_a_file_is_never_replaced_unasked(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    export.write(file, "one\n", replace=False)
    with pytest.raises(FileExistsError):
        export.write(file, "two\n", replace=False)
    export.write(file, "\udc80\n", replace=True)
    assert file.read_text() == "\\udc80\n"


async def test_by_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "slash", *"user=anna", "enter", "greater_than_sign")
        await until(pilot, lambda: isinstance(app.screen, ExportWindow))
        count = len(app.table.rows.keys)
        assert 0 < count < app.table.rows.total
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ExportWindow))
        [file] = tmp_path.iterdir()
        assert file.name.startswith("saia-jobs-") and file.suffix == ".csv"
        assert len(list(csv.reader(file.open()))) == count + 1


async def test_the_format_follows_the_name_and_replacing_takes_a_second_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.json").write_text("mine")
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "greater_than_sign")
        await until(pilot, lambda: isinstance(app.screen, ExportWindow))
        await pilot.press("ctrl+u", *"x.txt", "enter")
        await until(pilot, lambda: "ends in .csv" in words(app))
        await pilot.press("ctrl+u", *"x.json", "enter")
        await until(pilot, lambda: "it exists" in words(app))
        assert (tmp_path / "x.json").read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ExportWindow))
        assert len(json.loads((tmp_path / "x.json").read_text())) == len(sample.jobs())
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: isinstance(app.screen, ExportWindow))
        await pilot.press("up", "enter")
        await until(pilot, lambda: not isinstance(app.screen, ExportWindow))
        [picture] = tmp_path.glob("*.svg")
        assert "NODES" in picture.read_text() and "Enter writes" not in picture.read_text()


async def test_a_directory_that_is_not_there_is_said() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "greater_than_sign")
        await until(pilot, lambda: isinstance(app.screen, ExportWindow))
        await pilot.press("ctrl+u", *"/nowhere/x.csv", "enter")
        await until(pilot, lambda: "not written: No such file" in words(app))
