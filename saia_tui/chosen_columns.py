"""Which columns of each table the operator wants to see, and in which order; kept from one run to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saia_tui.columns import Column, Listing
from saia_tui.kept import Kept

SECTION = "columns"


@dataclass(frozen=True, slots=True)
class Choice:
    """All columns of a listing in the order wanted, and the names of those that are not shown."""

    columns: tuple[Column, ...]
    hidden: frozenset[str] = frozenset()

    @property
    def shown(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.name not in self.hidden)

    def toggled(self, name: str) -> Choice:
        """The last one that is shown stays."""
        hidden = self.hidden ^ {name}
        return Choice(self.columns, hidden) if len(hidden) < len(self.columns) else self

    def moved(self, index: int, step: int) -> Choice:
        """The column at `index` one place on, or back; at the end it stays."""
        to = index + step
        if not 0 <= to < len(self.columns):
            return self
        columns = list(self.columns)
        columns.insert(to, columns.pop(index))
        return Choice(tuple(columns), self.hidden)


class ChosenColumns:
    """By listing. What the file says of columns that are not known any more is passed over."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def of(self, listing: Listing) -> Choice:
        found = self._section().get(listing.table)
        if not isinstance(found, dict):
            return Choice(listing.columns)
        order, hidden = _names(found.get("order")), _names(found.get("hidden"))
        by_name = {column.name: column for column in listing.columns}
        columns = [by_name[name] for name in dict.fromkeys(order) if name in by_name]
        for place, column in enumerate(listing.columns):  # new ones come where the listing has them
            if column not in columns:
                columns.insert(place, column)
        choice = Choice(tuple(columns), frozenset(hidden) & by_name.keys())
        return choice if choice.shown else Choice(listing.columns)

    def keep(self, listing: Listing, choice: Choice) -> None:
        """Raises NotKept."""
        section = dict(self._section())
        if choice == Choice(listing.columns):
            section.pop(listing.table, None)
        else:
            section[listing.table] = {
                "order": [column.name for column in choice.columns],
                "hidden": sorted(choice.hidden),
            }
        self._kept.put(SECTION, section or None)

    def _section(self) -> Mapping[str, Any]:
        found = self._kept.get(SECTION)
        return found if isinstance(found, dict) else {}


def _names(value: Any) -> Sequence[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
