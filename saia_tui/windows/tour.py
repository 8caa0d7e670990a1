"""The first page a new operator sees, once: what the screen says, and the few keys that matter."""

from __future__ import annotations

from typing import Final

from rich.table import Table
from textual import events

from saia_tui.actions import ACTIONS, shown_keys
from saia_tui.cells import text
from saia_tui.kept import Kept, NotKept
from saia_tui.windows.pages import Page

SECTION: Final = "tour"
SCROLLING: Final = {"up", "down", "pageup", "pagedown", "home", "end", "j", "k"}


def is_due(kept: Kept) -> bool:
    """Whether this operator never saw it here; from now on it is not. Where nothing is kept it is never due."""
    if kept.file is None or kept.fault or kept.get(SECTION) is not None:
        return False
    try:
        kept.put(SECTION, {"seen": True})
    except NotKept:
        return False  # else it would be there each time
    return True


class Tour(Page):
    """Any key but those that scroll closes it, and does what it does elsewhere."""

    def __init__(self) -> None:
        super().__init__("Welcome to saia", _body())

    def on_key(self, event: events.Key) -> None:
        if event.key in SCROLLING:
            return
        event.stop()
        event.prevent_default()
        self.dismiss(None)
        if event.key not in ("escape", "enter", "space"):
            self.app.call_later(self.app.simulate_key, event.key)


def _keys(*ids: str) -> str:
    """The keys in force."""
    by_id = {action.id: action for action in ACTIONS}
    return " ".join(shown_keys(by_id[each])[0] for each in ids if each in by_id)


def _body() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column()
    for name, words in (
        (
            "first line",
            "how the engine is. Yellow, with a ▲: it is away, must not act, or Slurm does not answer",
        ),
        ("ALARMS", "what is wrong, the worst first. None: you may sleep"),
        ("SERVICES", "what shall run: ready/desired, when the next job ends, requests a second"),
        ("INSTANCES", "the jobs behind it; each is replaced before its end"),
        ("EVENTS", "what happened last, why, and who asked for it"),
        ("", ""),
        ("1 - 7", "the screens, by number"),
        (_keys("move_up", "move_down") + "  Tab", "move; to the next table"),
        (_keys("choose", "up"), "deeper into a row; back"),
        (_keys("filter"), "find rows"),
        (_keys("command"), "every action and screen by name, with completion"),
        (_keys("arm"), "arm what acts, for ten minutes; each act asks first, and can be revoked"),
        (_keys("help"), "all keys"),
        (_keys("quit"), "leave; services stay, but for those of a demo"),
    ):
        line = text(words)
        line.no_wrap = False
        grid.add_row(text(name, "key"), line)
    grid.add_row(text(""), text(""))
    grid.add_row(text(""), text("Any key goes on. `:tour` shows this page again.", "quiet"))
    return grid
