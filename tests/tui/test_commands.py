"""`:` and what can be typed after it."""

from __future__ import annotations

import pytest
from textual.widgets import Input

from saia_tui import commands
from saia_tui.app import SaiaApp
from saia_tui.windows.command import CommandWindow
from saia_tui.windows.confirm import ConfirmWindow
from saia_tui.windows.pages import Page
from saia_tui.windows.scale import ScaleWindow
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words


def toasts(app: SaiaApp) -> list[str]:
    return [note.message for note in app._notifications]


def typed(line: str) -> list[str]:
    """The keys of `:line`."""
    names = {" ": "space", "-": "minus", ".": "full_stop", "_": "underscore", ":": "colon"}
    return ["colon", *(names.get(char, char) for char in line)]


@pytest.mark.parametrize(("line", "word"), [
    ("jobs", "NODES (REASON)"), ("nodes", "LIVE USE"), ("overview", "ALARM"), ("events", "EVENT"), ("job", "all: 34"),
    ("filter dmz", "dmz"), ("help", "scale the service"),
])  # fmt: skip
async def test_screens_and_actions_by_name(line: str, word: str) -> None:
    async with shown(FakeEngine(), (100, 30)) as (app, pilot):
        await pilot.press("6", *typed(line), "enter")
        await until(pilot, lambda: word in words(app) and not isinstance(app.screen, CommandWindow))
        assert toasts(app) == []


async def test_a_filter_and_an_order() -> None:
    async with shown(FakeEngine(), (120, 40)) as (app, pilot):
        await pilot.press("3", *typed("filter train !running"), "enter")
        await until(pilot, lambda: app.table.rows.filter == "train !running")
        assert 0 < len(app.table.rows.keys) < 24
        await pilot.press(*typed("filter"), "enter")
        await until(pilot, lambda: not app.table.rows.filter)
        await pilot.press(*typed("sort ends in reverse"), "enter")
        await until(pilot, lambda: app.table.rows.sort is not None)
        assert app.table.rows.sort is not None and app.table.rows.sort.name == "ENDS IN"
        assert app.table.rows.reverse
        await pilot.press(*typed("sort part"), "enter")
        await until(
            pilot, lambda: app.table.rows.sort is not None and app.table.rows.sort.name == "PARTITION"
        )
        await pilot.press(*typed("sort"), "enter")
        await until(pilot, lambda: app.table.rows.sort is None)


async def test_an_act_opens_its_ordinary_window_and_sends_nothing_by_itself() -> None:
    engine = FakeEngine()
    async with shown(engine, (120, 40)) as (app, pilot):
        await pilot.press("4", *typed("scale chat-large 5"), "enter")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
        await until(pilot, lambda: app.screen.query_one(Input).value == "5")
        assert "chat-large" in words(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert engine.intents == []
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("scale", "chat-large", 5, False)])
        await pilot.press(*typed("drain chat-small.29aa"), "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "k7q2.hpc.chat-small.29aa" in words(app)


@pytest.mark.parametrize(("line", "said"), [
    ("jbos", "there is no command :jbos; did you mean jobs?"),
    ("theme lights", "there is no theme lights; did you mean light?"),
    ("sort colour", "no column is named colour"),
    ("scale nobody 3", "of the services none is named nobody"),
    ("scale chat 3", "of the services 2 begin with chat"),
    ("scale chat-large x", "takes a name and a number, not x"),
    ("scal embed 1", "there is no command :scal; did you mean scale?"),
    ("quit now", ":quit takes no words"),
])  # fmt: skip
async def test_what_is_not_understood_is_said(line: str, said: str) -> None:
    engine = FakeEngine()
    async with shown(engine, (120, 40)) as (app, pilot):
        with pytest.raises(commands.NotUnderstood, match=said.replace("?", r"\?")):
            await commands.run(app, line)
        await pilot.press(*typed(line), "enter")
        await until(pilot, lambda: any(said in note for note in toasts(app)))
        assert len(app.screen_stack) == 1 and engine.intents == []


async def test_tab_completes_and_arrows_choose() -> None:
    async with shown(FakeEngine(), (120, 40)) as (app, pilot):
        await pilot.press(*typed("th"), "tab")
        entry = app.screen.query_one(Input)
        await until(pilot, lambda: entry.value == "theme ")
        assert all(name in words(app) for name in ("theme dark", "theme light", "theme ansi", "theme none"))
        await pilot.press("l", "tab", "enter")
        await until(pilot, lambda: app.look.name == "light")
        await pilot.press("colon", "s", "c", "down", "enter")
        await until(pilot, lambda: app.screen.query_one(Input).value == "scale ")
        await pilot.press("e", "tab", "enter")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
        assert "embed" in words(app)


async def test_escape_leaves_and_nothing_happens() -> None:
    async with shown(FakeEngine(), (120, 40)) as (app, pilot):
        await pilot.press(*typed("quit"), "escape")
        await until(pilot, lambda: not isinstance(app.screen, CommandWindow))
        assert app.is_running and not toasts(app)


async def test_the_first_page_goes_on_with_the_key_that_leaves_it() -> None:
    async with shown(FakeEngine(), (80, 24)) as (app, pilot):
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, Page))
        assert "what is wrong, the worst first" in words(app)
        await pilot.press("j", "down")
        assert isinstance(app.screen, Page)
        await pilot.press("4")
        await until(pilot, lambda: "LIVE USE" in words(app) and len(app.screen_stack) == 1)
