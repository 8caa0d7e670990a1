"""One table on the whole screen."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult

from saia_tui.columns import Listing
from saia_tui.feed import Feed
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable


class ListView(View):
    def __init__(self, feed: Feed, listing: Listing) -> None:
        table = RowTable(listing, lambda: feed.sight)
        super().__init__(feed, table, id=listing.table, first=table)

    def compose(self) -> ComposeResult:
        yield self.first

    def caption(self) -> str:
        rows = self.first.rows
        shown = len(rows.keys)
        count = f"{shown:,}" if shown == rows.total else f"{shown:,} of {rows.total:,}"
        return f"{count}  {self.marks}" if self.marks else count

    def captions(self) -> tuple[str, ...]:
        rows = self.first.rows
        shown = len(rows.keys)
        return (*super().captions(), f"{shown}" if shown == rows.total else f"{shown}/{rows.total}")


class JobsView(ListView):
    ours_only = False

    def toggle_ours(self) -> None:
        self.ours_only = not self.ours_only
        self.first.show_where(_is_ours if self.ours_only else lambda row: True)

    def caption(self) -> str:
        return f"{'ours' if self.ours_only else 'all'}: {super().caption()}"


def _is_ours(row: Any) -> bool:
    return bool(row.instance)
