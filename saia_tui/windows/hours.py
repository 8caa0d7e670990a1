"""Asks for how many hours nodes are excluded."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_tui.cells import text
from saia_tui.windows.window import Window, facts, label

SHORTEST_H, LONGEST_H = 1.0 / 60.0, 365 * 24.0


class HoursWindow(Window[float]):
    """Hours, or None. Nothing is sent from here: a confirmation follows."""

    def __init__(self, nodes: Sequence[str], hours: float = 2.0) -> None:
        super().__init__()
        self._names = nodes
        self._hours = hours

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label("Exclude")
            yield Static(facts([("nodes", ", ".join(self._names))]))
            with Horizontal(classes="entry"):
                yield Static(text("no new job of ours there for so many hours:", "quiet"))
                yield Input(f"{self._hours:g}", restrict=r"[0-9]{0,4}(\.[0-9]{0,2})?", compact=True)
            yield Static(text("Enter goes on to the confirmation, Esc leaves", "faint"), classes="note")

    def on_mount(self) -> None:
        entry = self.query_one(Input)
        self.set_focus(entry)
        entry.select_all()

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if event.value.strip("."):
            hours = float(event.value)
            if SHORTEST_H <= hours <= LONGEST_H:
                self.dismiss(hours)
