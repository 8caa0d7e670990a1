"""The window of `:`: a line to type into, and below it what the words may become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.table import Table
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_tui.cells import text
from saia_tui.commands import Offer
from saia_tui.windows.window import Window, label

LINES = 10
"""Offers shown at once."""


class CommandWindow(Window[str]):
    """The line, or None. Nothing is carried out from here."""

    DEFAULT_CSS = """
    CommandWindow { align: center top; }
    CommandWindow .offers { height: auto; max-height: 10; margin-top: 1; }
    """
    BINDINGS: ClassVar = [
        Binding("tab", "complete", show=False, priority=True),
        Binding("down", "choose(1)", show=False, priority=True),
        Binding("up", "choose(-1)", show=False, priority=True),
    ]

    def __init__(
        self, offers: Callable[[str], Sequence[Offer]], completed: Callable[[str], str], begun: str = ""
    ) -> None:
        """`begun`: what stands in the line already."""
        super().__init__()
        self._begun = begun
        self._offers = offers
        self._completed = completed
        self._chosen = -1

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label("Command")
            with Horizontal(classes="entry"):
                yield Static(text(":", "key"))
                yield Input(id="command", compact=True)
            yield Static(classes="offers")
            yield Static(
                text("Tab completes, Up and Down choose, Enter does it, Esc leaves", "faint"), classes="note"
            )

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))
        self._take(self._begun)
        self._show()

    @on(Input.Changed)
    def _typed(self) -> None:
        self._chosen = -1
        self._show()

    def action_complete(self) -> None:
        self._take(self._completed(self.query_one(Input).value))

    def action_choose(self, step: int) -> None:
        offers = self._offers(self.query_one(Input).value)
        self._chosen = max(-1, min(len(offers) - 1, self._chosen + step))
        self._show()

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if self._chosen < 0:
            self.dismiss(event.value)
            return
        offer = self._offers(event.value)[self._chosen]
        if offer.takes:
            self._take(f"{offer.line} ")  # its words are still to be typed
        else:
            self.dismiss(offer.line)

    def _take(self, line: str) -> None:
        entry = self.query_one(Input)
        entry.value = line
        entry.cursor_position = len(line)

    def _show(self) -> None:
        offers = self._offers(self.query_one(Input).value)
        first = max(0, min(self._chosen - LINES + 1, len(offers) - LINES))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for number, offer in enumerate(offers[first : first + LINES], first):
            mark, style = ("▸", "key") if number == self._chosen else (" ", "")
            grid.add_row(text(f"{mark} {offer.line} {offer.takes}", style), text(offer.help, "quiet"))
        if not offers:
            grid.add_row(text("  nothing begins so", "faint"), text(""))
        self.query_one(".offers", Static).update(grid)
