"""Cursor and marks stay on their rows through some 10,000 random inserts, sorts, filters and removals."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saia_engine.view import JobView
from saia_tui.filters import Filter
from saia_tui.listings import JOBS
from saia_tui.ordered_rows import OrderedRows

SORTABLE = [column for column in JOBS.columns if column.sort is not None]
FILTERS = ["", "train", "!train", "~ai", "/e.al/", "state=running", "gpus>1", "nodes!=", "nothing has this"]
ids = st.integers(1, 60)
jobs = st.builds(
    JobView,
    id=ids,
    name=st.sampled_from(["train", "eval", "Train 2", "=cmd"]),
    user=st.sampled_from(["anna", "bert"]),
    state=st.sampled_from(["RUNNING", "PENDING"]),
    nodes=st.sampled_from(["", "gpu01"]),
    gpus=st.integers(0, 3),
    end_time=st.none() | st.sampled_from([1.0, 2.0]),
    instance=st.sampled_from(["", "", "k.h.chat.a"]),
)


def ours(row: JobView) -> bool:
    return bool(row.instance)


class Table(RuleBasedStateMachine):
    """Beside the rows, what they ought to show, found out the slow way."""

    @initialize(rows=st.lists(jobs, max_size=40))
    def begin(self, rows: list[JobView]) -> None:
        self.all = {str(row.id): row for row in rows}
        self.shown = OrderedRows(JOBS)
        self.shown.take(self.all)
        self.marks: set[str] = set()
        self.ours_only = False
        self.cursor = self.shown.cursor

    def expected(self) -> list[str]:
        wanted = Filter.parse(self.shown.filter, JOBS)
        with wanted.at_work():
            keys = [
                key
                for key in sorted(self.all)
                if wanted.wants(self.all[key]) and (not self.ours_only or ours(self.all[key]))
            ]
        rank: Any = self.shown.sort.sort if self.shown.sort is not None else JOBS.order
        known = sorted((rank(self.all[key]), key) for key in keys if rank(self.all[key]) is not None)
        if self.shown.reverse:
            known.reverse()
        return [key for _, key in known] + [key for key in keys if rank(self.all[key]) is None]

    def settled(self) -> None:
        """The cursor stays where its row is still shown."""
        before = self.cursor
        self.cursor = self.shown.cursor
        if self.shown.pinned and before in self.shown.keys:
            assert self.cursor == before

    @rule(rows=st.lists(jobs, min_size=1, max_size=30))
    def come_or_change(self, rows: list[JobView]) -> None:
        self.all |= {str(row.id): row for row in rows}
        self.shown.take(self.all, {str(row.id) for row in rows})
        self.settled()

    @rule(gone=st.sets(ids, min_size=1, max_size=20))
    def go(self, gone: set[int]) -> None:
        keys = {str(number) for number in gone}
        self.marks -= keys
        self.all = {key: row for key, row in self.all.items() if key not in keys}
        self.shown.take(self.all, keys)
        self.settled()

    @rule(kept=st.integers(0, 3))
    def snapshot(self, kept: int) -> None:
        """All of it anew, as after a gap in the stream."""
        self.all = {key: row for key, row in self.all.items() if row.id % 4 <= kept}
        self.marks &= self.all.keys()
        self.shown.take(self.all)
        self.settled()

    @rule(column=st.none() | st.sampled_from(SORTABLE), reverse=st.booleans())
    def sort(self, column: Any, reverse: bool) -> None:
        self.shown.sort_by(column, reverse=reverse)
        self.settled()

    @rule(words=st.sampled_from(FILTERS))
    def filter(self, words: str) -> None:
        self.shown.filter_by(words)
        assert self.shown.filter == words
        self.settled()

    @rule()
    def a_bad_filter(self) -> None:
        before = (self.shown.filter, list(self.shown.keys), self.shown.cursor)
        self.shown.filter_by("~(a+)+$")
        assert self.shown.fault
        assert (self.shown.filter, self.shown.keys, self.shown.cursor) == before

    @rule(only=st.booleans())
    def show_ours(self, only: bool) -> None:
        self.ours_only = only
        self.shown.show_where(ours if only else lambda row: True)
        self.settled()

    @rule(to=st.integers(-1, 60))
    def move(self, to: int) -> None:
        self.shown.move_to(to)
        self.cursor = self.shown.cursor

    @precondition(lambda self: self.shown.keys)
    @rule()
    def mark_under_the_cursor(self) -> None:
        assert self.shown.cursor is not None
        self.shown.toggle_mark(self.shown.cursor)
        self.marks ^= {self.shown.cursor}

    @rule()
    def mark_all(self) -> None:
        self.shown.mark_all()
        self.marks |= set(self.shown.keys)

    @rule()
    def clear_marks(self) -> None:
        self.shown.clear_marks()
        self.marks.clear()

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        shown = self.shown
        assert shown.keys == self.expected()
        assert list(shown.marked) == [key for key in shown.keys if key in self.marks]
        assert shown.marked_unseen == len(self.marks - set(shown.keys))
        if shown.keys:
            assert shown.cursor == shown.keys[shown.index]
            assert shown.current is self.all[shown.cursor]
        else:
            assert shown.cursor is None and shown.current is None


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
