"""What all windows share: a box in the middle, a title, rows of name and value, Esc closes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

from rich.table import Table
from textual.binding import Binding
from textual.content import Content
from textual.screen import ModalScreen

from saia_tui.cells import text

Result = TypeVar("Result")


class Window(ModalScreen[Result]):
    DEFAULT_CSS = """
    Window { align: center middle; background: $background 60%; }
    Window > Vertical, Window > VerticalScroll {
        width: 76; max-width: 100%; height: auto; max-height: 100%; overflow-y: auto;
        background: $surface; border: round $primary; border-title-color: $primary;
        border-title-style: bold; padding: 1 2;
    }
    Window Static { height: auto; background: $surface; }
    Window .note { margin-top: 1; }
    Window Input { width: 1fr; background: $background; padding: 0 1; }
    Window .entry { height: 1; margin-top: 1; }
    Window .entry Static { width: auto; margin-right: 1; }
    Window .buttons { height: 1; margin-top: 1; align-horizontal: right; }
    Window Button { min-width: 10; margin-left: 2; background: $background !important; text-style: none !important; }
    Window Button:focus {
        background: $primary !important; color: $background !important; text-style: bold underline !important;
    }
    """
    BINDINGS: ClassVar = [
        Binding("escape", "cancel", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def on_mount(self) -> None:
        self.app.clear_notifications()  # on a small screen they would lie over the buttons

    def action_cancel(self) -> None:
        self.dismiss(None)


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and values in two columns; a long value goes on below itself."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        words = text(value)
        words.no_wrap = False
        grid.add_row(text(name, "quiet"), words)
    return grid


def label(words: str) -> Content:
    """For titles and buttons: clean, never markup."""
    return Content(text(words).plain)
