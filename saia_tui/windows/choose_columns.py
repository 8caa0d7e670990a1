"""A window to choose the columns of a table, and their order."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from saia_tui.cells import join, text
from saia_tui.chosen_columns import Choice
from saia_tui.columns import Column, Listing
from saia_tui.windows.window import Window, label


def called(column: Column) -> str:
    """A name for people: a column of signs has none above it."""
    return column.name or "(sign)"


class ColumnsWindow(Window[Choice]):
    """The choice, or None. `fitting`: names of the columns for which there is room now."""

    BINDINGS: ClassVar = [
        Binding("up,k", "go(-1)", show=False),
        Binding("down,j", "go(1)", show=False),
        Binding("space", "show_or_hide", show=False),
        Binding("shift+up,less_than_sign,left", "move(-1)", show=False),
        Binding("shift+down,greater_than_sign,right", "move(1)", show=False),
        Binding("r", "reset", show=False),
        Binding("enter", "done", show=False),
    ]

    def __init__(self, listing: Listing, choice: Choice, fitting: Collection[str]) -> None:
        super().__init__()
        self._listing = listing
        self._choice = choice
        self._fitting = fitting
        self._at = 0
        self._list = Static()

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False) as box:
            box.border_title = label(f"Columns of {self._listing.table}")
            yield self._list
            yield Static(
                text("Space shows or hides, < > move, r as at first, Enter keeps, Esc leaves", "faint"),
                classes="note",
            )

    def on_mount(self) -> None:
        self._show()

    def _show(self) -> None:
        self._list.update(
            Text("\n").join(self._line(number, column) for number, column in enumerate(self._choice.columns))
        )

    def _line(self, number: int, column: Column) -> Text:
        shown = column.name not in self._choice.hidden
        here = number == self._at
        note = "" if not shown or column.name in self._fitting else "  no room now"
        return join(
            text("▸ " if here else "  ", "key"),
            text("[x] " if shown else "[ ] ", "ok" if shown else "faint"),
            text(called(column), "strong" if here else "" if shown else "quiet"),
            text(note, "faint"),
        )

    def action_go(self, step: int) -> None:
        self._at = max(0, min(self._at + step, len(self._choice.columns) - 1))
        self._show()
        self.query_one(VerticalScroll).scroll_to(y=max(0, self._at - 3), animate=False)

    def action_show_or_hide(self) -> None:
        self._choice = self._choice.toggled(self._choice.columns[self._at].name)
        self._show()

    def action_move(self, step: int) -> None:
        moved = self._choice.moved(self._at, step)
        if moved is not self._choice:
            self._choice = moved
            self.action_go(step)

    def action_reset(self) -> None:
        self._choice = Choice(self._listing.columns)
        self._show()

    def action_done(self) -> None:
        self.dismiss(self._choice)
