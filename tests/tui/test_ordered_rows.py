"""The cursor stays with its row, whatever happens to the others."""

from __future__ import annotations

import random
from typing import Any

import pytest

from saia_engine.view import JobView
from saia_tui.listings import JOBS
from saia_tui.ordered_rows import OrderedRows


def job(number: int, name: str = "train", instance: str = "") -> JobView:
    return JobView(number, name, "anna", "RUNNING", instance=instance)


def filled(count: int = 5) -> tuple[OrderedRows, dict[str, JobView]]:
    rows = {str(number): job(number) for number in range(count)}
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    return ordered, rows


def test_untouched_the_cursor_is_on_the_first_row() -> None:
    ordered, rows = filled()
    assert ordered.cursor == "4"
    rows["9"] = job(9, instance="k7q2.hpc.chat.aa")
    ordered.take(rows, ["9"])
    assert ordered.cursor == "9"


def test_moved_the_cursor_stays_on_its_key() -> None:
    ordered, rows = filled()
    ordered.move_to(2)
    assert ordered.cursor == "2"
    rows["9"] = job(9)
    ordered.take(rows, ["9"])
    assert (ordered.cursor, ordered.index) == ("2", 3)


def test_when_its_row_goes_the_cursor_takes_the_place() -> None:
    ordered, rows = filled()
    ordered.move_to(2)
    del rows["2"]
    ordered.take(rows, ["2"])
    assert (ordered.cursor, ordered.index) == ("1", 2)
    ordered.take({})
    assert ordered.cursor is None and ordered.current is None


def test_a_filter_wants_all_words_and_none_of_the_excluded() -> None:
    rows = {"1": job(1, "train big"), "2": job(2, "train small"), "3": job(3, "eval")}
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    ordered.filter_by("TRAIN")
    assert ordered.keys == ["2", "1"]
    ordered.filter_by("train !small")
    assert ordered.keys == ["1"] and ordered.total == 3
    rows["4"] = job(4, "train big")
    ordered.take(rows, ["4"])
    assert ordered.keys == ["4", "1"]


def test_sorting_by_a_column_and_back() -> None:
    ordered, _ = filled(3)
    by_id = next(column for column in JOBS.columns if column.name == "JOB")
    ordered.sort_by(by_id)
    assert ordered.keys == ["0", "1", "2"]
    ordered.sort_by(by_id, reverse=True)
    assert ordered.keys == ["2", "1", "0"]
    ordered.sort_by(None)
    assert ordered.keys == ["2", "1", "0"]


def test_through_random_changes_the_cursor_keeps_its_id_and_the_order_holds() -> None:
    chance = random.Random(7)
    rows = {str(number): job(number) for number in range(200)}
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    ordered.move_to(100)
    mine = ordered.cursor
    assert mine is not None
    for step in range(2000):
        key = str(chance.randrange(400))
        if key == mine:
            continue
        if chance.random() < 0.4:
            rows.pop(key, None)
        else:
            rows[key] = job(int(key), chance.choice(["train", "eval"]), chance.choice(["", "k.h.chat.a"]))
        ordered.take(rows, [key])
        if step % 50 == 0:
            ordered.sort_by(chance.choice([None, *(c for c in JOBS.columns if c.sort)]))
        assert ordered.cursor == mine
        assert ordered.keys[ordered.index] == mine
    assert set(ordered.keys) == set(rows)
    value_of: Any = JOBS.order if ordered.sort is None else ordered.sort.sort
    values = [value_of(rows[key]) for key in ordered.keys]
    known = [value for value in values if value is not None]
    assert known == sorted(known) and values[len(known) :] == [None] * (len(values) - len(known))


def test_what_is_unknown_comes_last_in_both_directions() -> None:
    rows = {
        str(n): JobView(n, "x", "anna", "RUNNING", end_time=end)
        for n, end in enumerate([3.0, None, 1.0, None])
    }
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    ends = next(column for column in JOBS.columns if column.name == "ENDS IN")
    ordered.sort_by(ends)
    assert ordered.keys == ["2", "0", "1", "3"]
    ordered.sort_by(ends, reverse=True)
    assert ordered.keys == ["0", "2", "1", "3"]


def test_numbers_sort_as_numbers() -> None:
    rows = {str(n): job(n) for n in (9, 10, 100)}
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    ordered.sort_by(JOBS.columns[0])
    assert ordered.keys == ["9", "10", "100"]


def test_marks_come_in_the_order_shown_and_go_with_their_rows() -> None:
    ordered, rows = filled()
    for key in ("1", "3", "0"):
        ordered.toggle_mark(key)
    assert list(ordered.marked) == ["3", "1", "0"]
    ordered.toggle_mark("1")
    ordered.toggle_mark("nobody")
    assert list(ordered.marked) == ["3", "0"] and ordered.is_marked("3")
    del rows["3"]
    ordered.take(rows, ["3"])
    rows["3"] = job(3)
    ordered.take(rows, ["3"])
    assert list(ordered.marked) == ["0"]


def test_what_a_filter_hides_is_not_among_the_marked_until_it_shows_again() -> None:
    rows = {"1": job(1, "train"), "2": job(2, "eval")}
    ordered = OrderedRows(JOBS)
    ordered.take(rows)
    ordered.mark_all()
    ordered.filter_by("train")
    assert list(ordered.marked) == ["1"] and ordered.marked_unseen == 1
    ordered.filter_by("")
    assert list(ordered.marked) == ["2", "1"] and ordered.marked_unseen == 0


def test_a_filter_that_takes_too_long_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saia_tui.filters.BUDGET_S", 0.0)
    ordered, rows = filled()
    ordered.filter_by("train")
    ordered.filter_by("~nothing")
    assert "took too long" in ordered.fault and ordered.filter == "train"
    assert len(ordered.keys) == len(rows)
