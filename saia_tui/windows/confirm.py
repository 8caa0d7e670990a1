"""The windows an act passes: its effects with the focus on Cancel, and the typed name for the dangerous."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Static

from saia_tui.acts import Act
from saia_tui.cells import text
from saia_tui.windows.window import Window, facts, label


class ConfirmWindow(Window[bool]):
    """True only for the button, or `y`; Enter alone cancels."""

    BINDINGS: ClassVar = [
        Binding("y", "accept", show=False),
        Binding("n", "cancel", show=False),
    ]

    def __init__(self, act: Act) -> None:
        super().__init__()
        self._act = act

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label(self._act.title)
            yield Static(facts(self._act.effects))
            with Horizontal(classes="buttons"):
                yield Button(label("Cancel (n)"), id="cancel", compact=True)
                yield Button(label(f"{self._act.title} (y)"), id="accept", compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#cancel"))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(False)

    @on(Button.Pressed, "#accept")
    def action_accept(self) -> None:
        self.dismiss(True)


class TypedNameWindow(Window[bool]):
    """The engine wants it confirmed: the operator types the target's name."""

    def __init__(self, act: Act, why: str) -> None:
        super().__init__()
        self._act = act
        self._why = why

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label(f"{self._act.title}: are you sure?")
            yield Static(text(self._why, "warn"))
            yield Static(facts(self._act.effects[:2]), classes="note")
            with Horizontal(classes="entry"):
                yield Static(text("type the name:", "quiet"))
                yield Input(id="name", compact=True)
            with Horizontal(classes="buttons"):
                yield Button(label("Cancel"), id="cancel", compact=True)
                yield Button(label(self._act.title), id="accept", disabled=True, compact=True)

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))

    @on(Input.Changed)
    def _compare(self, event: Input.Changed) -> None:
        self.query_one("#accept", Button).disabled = event.value.strip() != self._act.target

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        if event.value.strip() == self._act.target:
            self.dismiss(True)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(False)

    @on(Button.Pressed, "#accept")
    def _accept(self) -> None:
        self.dismiss(True)
