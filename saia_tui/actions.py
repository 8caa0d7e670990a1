"""All actions and their keys, in one table: bindings, the line of hints and the help come from it.

No act on the cluster lies on Ctrl alone, and none is done without a confirmation. All act on the marked rows, else on
the one under the cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding
from textual.keys import format_key

Group = Literal["Go to", "Move", "Find", "Log", "Replay", "Act", "Program"]


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
    log: bool = False
    """Belongs to the log that is shown."""

    @property
    def id(self) -> str:
        """Its name in settings: `scale`, `show_jobs`, `move_up`."""
        verb, _, argument = self.name.removeprefix("app.").rstrip(")").partition("(")
        argument = {"-1": "up", "1": "down"}.get(argument, argument.strip("'"))
        return f"{verb}_{argument}" if argument else verb

    @property
    def of_textual(self) -> bool:
        return self.name.startswith("app.")


ACTIONS: tuple[Action, ...] = (
    Action("arm", "W", "arm", "allow acts for 10 minutes after the last one; again: lock them", "Act"),
    Action("scale", "s", "scale", "scale the service", "Act", ("services",)),
    Action("pause", "P", "pause", "pause the service, or resume it", "Act", ("services",)),
    Action(
        "rollback", "B", "roll back", "to a revision that one chooses, or back again", "Act", ("services",)
    ),
    Action(
        "clear_override",
        "u",
        "undo override",
        "revoke what is held; else back to the number in the config file",
        "Act",
        ("services",),
    ),
    Action("drain", "d", "drain", "drain the instance; its slot is filled again", "Act", ("instances",)),
    Action(
        "replace", "R", "replace", "replace it: hand over to a new one before its end", "Act", ("instances",)
    ),
    Action("cancel_job", "X", "cancel", "end its job at once, whatever is open on it", "Act", ("instances",)),
    Action("exclude", "E", "exclude", "no new job there for some hours, or again", "Act", ("nodes",)),
    Action("maintenance", "m", "maintenance", "turn a proxy's maintenance on or off", "Act", ("proxies",)),
    Action("revoke_key", "V", "revoke/restore", "revoke the API key, or restore it", "Act", ("keys",)),
    Action("limit_key", "L", "limits", "requests at once and a minute of the API key", "Act", ("keys",)),
    Action(
        "acknowledge",
        "K",
        "take up",
        "take up the alarm, for all screens, or leave it again",
        "Act",
        ("alarms",),
    ),
    Action("apply_config", "A", "", "look at the changed configuration file, and apply it", "Act"),
    Action("show('overview')", "1", "", "Overview: alarms, services, what changed last", "Go to"),
    Action("show('services')", "2", "", "Services; Enter leads to instances, an instance, its log", "Go to"),
    Action("show('instances')", "i", "", "Instances of all services", "Go to"),
    Action("show('jobs')", "3", "", "Jobs: all of the cluster's, or ours", "Go to"),
    Action("show('nodes')", "4", "", "Nodes and their GPUs", "Go to"),
    Action("show('requests')", "5", "", "Requests by service, model and API key", "Go to"),
    Action("show('events')", "6", "", "Events", "Go to"),
    Action("show('proxies')", "7", "", "Tunnel and proxies", "Go to"),
    Action(
        "choose",
        "enter",
        "open",
        "a service's instances, an instance; or all fields of a row",
        "Go to",
        table=True,
    ),
    Action("up", "escape", "", "clear the filter, then one level up, then the overview", "Go to"),
    Action("level_up", "backspace", "", "as Esc, but while typing", "Go to"),
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
    Action("who", "p", "by whom", "all events, or operators' acts only", "Find", ("events",)),
    Action(
        "severity", "v", "severity", "all events, warnings and worse, or critical ones", "Find", ("events",)
    ),
    Action("columns", "vertical_line", "", "choose this table's columns, and their order", "Find"),
    Action("export", "greater_than_sign", "", "write this table, or the screen, to a file", "Program"),
    Action("log", "l", "log", "what the instance printed", "Log", ("instances", "jobs")),
    Action("log_follow", "f", "follow", "stay at the end, or stand still", "Log", ("log",), log=True),
    Action("log_find", "slash", "find", "a regular expression, or plain words", "Log", ("log",), log=True),
    Action(
        "log_next(-1)",
        "n",
        "next",
        "the match before; the search goes back in time",
        "Log",
        ("log",),
        log=True,
    ),
    Action("log_next(1)", "N", "", "the match after", "Log", ("log",), log=True),
    Action("log_jump", "at", "go to", "50%, 1.5GiB, or -10m for so long ago", "Log", ("log",), log=True),
    Action(
        "log_stream",
        "t",
        "output/events",
        "what it printed, or what happened to it",
        "Log",
        ("log",),
        log=True,
    ),
    Action(
        "log_wrap",
        "w",
        "wrap",
        "long lines whole, or one line each; then ← → move",
        "Log",
        ("log",),
        log=True,
    ),
    Action("log_begin", "home,g", "", "the beginning of the file", "Log", log=True),
    Action("log_end", "end,G", "", "the end, and follow it", "Log", log=True),
    Action("log_lines(-1)", "up,k", "", "one line up", "Log", log=True),
    Action("log_lines(1)", "down,j", "", "one line down", "Log", log=True),
    Action("log_pages(-1)", "pageup,b", "", "one page up", "Log", log=True),
    Action("log_pages(1)", "pagedown,space", "", "one page down", "Log", log=True),
    Action("log_sideways(-1)", "left,h", "", "to the left, where lines are not wrapped", "Log", log=True),
    Action("log_sideways(1)", "right", "", "to the right", "Log", log=True),
    Action("replay_play", "space", "play", "in a replay: play, or pause", "Replay"),
    Action("live", "z", "back to now", "leave the replay", "Replay"),
    Action("replay_go('frame_on')", "full_stop", "step", "the next sample", "Replay"),
    Action("replay_go('frame_back')", "comma", "", "the sample before", "Replay"),
    Action("replay_go('minute_on')", "right_square_bracket", "minute", "a minute on", "Replay"),
    Action("replay_go('minute_back')", "left_square_bracket", "", "a minute back", "Replay"),
    Action(
        "replay_go('note_on')",
        "n",
        "note",
        "the next critical alarm (its begin or end), act of an operator or start of the engine",
        "Replay",
    ),
    Action("replay_go('note_back')", "N", "", "the one before", "Replay"),
    Action("replay_goto", "at", "go to", "03:12, -8h (so long ago), 2026-11-27T03:12", "Replay"),
    Action("replay_go('ten_on')", "right_curly_bracket", "10 min", "ten minutes on", "Replay"),
    Action("replay_go('ten_back')", "left_curly_bracket", "", "ten minutes back", "Replay"),
    Action("replay_go('change_on')", "c", "change", "the next change of an instance's state", "Replay"),
    Action("replay_go('change_back')", "C", "", "the one before", "Replay"),
    Action("replay_speed(1)", "plus", "faster", "up to 600 times as fast", "Replay"),
    Action("replay_speed(-1)", "minus", "", "slower", "Replay"),
    Action("replay", "z", "", "replay the last night; `:replay 03:12` begins there", "Program"),
    Action("command", "colon", "command", "actions, screens and more by name, with completion", "Program"),
    Action("copy", "y", "", "copy what is known of the row, for a ticket: to your own clipboard", "Find"),
    Action("tour", "f2", "", "the first page again", "Program"),
    Action("next_theme", "T", "", "next theme: dark, light, ansi (16 colours), none", "Program"),
    Action("help", "question_mark,f1", "help", "this page", "Program"),
    Action("quit", "q", "quit", "leave; asks what becomes of an engine that was started here", "Program"),
)

SHOWN_KEYS = {
    "slash": "/",
    "question_mark": "?",
    "colon": ":",
    "f1": "F1",
    "escape": "Esc",
    "backspace": "Backspace",
    "enter": "Enter",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "space": "Space",
    "asterisk": "*",
    "minus": "-",
    "plus": "+",
    "comma": ",",
    "full_stop": ".",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "vertical_line": "|",
    "greater_than_sign": ">",
    "at": "@",
    "left": "←",
    "right": "→",
    "home": "Home",
    "end": "End",
    "up": "↑",
    "down": "↓",
    "tab": "Tab",
    "shift+tab": "Shift+Tab",
}


def bindings(*, table: bool = False, log: bool = False) -> list[Binding]:
    """Textual's bindings of the program's actions, of a table's, or of a log's.

    With priority: a key acts before the next one is looked at, so that keys typed ahead (`/drain`) go where the
    first one leads.
    """
    return [
        Binding(
            action.keys,
            action.name,
            action.hint or action.help,
            show=False,
            priority=not action.of_textual,
            id=action.id,
        )
        for action in ACTIONS
        if action.table is table and action.log is log
    ]


REMAPPED: dict[str, str] = {}
"""Keys that the operator chose, by the action's id; see `keymap`."""


def shown_keys(action: Action) -> list[str]:
    """The keys in force."""
    return [shown_key(key) for key in REMAPPED.get(action.id, action.keys).split(",")]


def shown_key(key: str) -> str:
    """As it is written on the keyboard."""
    function_key = key[0] == "f" and key[1:].isdigit()
    return SHOWN_KEYS.get(key) or (key.upper() if function_key else format_key(key))


def hints(table: str, *, armed: bool | None, replaying: bool = False) -> list[Action]:
    """What the bottom line offers while the cursor is in this table; acts only while they are armed.

    None: nothing can arm them. In a replay its own keys come first.
    """
    offered = [
        action
        for action in ACTIONS
        if action.hint
        and (not action.on or table in action.on)
        and (action.group != "Act" or (armed is not None and armed != (action.name == "arm")))
        and (action.group != "Replay" or replaying)
    ]
    return sorted(offered, key=lambda action: action.group != "Replay")
