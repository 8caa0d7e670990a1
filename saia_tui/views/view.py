"""A screenful of tables; while it is shown it follows the feed."""

from __future__ import annotations

from collections.abc import Mapping

from textual.containers import Container
from textual.widget import Widget

from saia_tui.feed import Feed
from saia_tui.widgets.row_lines import MARK_SIGN
from saia_tui.widgets.row_table import RowTable


class View(Container):
    """Made with its tables; `first` is where the cursor is when it opens."""

    def __init__(self, feed: Feed, *tables: RowTable, id: str, first: RowTable) -> None:
        super().__init__(id=id)
        self.feed = feed
        self.tables = tables
        self.first = first

    def enter(self, subject: str) -> None:
        """It is shown for this service or instance now; empty: for all."""

    @property
    def entry(self) -> Widget:
        """What has the focus when it opens."""
        return self.first

    @property
    def topic(self) -> str:
        """What the keys that the bottom line offers are for; empty: the table under the cursor."""
        return ""

    def escape(self) -> bool:
        """Whether Esc meant something here; if not, it leads one level up."""
        return False

    def takes(self, action: str) -> bool:
        """Whether the program's action of this name means anything here."""
        return True

    def take_all(self) -> None:
        """Show the present state, whatever was shown before."""
        for table in self.tables:
            table.take(self.feed.rows(table.listing.table))

    def take(self, changed: Mapping[str, set[str] | None]) -> None:
        """Show the rows that changed, and let time pass in the others."""
        for table in self.tables:
            name = table.listing.table
            if name in changed:
                table.take(self.feed.rows(name), changed[name])
            else:
                table.repaint()

    def show_stale(self, stale: bool) -> None:
        for table in self.tables:
            table.show_stale(stale)

    def caption(self) -> str:
        """A few words at the right of the tabs."""
        return self.marks

    def captions(self) -> tuple[str, ...]:
        """The caption, and what is left of it where there is less room: how many rows are marked."""
        return (self.caption(), self.marks, self.few_marks)

    @property
    def marks(self) -> str:
        """How many rows are marked; empty where none is."""
        seen, unseen = self._marked
        if not seen and not unseen:
            return ""
        return f"{seen:,} marked" + (f" and {unseen:,} out of sight" if unseen else "")

    @property
    def few_marks(self) -> str:
        """The same in the fewest cells, the sum of both, with the sign that marked rows have."""
        return f"{MARK_SIGN}{sum(self._marked)}" if any(self._marked) else ""

    @property
    def _marked(self) -> tuple[int, int]:
        """Rows that are shown, and those that a filter hides."""
        return (
            sum(len(table.rows.marked) for table in self.tables),
            sum(table.rows.marked_unseen for table in self.tables),
        )
