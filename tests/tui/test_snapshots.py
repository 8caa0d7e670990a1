"""Each screen at three sizes, as SVG; look at the report of pytest-textual-snapshot before accepting a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from saia_tui.app import SaiaApp
from saia_tui.terminal import Terminal
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import loaded, make, until

SIZES = [(60, 15), (80, 24), (200, 60)]
Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def still_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the sparklines would take in a sample, or several."""
    monkeypatch.setattr("saia_tui.app.SAMPLE_S", 3600.0)


def after(*keys: str) -> Callable[[Pilot[Any]], Any]:
    async def press(pilot: Pilot[Any]) -> None:
        await loaded(pilot)
        await pilot.press(*keys)
        await pilot.pause()
        for entry in pilot.app.screen.query(Input):
            entry.cursor_blink = False
        await loaded(pilot)

    return press


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("key", "12i34567")
def test_screen(snap_compare: Compare, size: tuple[int, int], key: str) -> None:
    assert snap_compare(make(FakeEngine(), armed=False), terminal_size=size, run_before=after(key))


@pytest.mark.parametrize(
    "keys",
    [
        ("s",),
        ("down", "s", "5", "enter"),
        ("i", "d"),
        ("end", "B"),
        ("A",),
        ("question_mark",),
        ("4", "enter"),
        ("i", "enter"),
        ("3", "slash", "t", "r"),
    ],
    ids=["scale", "confirm", "drain", "revisions", "config", "help", "fields", "instance", "filter"],
)
def test_window(snap_compare: Compare, keys: tuple[str, ...]) -> None:
    assert snap_compare(make(FakeEngine()), terminal_size=(80, 24), run_before=after(*keys))


def test_held(snap_compare: Compare) -> None:
    app = make(FakeEngine(), hold_s=5.0)
    assert snap_compare(app, terminal_size=(80, 24), run_before=after("down", "s", "5", "enter", "y"))


def test_engine_away(snap_compare: Compare) -> None:
    engine = FakeEngine()

    async def lose(pilot: Pilot[Any]) -> None:
        await loaded(pilot)
        engine.go_away()
        app = pilot.app
        assert isinstance(app, SaiaApp)
        await until(pilot, lambda: not app.feed.link.up)
        app.repaint()
        await pilot.pause()

    assert snap_compare(make(engine, armed=False), terminal_size=(80, 24), run_before=lose)


def test_no_color(snap_compare: Compare) -> None:
    assert snap_compare(
        make(FakeEngine(), armed=False, terminal=Terminal("none")), terminal_size=(80, 24), run_before=after()
    )


def test_nothing_yet(snap_compare: Compare) -> None:
    tables = {name: {} for name in FakeEngine().tables} | {"engine": FakeEngine().tables["engine"]}

    async def wait(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, SaiaApp)
        await until(pilot, lambda: app.feed.tables.engine is not None)
        app.repaint()
        await pilot.pause()

    assert snap_compare(make(FakeEngine(tables), armed=False), terminal_size=(80, 24), run_before=wait)
