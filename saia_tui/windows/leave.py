"""On quitting: what becomes of the engine that was started here."""

from __future__ import annotations

from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from saia_tui.cells import text
from saia_tui.windows.window import Window, facts, label

Choice = Literal["keep", "stop"]


class LeaveWindow(Window[Choice]):
    """`keep`, `stop`, or None to stay."""

    BINDINGS: ClassVar = [
        Binding("k", "keep", show=False),
        Binding("s", "stop", show=False),
        Binding("c,n", "cancel", show=False),
    ]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def compose(self) -> ComposeResult:
        meaning = [
            ("Keep running", "services are kept alive and replaced in time, without a screen; "
             "saia-tui finds the engine again. (recommended)"),
            ("Stop engine", "services go on as Slurm jobs until their time limits; nothing replaces them."),
            ("Cancel", "stay here."),
        ]  # fmt: skip
        with Vertical() as box:
            box.border_title = "Leave"
            yield Static(text(f"This screen started the engine (pid {self._pid}). Shall it stay?"))
            yield Static(facts(meaning), classes="note")
            with Horizontal(classes="buttons"):
                yield Button(label("Cancel (c)"), id="cancel", compact=True)
                yield Button(label("Stop engine (s)"), id="stop", compact=True)
                yield Button(label("Keep running (k)"), id="keep", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#keep"))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#keep")
    def action_keep(self) -> None:
        self.dismiss("keep")

    @on(Button.Pressed, "#stop")
    def action_stop(self) -> None:
        self.dismiss("stop")
