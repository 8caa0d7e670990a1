"""Rows by key, filtered, ordered and marked; where the cursor is. What a table shows, without the showing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Set
from math import isnan
from typing import Any, Final

from saia_tui.columns import Column, Listing
from saia_tui.filters import EVERYTHING, BadFilter, Filter

FEW = 16
"""Up to one row in so many is moved on its own."""
HIDDEN: Final = object()
"""The rank of a row that is not shown. None is the rank of one whose value is unknown."""


class OrderedRows:
    """Holds the rows of one listing. Cursor and marks are keys: they stay with their rows however these move."""

    def __init__(self, listing: Listing, where: Callable[[Any], bool] = lambda row: True) -> None:
        self.listing = listing
        self.keys: list[str] = []
        """In the order shown."""
        self.cursor: str | None = None
        self.index = 0
        """Where the cursor is; 0 if there are no rows."""
        self.pinned = False
        """The operator moved the cursor; until then it stays on the first row, the worst."""
        self.sort: Column | None = None
        self.reverse = False
        self.fault = ""
        """Why the filter that was asked for last is not in force."""
        self._filter: Filter = EVERYTHING
        self._where = where
        self._rows: dict[str, Any] = {}
        self._inside: set[str] = set()
        """Those of `where`."""
        self._marks: set[str] = set()
        self._rank = self._ranking()
        self._ranks: dict[str, Any] = {}
        """Of the rows shown."""
        self._known: list[str] = []
        """Keys of the rows shown, by ascending rank."""
        self._unknown: list[str] = []
        """Those whose rank is unknown: they come last in both directions."""

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    @property
    def total(self) -> int:
        """Rows before the filter."""
        return len(self._inside)

    @property
    def filter(self) -> str:
        """As it was asked for."""
        return self._filter.text

    @property
    def current(self) -> Any | None:
        return self._rows.get(self.cursor) if self.cursor is not None else None

    # ------------------------------------------------------------ rows

    def take(self, rows: Mapping[str, Any], changed: Iterable[str] | None = None) -> None:
        """Copy what `changed` names, or everything; a key that `rows` lacks is gone, and its mark with it."""
        changed = None if changed is None else set(changed)
        if changed is None or len(changed) > len(self._rows):
            self._rows = dict(rows)
            self._inside = {key for key, row in rows.items() if self._where(row)}
            self._marks &= self._rows.keys()
            self._rank_all()
            return
        moved: dict[str, Any] = {}
        with self._filter.at_work():
            for key in changed:
                row = rows.get(key)
                rank = HIDDEN if row is None else self._keep(key, row)
                if row is None:
                    self._forget(key)
                if self._ranks.get(key, HIDDEN) != rank:
                    moved[key] = rank
        if self._filter.too_slow:
            self._give_up()
        elif moved:
            self._move(moved)
            self._arrange()

    def _keep(self, key: str, row: Any) -> Any:
        """Its rank."""
        self._rows[key] = row
        if not self._where(row):
            self._inside.discard(key)
            return HIDDEN
        self._inside.add(key)
        return self._rank(key, row) if self._filter.wants(row) else HIDDEN

    def _forget(self, key: str) -> None:
        self._rows.pop(key, None)
        self._inside.discard(key)
        self._marks.discard(key)

    # ------------------------------------------------------------ which, and in which order

    def filter_by(self, asked: str) -> None:
        """See `filters`. One that can't be understood changes nothing and is told of in `fault`."""
        try:
            wanted = Filter.parse(asked, self.listing)
        except BadFilter as exc:
            self.fault = str(exc)
            return
        before, self._filter, self.fault = self._filter, wanted, ""
        if not self._rank_all():
            self._filter = before
            self._rank_all()

    def show_where(self, where: Callable[[Any], bool]) -> None:
        self._where = where
        self._inside = {key for key, row in self._rows.items() if where(row)}
        self._rank_all()

    def sort_by(self, column: Column | None, *, reverse: bool = False) -> None:
        """None goes back to the listing's own order. What is unknown comes last in both directions."""
        self.sort, self.reverse = column, reverse
        self._rank = self._ranking()
        self._rank_all()

    def _ranking(self) -> Callable[[str, Any], Any]:
        """From a row's key and the row to its rank, which ends in the key: no two rows have the same."""
        order, value_of = self.listing.order, self.sort and self.sort.sort
        if value_of is None:
            return lambda key, row: (*order(row), key)

        def rank(key: str, row: Any) -> Any:
            value = value_of(row)
            unknown = value is None or (isinstance(value, float) and isnan(value))
            return None if unknown else (value, key)

        return rank

    def _rank_all(self) -> bool:
        """False where the filter took too long, and is not in force any more."""
        wants, rank, inside = self._filter.wants, self._rank, self._inside
        with self._filter.at_work():
            self._ranks = {
                key: rank(key, row) for key, row in self._rows.items() if key in inside and wants(row)
            }
        if self._filter.too_slow:
            self._give_up()
            return False
        self._known = [key for key, rank in self._ranks.items() if rank is not None]
        self._unknown = [key for key, rank in self._ranks.items() if rank is None]
        self._sort()
        self._arrange()
        return True

    def _give_up(self) -> None:
        self.fault = f"{self._filter.text!r} took too long, and is not in force: make it simpler"
        self._filter = EVERYTHING
        self._rank_all()

    def _move(self, moved: Mapping[str, Any]) -> None:
        """Give rows their new ranks."""
        if len(moved) * FEW > len(self._known):
            self._merge(moved)
            return
        for key, rank in moved.items():
            self._take_out(key)
            if rank is not HIDDEN:
                self._ranks[key] = rank
                if rank is None:
                    insort(self._unknown, key)
                else:
                    insort(self._known, key, key=self._ranks.__getitem__)

    def _take_out(self, key: str) -> None:
        rank = self._ranks.get(key, HIDDEN)
        if rank is None:
            del self._unknown[bisect_left(self._unknown, key)]
        elif rank is not HIDDEN:
            del self._known[self._among_known(rank)]
        self._ranks.pop(key, None)

    def _among_known(self, rank: Any) -> int:
        return bisect_left(self._known, rank, key=self._ranks.__getitem__)

    def _merge(self, moved: Mapping[str, Any]) -> None:
        """As `_move`, for many."""
        self._known = [key for key in self._known if key not in moved]
        self._unknown = [key for key in self._unknown if key not in moved]
        for key, rank in moved.items():
            if rank is HIDDEN:
                self._ranks.pop(key, None)
                continue
            self._ranks[key] = rank
            (self._unknown if rank is None else self._known).append(key)
        self._sort()

    def _sort(self) -> None:
        """Quick where most of them are in order already."""
        self._known.sort(key=self._ranks.__getitem__)
        self._unknown.sort()

    def _arrange(self) -> None:
        self.keys = list(self._known)
        if self.reverse:
            self.keys.reverse()
        self.keys += self._unknown
        if not self.keys:
            self.cursor, self.index = None, 0
        elif not self.pinned:
            self.cursor, self.index = self.keys[0], 0
        elif self.cursor in self._ranks:
            self.index = self._place(self.cursor)
        else:
            self.index = min(self.index, len(self.keys) - 1)
            self.cursor = self.keys[self.index]

    def _place(self, key: str) -> int:
        """Where a row that is shown is."""
        rank = self._ranks[key]
        if rank is None:
            return len(self._known) + bisect_left(self._unknown, key)
        at = self._among_known(rank)
        return len(self._known) - 1 - at if self.reverse else at

    # ------------------------------------------------------------ cursor

    def move_to(self, index: int) -> None:
        if self.keys:
            self.index = max(0, min(index, len(self.keys) - 1))
            self.cursor = self.keys[self.index]
            self.pinned = True

    def release(self) -> None:
        """Back to the first row, to stay on whichever comes first."""
        self.pinned = False
        self._arrange()

    # ------------------------------------------------------------ marks

    @property
    def marked(self) -> Set[str]:
        """Keys of the marked rows, in the order shown. What a filter hides is not among them: see `marked_unseen`."""
        if not self._marks:
            return {}.keys()
        return dict.fromkeys(key for key in self.keys if key in self._marks).keys()

    @property
    def marked_unseen(self) -> int:
        """Marked rows that are not shown now; their marks come back with them."""
        return sum(1 for key in self._marks if key not in self._ranks)

    def is_marked(self, key: str) -> bool:
        return key in self._marks

    def toggle_mark(self, key: str) -> None:
        if key in self._rows:
            self._marks ^= {key}

    def mark_all(self) -> None:
        """All that are shown."""
        self._marks.update(self.keys)

    def clear_marks(self) -> None:
        """Also of what is not shown."""
        self._marks.clear()
