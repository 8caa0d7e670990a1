"""Rows by key, filtered and ordered; where the cursor is. What a table shows, without the showing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from saia_tui.columns import Column, Listing


class OrderedRows:
    """Holds the rows of one listing. The cursor is a key: it stays with its row however rows move."""

    def __init__(self, listing: Listing, where: Callable[[Any], bool] = lambda row: True) -> None:
        self.listing = listing
        self.keys: list[str] = []
        """In the order shown."""
        self.total = 0
        """Rows before the filter."""
        self.cursor: str | None = None
        self.pinned = False
        """The operator moved the cursor; until then it stays on the first row, the worst."""
        self.sort: Column | None = None
        self.reverse = False
        self.filter = ""
        self._where = where
        self._rows: dict[str, Any] = {}
        self._ranks: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    @property
    def index(self) -> int:
        """Where the cursor is; 0 if there are no rows."""
        try:
            return self.keys.index(self.cursor) if self.cursor is not None else 0
        except ValueError:
            return 0

    @property
    def current(self) -> Any | None:
        return self._rows.get(self.cursor) if self.cursor is not None else None

    def take(self, rows: Mapping[str, Any], changed: Iterable[str] | None = None) -> None:
        """Copy what `changed` names, or everything; a key that `rows` lacks is gone."""
        if changed is None:
            self._rows.clear()
            self._ranks.clear()
            changed = rows.keys()
            moved = True
        else:
            moved = False
        for key in changed:
            row = rows.get(key)
            rank = None if row is None or not self._wanted(row) else self._rank(row)
            if row is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = row
            if rank is None:
                moved = self._ranks.pop(key, None) is not None or moved
            elif self._ranks.get(key) != rank:
                self._ranks[key] = rank
                moved = True
        if moved:
            self._arrange()

    def filter_by(self, words: str) -> None:
        """Rows that hold each of the words, in any case; `!word` for those that don't."""
        self.filter = words
        self._rank_all()

    def show_where(self, where: Callable[[Any], bool]) -> None:
        self._where = where
        self._rank_all()

    def sort_by(self, column: Column | None, *, reverse: bool = False) -> None:
        """None goes back to the listing's own order."""
        self.sort, self.reverse = column, reverse
        self._rank_all()

    def move_to(self, index: int) -> None:
        if self.keys:
            self.cursor = self.keys[max(0, min(index, len(self.keys) - 1))]
            self.pinned = True

    def release(self) -> None:
        """Back to the first row, to stay on whichever comes first."""
        self.pinned = False
        self._arrange()

    def _wanted(self, row: Any) -> bool:
        if not self._where(row):
            return False
        if not self.filter:
            return True
        words = self.listing.words(row).lower()
        return all(
            term[1:] not in words if term[0] == "!" and len(term) > 1 else term in words
            for term in self.filter.lower().split()
        )

    def _rank(self, row: Any) -> Any:
        if self.sort is not None and self.sort.sort is not None:
            return self.sort.sort(row)
        return self.listing.order(row)

    def _rank_all(self) -> None:
        self._ranks = {key: self._rank(row) for key, row in self._rows.items() if self._wanted(row)}
        self._arrange()

    def _arrange(self) -> None:
        at = self.index
        self.total = sum(1 for row in self._rows.values() if self._where(row))
        self.keys = sorted(sorted(self._ranks), key=self._ranks.__getitem__, reverse=self.reverse)
        if not self.keys:
            self.cursor = None
        elif not self.pinned:
            self.cursor = self.keys[0]
        elif self.cursor not in self._ranks:
            self.cursor = self.keys[min(at, len(self.keys) - 1)]
