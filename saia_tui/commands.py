"""`:` and a word or two: every action by its name, and what needs a word more than a key has room for.

:jobs   :theme light   :filter gpu03 !ready   :sort ends in   :scale chat 3   :drain chat.a81f   :quit
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from saia_engine.edge.faults import did_you_mean
from saia_engine.edge.text import clean
from saia_engine.model import short_id
from saia_tui.actions import ACTIONS, Action
from saia_tui.looks import LOOKS
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows.window import Window

if TYPE_CHECKING:
    from saia_tui.app import SaiaApp


class NotUnderstood(Exception):
    """The command can't be carried out; the text says why, and what would do."""


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    takes: str
    """What follows the name, as the list shows it."""
    help: str
    run: Callable[[SaiaApp, str], Any]
    """Of the program and all words after the name; may be async. Raises NotUnderstood."""
    words: Callable[[SaiaApp], Iterable[str]] = lambda app: ()
    """What may follow, for completion."""
    is_act: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What a typed beginning may become."""

    line: str
    takes: str = ""
    help: str = ""


def known(app: SaiaApp) -> dict[str, Command]:
    """All commands by name."""
    named = [_of_action(app, action) for action in ACTIONS if not action.table]
    return {command.name: command for command in (*named, *_OWN)}


def offers(app: SaiaApp, typed: str) -> list[Offer]:
    """What the typed beginning may become; names of screens and of what takes words come first."""
    name, space, rest = typed.lstrip(": ").partition(" ")
    commands = known(app)
    if not space:
        return [
            Offer(each.name, each.takes, each.help)
            for each in commands.values()
            if each.name.startswith(name)
        ]
    command = commands.get(name)
    if command is None:
        return []
    known_words = set(command.words(app))
    if not known_words and command.takes:  # what is typed is taken as it is: say what that may be
        return [Offer(name, command.takes, command.help)]
    words = sorted(word for word in known_words if word.lower().startswith(rest.lower()))
    return [Offer(f"{name} {clean(word)}") for word in words]


def completed(app: SaiaApp, typed: str) -> str:
    """The typed words with as much added as all offers share; a space where the command is whole."""
    name, space, rest = typed.lstrip(": ").partition(" ")
    commands = known(app)
    if not space:
        names = [each for each in commands if each.startswith(name)]
        whole = _shared(names)
        return f"{whole} " if names == [whole] and commands[whole].takes else whole or typed
    if name not in commands:
        return typed
    words = [word for word in commands[name].words(app) if word.lower().startswith(rest.lower())]
    return f"{name} {clean(_shared(words)) or rest}"


async def run(app: SaiaApp, line: str) -> None:
    """Carry out a line. Raises NotUnderstood."""
    name, _, rest = line.strip().lstrip(":").strip().partition(" ")
    if not name:
        return
    commands = known(app)
    command = commands.get(_SHORT.get(name, name)) or _meant(commands, name)
    if command is None:
        raise NotUnderstood(
            f"there is no command :{name}; {did_you_mean(name, commands) or ': alone lists them all'}"
        )
    done = command.run(app, rest.strip())
    if done is not None:
        await done


def _meant(commands: Mapping[str, Command], name: str) -> Command | None:
    """The one that begins so; an act wants its whole name."""
    found = [each for each in commands.values() if each.name.startswith(name)]
    return found[0] if len(found) == 1 and not found[0].is_act else None


# ---------------------------------------------------------------- what they do


def _of_action(app: SaiaApp, action: Action) -> Command:
    """An action of the table `ACTIONS`; screens go by their own names."""
    if action.on and action.group == "Act":
        return Command(
            action.id,
            "[NAME]" if action.id != "scale" else "[NAME] [NUMBER]",
            action.help,
            lambda app, rest: _act(app, action, rest),
            lambda app: _targets(app, action),
            is_act=True,
        )

    async def press(app: SaiaApp, rest: str) -> None:
        if rest:
            raise NotUnderstood(f":{action.id} takes no words")
        await app.run_action(action.name)

    return Command(action.id.removeprefix("show_"), "", action.help, press)


async def _act(app: SaiaApp, action: Action, rest: str) -> None:
    """Put the cursor on the named row, and open the act's ordinary window."""
    name, _, number = rest.partition(" ")
    number = number.strip()
    if number and action.id != "scale":
        raise NotUnderstood(f":{action.id} takes one name")
    if number and not (number.isascii() and number.isdigit()):
        raise NotUnderstood(f":{action.id} takes a name and a number, not {clean(number, 40)}")
    if name:
        _put_cursor(app, action, name)
        app.act_on_cursor_alone()
    await app.run_action(action.name)
    if number and isinstance(app.screen, Window):
        for entry in app.screen.query(Input).results():
            entry.value = number
            break


def _put_cursor(app: SaiaApp, action: Action, name: str) -> None:
    table_name = action.on[0]
    rows = app.feed.rows(table_name)
    exact = [key for key in rows if key == name] or [key for key in rows if short_id(key) == name]
    found = exact or [key for key in rows if short_id(key).startswith(name)]
    if len(found) != 1:
        why = "none is named" if not found else f"{len(found)} begin with"
        raise NotUnderstood(f"of the {table_name} {why} {clean(name, 100)}")
    for view in (None, table_name, "overview"):
        if view is not None:
            app.action_show(view)
        for table in app.view.query(RowTable).results():
            if table.listing.table == table_name and table.display and table.put_cursor(found[0]):
                app.screen.set_focus(table)
                return
    raise NotUnderstood(f"{clean(name, 100)} is on no screen here")


def _targets(app: SaiaApp, action: Action) -> list[str]:
    return [short_id(key) for key in app.feed.rows(action.on[0])]


def _theme(app: SaiaApp, rest: str) -> None:
    if rest not in LOOKS:
        raise NotUnderstood(f"there is no theme {clean(rest, 40)}; {did_you_mean(rest, LOOKS)}")
    app.wear(LOOKS[rest])


def _filter(app: SaiaApp, rest: str) -> None:
    app.filter_rows(rest)


def _sort(app: SaiaApp, rest: str) -> None:
    words = rest.split()
    reverse = bool(words) and words[-1] in ("reverse", "desc", "-")
    wanted = " ".join(words[:-1] if reverse else words).lower()
    table = app.table
    if not wanted:
        table.sort_on(None, reverse=reverse)
        return
    names = _columns(app)
    found = [name for name in names if name.lower() == wanted] or [
        name for name in names if wanted in name.lower()
    ]
    if not found:
        raise NotUnderstood(f"no column is named {clean(wanted, 40)}; {did_you_mean(wanted, names)}")
    table.sort_on(found[0], reverse=reverse)


def _columns(app: SaiaApp) -> list[str]:
    return [column.name for column in app.table.listing.columns if column.sort is not None and column.name]


def _replay(app: SaiaApp, rest: str) -> None:
    try:
        app.replay(rest)
    except ValueError as exc:
        raise NotUnderstood(f"{clean(rest, 40)}: {exc}") from None


_OWN = (
    Command("theme", "NAME", "dark, light, ansi (16 colours) or none", _theme, lambda app: LOOKS),
    Command("filter", "[WORDS]", "show rows that hold all words; none: all rows", _filter),
    Command("replay", "[WHEN]", "what the screen showed at 03:12, -8h ago or 2026-11-27T03:12", _replay),
    Command("sort", "[COLUMN] [reverse]", "sort by a column; none: worst first", _sort, _columns),
)
_SHORT: Mapping[str, str] = {"q": "quit", "svc": "services", "i": "instances", "h": "help", "no": "nodes"}


def _shared(words: Iterable[str]) -> str:
    """The longest beginning that all have."""
    first, *others = list(words) or [""]
    size = next(
        (at for at in range(len(first)) if any(other[at : at + 1] != first[at] for other in others)),
        len(first),
    )
    return first[:size]
