"""The window that each act passes: what it does to whom, a reason if one likes, and the focus on Cancel."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Static

from saia_tui.acts.plan import Plan
from saia_tui.cells import text
from saia_tui.windows.window import Window, facts, label

LONGEST_REASON = 200


class ConfirmWindow(Window[str]):
    """The reason, empty where none was given, for the button or `y`; None otherwise. Enter alone cancels.

    Where the plan has a danger, the name must be typed instead: then Enter after it is enough.
    """

    DEFAULT_CSS = """
    ConfirmWindow > Vertical { width: 92; max-height: 100%; }
    ConfirmWindow VerticalScroll { height: auto; max-height: 60vh; background: $surface; }
    """
    BINDINGS: ClassVar = [
        Binding("y", "accept", show=False),
        Binding("n", "cancel", show=False),
        Binding("r", "reason", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
    ]

    def __init__(self, plan: Plan, reason: str = "") -> None:
        super().__init__()
        self.plan = plan
        self._given = reason
        self._command = Static(classes="note")

    def compose(self) -> ComposeResult:
        plan = self.plan
        with Vertical() as box:
            box.border_title = label(plan.title)
            with VerticalScroll(can_focus=False):
                yield Static(facts(self._effects()))
                yield self._command
            for danger in plan.dangers[:3]:
                yield Static(text(f"▲ {danger}", "warn"), classes="note")
            if plan.dangers:
                with Horizontal(classes="entry"):
                    yield Static(text(f"type {plan.words[0]} to do it:", "quiet"))
                    yield Input(id="name", compact=True)
            with Horizontal(classes="entry"):
                yield Static(text("reason (r):", "quiet"))
                yield Input(
                    self._given,
                    id="reason",
                    compact=True,
                    max_length=LONGEST_REASON,
                    placeholder="for the audit",
                )
            with Horizontal(classes="buttons"):
                yield Button(label("Cancel (n)"), id="cancel", compact=True)
                name = plan.acts[0].title if plan.dangers else f"{plan.acts[0].title} (y)"
                yield Button(label(name), id="accept", disabled=bool(plan.dangers), compact=True)

    def _effects(self) -> list[tuple[str, str]]:
        plan = self.plan
        if len(plan.acts) == 1:
            return list(plan.acts[0].effects)
        rows = [(act.name, act.change) for act in plan.acts]
        return rows + [(target, f"left alone: {why}") for target, why in plan.skipped]

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#name" if self.plan.dangers else "#cancel"))
        self._show_command()

    @property
    def _reason(self) -> str:
        return self.query_one("#reason", Input).value.strip()

    @property
    def _may(self) -> bool:
        """Whether the name was typed, where it must be."""
        if not self.plan.dangers:
            return True
        return self.query_one("#name", Input).value.strip() in self.plan.words

    def _show_command(self) -> None:
        lines = [act.command_line(self._reason) for act in self.plan.acts]
        self._command.update(facts(("command" if n == 0 else "", line) for n, line in enumerate(lines)))

    @on(Input.Changed, "#name")
    def _compare(self) -> None:
        self.query_one("#accept", Button).disabled = not self._may

    @on(Input.Changed, "#reason")
    def _told(self) -> None:
        self._show_command()

    @on(Input.Submitted, "#name")
    def _typed(self) -> None:
        self.action_accept()

    @on(Input.Submitted, "#reason")
    def _reasoned(self) -> None:
        # Not sent by this Enter: the next one, or y, is on the button.
        self.set_focus(self.query_one("#accept" if self._may else "#name"))

    def action_scroll(self, lines: int) -> None:
        """A long list of targets."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_reason(self) -> None:
        self.set_focus(self.query_one("#reason"))

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)

    @on(Button.Pressed, "#accept")
    def action_accept(self) -> None:
        if self._may:
            self.dismiss(self._reason)
