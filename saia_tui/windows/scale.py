"""Asks for a service's number of replicas, beginning with the present one."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_engine.view import ServiceView
from saia_tui.cells import text
from saia_tui.windows.window import Window, facts

MOST = 9999


class ScaleWindow(Window[int]):
    """The number, or None. Nothing is sent from here: a confirmation follows."""

    BINDINGS: ClassVar = [
        Binding("up", "step(1)", show=False),
        Binding("down", "step(-1)", show=False),
    ]

    def __init__(self, row: ServiceView) -> None:
        super().__init__()
        self._row = row

    def compose(self) -> ComposeResult:
        row = self._row
        known = [
            ("service", row.name),
            ("desired", f"{row.replicas} (config file: {row.configured_replicas})"),
            ("now", f"{row.ready} ready, {row.starting} starting, {row.draining} draining"),
            ("never below", f"{row.min_available} ready, by saia's own acts"),
        ]
        with Vertical() as box:
            box.border_title = "Scale"
            yield Static(facts(known))
            with Horizontal(classes="entry"):
                yield Static(text("replicas:", "quiet"))
                yield Input(str(row.replicas), restrict=r"[0-9]{0,4}", id="replicas", compact=True)
            yield Static(
                text("↑ ↓ or type, Enter goes on to the confirmation, Esc leaves", "faint"), classes="note"
            )

    def on_mount(self) -> None:
        entry = self.query_one(Input)
        self.set_focus(entry)
        entry.select_all()

    def action_step(self, step: int) -> None:
        entry = self.query_one(Input)
        entry.value = str(max(0, min(MOST, int(entry.value or 0) + step)))
        entry.select_all()

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if event.value:
            self.dismiss(int(event.value))
