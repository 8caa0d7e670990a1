"""What all windows share: a box in the middle, a title, rows of name and value, Esc closes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.binding import Binding
from textual.screen import ModalScreen

from saia_tui.cells import join, text

Result = TypeVar("Result")


class Window(ModalScreen[Result]):
    DEFAULT_CSS = """
    Window { align: center middle; background: $background 60%; }
    Window > Vertical {
        width: 76; max-width: 100%; height: auto; max-height: 100%; overflow-y: auto;
        background: $surface; border: round $primary; border-title-color: $primary;
        border-title-style: bold; padding: 1 2;
    }
    Window Static { height: auto; background: $surface; }
    Window .note { margin-top: 1; }
    Window Input { border: none; height: 1; width: 1fr; background: $background; padding: 0 1; }
    Window .entry { height: 1; margin-top: 1; }
    Window .entry Static { width: auto; margin-right: 1; }
    Window .buttons { height: 1; margin-top: 1; align-horizontal: right; }
    Window Button {
        border: none; height: 1; min-width: 10; margin-left: 2; background: $background; color: $foreground;
        text-style: none;
    }
    Window Button:focus { background: $primary; color: $background; text-style: bold; }
    Window Button:disabled { color: $foreground 40%; }
    """
    BINDINGS: ClassVar = [
        Binding("escape", "cancel", show=False),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def action_cancel(self) -> None:
        self.dismiss(None)


def facts(rows: Iterable[tuple[str, str]], style: str = "") -> Text:
    """Names and values in two columns, one a line."""
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    lines = [join(text(f"{name:>{width}}  ", "quiet"), text(value, style)) for name, value in pairs]
    folded = Text("\n").join(lines)
    folded.no_wrap = False
    return folded
