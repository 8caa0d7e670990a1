"""Asks for the number of replicas, beginning with the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_engine.view import ServiceView
from saia_tui.cells import text
from saia_tui.windows.window import Window, facts

MOST = 1000


class ScaleWindow(Window[int]):
    """The number for all of these services, or None. Nothing is sent from here: a confirmation follows."""

    BINDINGS: ClassVar = [
        Binding("up", "step(1)", show=False),
        Binding("down", "step(-1)", show=False),
    ]

    def __init__(self, rows: Sequence[ServiceView]) -> None:
        super().__init__()
        self._rows = rows

    def compose(self) -> ComposeResult:
        first, *more = self._rows
        known = [
            ("service", first.name),
            ("desired", f"{first.replicas} (config file: {first.configured_replicas})"),
            ("now", f"{first.ready} ready, {first.starting} starting, {first.draining} draining"),
            ("never below", f"{first.min_available} ready, by saia's own acts"),
        ]
        if more:
            known = [(row.name, f"desired {row.replicas}, {row.ready} ready") for row in self._rows]
        with Vertical() as box:
            box.border_title = f"Scale {len(self._rows)} services" if more else "Scale"
            yield Static(facts(known))
            with Horizontal(classes="entry"):
                yield Static(text("replicas:", "quiet"))
                yield Input(str(first.replicas), restrict=r"[0-9]{0,4}", id="replicas", compact=True)
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
            self.dismiss(min(MOST, int(event.value)))
