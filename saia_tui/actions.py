"""All actions and their keys, in one table: bindings, the line of hints and the help come from it.

No act on the cluster lies on Ctrl alone, and none is done without a confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Group = Literal["Go to", "Move", "Find", "Act", "Program"]


@dataclass(frozen=True, slots=True)
class Action:
    name: str
    """Of the method `action_<name>`, with its arguments."""
    keys: str
    """As Textual names them, separated by commas."""
    hint: str
    """A word or two for the bottom line; empty: not shown there."""
    help: str
    group: Group
    on: tuple[str, ...] = ()
    """Tables whose rows it is for; empty: anywhere."""
    table: bool = False
    """Belongs to the table under the cursor, not to the program."""

    @property
    def of_textual(self) -> bool:
        return self.name.startswith("app.")


ACTIONS: tuple[Action, ...] = (
    Action("scale", "s", "scale", "scale the service under the cursor", "Act", ("services",)),
    Action(
        "clear_override", "u", "undo override", "back to the number in the config file", "Act", ("services",)
    ),
    Action("drain", "d", "drain", "drain the instance; its slot is filled again", "Act", ("instances",)),
    Action("maintenance", "m", "maintenance", "turn a proxy's maintenance on or off", "Act", ("proxies",)),
    Action("show('overview')", "1", "", "Overview: alarms, services, what changed last", "Go to"),
    Action("show('instances')", "2", "", "Instances", "Go to"),
    Action("show('jobs')", "3", "", "Jobs: all of the cluster's, or ours", "Go to"),
    Action("show('nodes')", "4", "", "Nodes and their GPUs", "Go to"),
    Action("show('proxies')", "5", "", "Proxies", "Go to"),
    Action("show('events')", "6", "", "Events", "Go to"),
    Action("choose", "enter", "open", "a service's instances, or all fields of a row", "Go to", table=True),
    Action("up", "escape", "", "clear the filter, then back to the overview", "Go to"),
    Action("move(-1)", "up,k", "", "one row up", "Move", table=True),
    Action("move(1)", "down,j", "", "one row down", "Move", table=True),
    Action("page(-1)", "pageup", "", "one page up", "Move", table=True),
    Action("page(1)", "pagedown", "", "one page down", "Move", table=True),
    Action("top", "home,g", "", "first row, and stay on whichever comes first", "Move", table=True),
    Action("bottom", "end,G", "", "last row", "Move", table=True),
    Action("mark", "space", "", "mark the row, or take its mark away, and go on", "Move", table=True),
    Action("mark_all", "asterisk", "", "mark all rows that are shown", "Move", table=True),
    Action("clear_marks", "minus", "", "take all marks away", "Move", table=True),
    Action("app.focus_next", "tab", "", "next table", "Move"),
    Action("app.focus_previous", "shift+tab", "", "previous table", "Move"),
    Action("filter", "slash", "filter", "words, /regex/, field=value; ! before it: not", "Find"),
    Action("sort_next", "o", "sort", "sort by the next column; after the last, worst first", "Find"),
    Action("sort_reverse", "O", "", "turn the order round", "Find"),
    Action("ours", "a", "all/ours", "all jobs, or ours only", "Find", ("jobs",)),
    Action("columns", "vertical_line", "", "choose this table's columns, and their order", "Find"),
    Action("export", "greater_than_sign", "", "write this table, or the screen, to a file", "Program"),
    Action("help", "question_mark,f1", "help", "this page", "Program"),
    Action("quit", "q", "quit", "leave; asks what becomes of an engine that was started here", "Program"),
)

SHOWN_KEYS = {
    "slash": "/",
    "question_mark": "?",
    "f1": "F1",
    "escape": "Esc",
    "enter": "Enter",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "space": "Space",
    "asterisk": "*",
    "minus": "-",
    "vertical_line": "|",
    "greater_than_sign": ">",
    "home": "Home",
    "end": "End",
    "up": "↑",
    "down": "↓",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
}


def bindings(*, table: bool) -> list[Binding]:
    """Textual's bindings of the program's actions, or of a table's.

    With priority: a key acts before the next one is looked at, so that keys typed ahead (`/drain`) go where the
    first one leads.
    """
    return [
        Binding(
            action.keys, action.name, action.hint or action.help, show=False, priority=not action.of_textual
        )
        for action in ACTIONS
        if action.table is table
    ]


def shown_keys(action: Action) -> list[str]:
    return [SHOWN_KEYS.get(key, key) for key in action.keys.split(",")]


def hints(table: str) -> list[Action]:
    """What the bottom line offers while the cursor is in this table."""
    return [action for action in ACTIONS if action.hint and (not action.on or table in action.on)]
