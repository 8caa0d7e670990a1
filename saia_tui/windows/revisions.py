"""The revisions that a service was asked to run, to go back to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from saia_tui import moments
from saia_tui.cells import join, text
from saia_tui.windows.window import Window, label

Choice = tuple[str, str]
"""A revision and what became of it; an empty revision is what the file asks for."""


class RevisionsWindow(Window[Choice]):
    """The one that is chosen, or None. The newest is first; the last good one has the cursor."""

    DEFAULT_CSS = """
    RevisionsWindow > Vertical { width: 92; }
    RevisionsWindow OptionList { height: auto; max-height: 14; border: none; background: $surface; padding: 0; }
    RevisionsWindow OptionList:focus { border: none; }
    """
    BINDINGS: ClassVar = [
        Binding("j", "move(1)", show=False),
        Binding("k", "move(-1)", show=False),
    ]

    def __init__(self, answer: Mapping[str, Any], now: float) -> None:
        super().__init__()
        self._answer = answer
        self._now = now
        asked_for, pinned = answer["asked_for"], answer["pin"] is not None
        self.choices: list[Choice] = []
        self._lines: list[Text] = []
        if pinned:
            self._add(("", f"the file asks for {answer['configured']}"), "end the rollback")
        for row in reversed(answer["revisions"]):
            if row["revision"] != asked_for and not (pinned and row["revision"] == answer["configured"]):
                self._add(
                    (row["revision"], _fate(row, now)), row["revision"], "" if row["kept"] else "gone here"
                )

    def _add(self, choice: Choice, name: str, note: str = "") -> None:
        self.choices.append(choice)
        line = join(text(f"{name:<17}", "strong"), text(choice[1], "quiet"))
        self._lines.append(join(line, text(f"  {note}", "warn")) if note else line)

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label(f"Roll back {self._answer['service']}")
            yield Static(text(f"{self._answer['asked_for']} is asked for now. Go back to:"))
            yield OptionList(*(Option(line) for line in self._lines), classes="note")
            yield Static(
                text("↑ ↓ choose, Enter goes on to the confirmation, Esc leaves", "faint"), classes="note"
            )

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        self.set_focus(choices)
        good = [n for n, choice in enumerate(self.choices) if choice[0] and choice[1].startswith("good")]
        choices.highlighted = next(iter(good), 0) if self.choices else None

    def action_move(self, step: int) -> None:
        choices = self.query_one(OptionList)
        if step > 0:
            choices.action_cursor_down()
        else:
            choices.action_cursor_up()

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self.choices[event.option_index])


def _fate(row: Mapping[str, Any], now: float) -> str:
    """What became of it."""
    asked = f"asked for {moments.age(now - row['since'])} ago"
    running = f", {row['instances']} of it run" if row["instances"] else ""
    if row["failed_at"] is not None:
        return f"FAILED: {row['failure'] or 'nobody knows why'}; {asked}{running}"
    if row["good_at"] is None:
        return f"never proven; {asked}{running}"
    return f"good; {asked}{running}"
