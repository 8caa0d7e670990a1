"""What a program does with its tables as a whole: choose their columns, write them to files."""

from __future__ import annotations

import time
from collections.abc import Iterable

from textual import work
from textual.app import App

from saia_engine.edge.text import clean
from saia_tui.chosen_columns import ChosenColumns
from saia_tui.columns import Listing
from saia_tui.kept import Kept, NotKept
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows.choose_columns import ColumnsWindow
from saia_tui.windows.export import ExportWindow


class Tabular(App[str]):
    """A program of tables. `table` is the one with the cursor."""

    def begin_tables(self, views: Iterable[View], kept: Kept) -> None:
        """Called once, before anything is shown."""
        self._all_tables = [table for view in views for table in view.tables]
        self._chosen_columns = ChosenColumns(kept)
        for table in self._all_tables:
            table.show_columns(self._chosen_columns.of(table.listing).shown)

    @property
    def table(self) -> RowTable:
        raise NotImplementedError

    def action_columns(self) -> None:
        table = self.table
        self._choose_columns(table.listing, {column.name for column, _ in table.columns})

    @work(exclusive=True, group="columns")
    async def _choose_columns(self, listing: Listing, fitting: set[str]) -> None:
        window = ColumnsWindow(listing, self._chosen_columns.of(listing), fitting)
        choice = await self.push_screen_wait(window)
        if choice is None:
            return
        try:
            self._chosen_columns.keep(listing, choice)
        except NotKept as exc:
            self.notify(clean(str(exc)), severity="warning", markup=False)
        for table in self._all_tables:
            if table.listing is listing:
                table.show_columns(choice.shown)

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        table, picture = self.table, self.export_screenshot(title="saia-tui")

        def content(kind: str) -> str:
            return picture if kind == "svg" else table.exported(kind)

        window = ExportWindow(table.listing.table, len(table.rows.keys), time.time(), content)
        file = await self.push_screen_wait(window)
        if file is not None:
            self.notify(f"written: {clean(str(file))}", markup=False)
