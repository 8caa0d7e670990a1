"""The screen as of a past moment: in, about, and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from saia_tui.app import SaiaApp
from saia_tui.replay.source import Record
from saia_tui.replay.when import when
from saia_tui.terminal import Terminal
from tests.tui import night, sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import Clock, loaded, make, until, words

Compare = Callable[..., bool]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return night.record(tmp_path_factory.mktemp("night"))


def app_of(directory: Path, engine: FakeEngine | None = None, **options: Any) -> SaiaApp:
    options = {"armed": False, "clock": Clock()} | options
    return make(engine or FakeEngine(), record=Record(None, directory), wall=lambda: sample.NOW, **options)


@asynccontextmanager
async def replaying(
    directory: Path, moment: str, size: tuple[int, int] = (120, 40), **options: Any
) -> AsyncIterator[tuple[SaiaApp, Pilot[str]]]:
    app = app_of(directory, replay=moment, **options)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.feed.replay is not None and bool(app.feed.tables.events))
        await pilot.pause()
        yield app, pilot


async def at(pilot: Pilot[str], clock: str) -> str:
    """The screen, once it is there."""
    app = pilot.app
    assert isinstance(app, SaiaApp)
    await until(pilot, lambda: f"REPLAY 2026-11-24 {clock}" in words(app))
    return words(app)


def said(app: SaiaApp, words: str) -> bool:
    return any(words in note.message for note in app._notifications)


# ---------------------------------------------------------------- going about


async def test_it_shows_the_state_of_then_and_says_so(directory: Path) -> None:
    async with replaying(directory, "02:35:07") as (app, pilot):
        screen = await at(pilot, "02:35:00")
        assert "REPLAY 2026-11-24 02:35:00 paused" in screen.splitlines()[0]
        assert "none is ready" in screen and "✖" in screen.splitlines()[1]
        assert app.feed.now == night.at(35)
        assert "event 125" in screen and "event 126" not in screen
        assert "Slurm is silent" not in screen and "≈" not in screen


async def test_the_keys_go_by_frames_minutes_and_what_is_of_note(directory: Path) -> None:
    async with replaying(directory, "02:25") as (_, pilot):
        await at(pilot, "02:25:00")
        for key, clock in (
            ("full_stop", "02:25:10"),
            ("comma", "02:25:00"),
            ("comma", "02:24:50"),
            ("right_square_bracket", "02:25:50"),
            ("left_square_bracket", "02:24:50"),
            ("right_curly_bracket", "02:34:50"),
            ("left_curly_bracket", "02:24:50"),
            ("N", "02:20:00"),
            ("n", "02:30:00"),
            ("n", "02:40:00"),
            ("c", "02:45:00"),
            ("n", "02:55:30"),
            ("N", "02:40:00"),
            ("C", "02:40:00"),
        ):
            await pilot.press(key)
            await at(pilot, clock)
        await pilot.press("N", "N", "N", "comma")
        await at(pilot, "02:10:00")
        await pilot.press("comma", "left_curly_bracket")
        await at(pilot, "02:10:00")


async def test_whoever_presses_faster_than_it_shows_gets_there(directory: Path) -> None:
    async with replaying(directory, "02:20") as (_, pilot):
        await pilot.press(*["right_square_bracket"] * 15, *["full_stop"] * 3)
        await at(pilot, "02:35:30")


async def test_it_plays_and_pauses_and_passes_over_what_is_missing(directory: Path) -> None:
    clock = Clock()
    async with replaying(directory, "02:50:20", clock=clock) as (app, pilot):
        await pilot.press("space")
        await until(pilot, lambda: " 1x" in words(app).splitlines()[0])
        assert app.player is not None
        await at(pilot, "02:50:30")
        await pilot.pause(0.1)
        clock.at += 0.5
        await pilot.pause(0.1)
        assert "02:50:30" in words(app)
        await pilot.press("plus", "plus", "plus")
        clock.at += 5.0
        await at(pilot, "02:55:30")
        for _ in range(3):
            clock.at += 1.0
            await pilot.pause(0.05)
        await until(pilot, lambda: app.feed.now > night.at(55.5))
        assert " 10x" in words(app).splitlines()[0]
        await pilot.press("space")
        await until(pilot, lambda: "paused" in words(app))


async def test_where_there_is_no_record_the_screen_says_from_when_to_when(directory: Path) -> None:
    async with replaying(directory, "02:53") as (_, pilot):
        screen = await at(pilot, "02:53:00")
        first = screen.splitlines()[0]
        assert "no record from 02:50:30 to 02:55:30: shown is the last before it" in first
        assert "≈" in screen
        await pilot.press("right_curly_bracket")
        assert "≈" not in await at(pilot, "03:03:00")


async def test_a_place_is_asked_for_and_a_wrong_one_is_said(directory: Path) -> None:
    async with replaying(directory, "02:15") as (app, pilot):
        await pilot.press("at", *"02:33", "enter")
        await at(pilot, "02:33:00")
        await pilot.press("at", *"25:99", "enter")
        await until(pilot, lambda: said(app, "that is no moment: write 03:12"))
        await pilot.press("colon", *"replay -30m", "enter")
        await at(pilot, "02:42:00")


async def test_the_cursor_stays_on_its_row_through_seeks(directory: Path) -> None:
    async with replaying(directory, "02:35") as (app, pilot):
        await pilot.press("3", "down", "down", "down")
        key = app.table.rows.cursor
        for seek in (
            "right_curly_bracket",
            "left_curly_bracket",
            "left_curly_bracket",
            "n",
            "N",
            "full_stop",
        ):
            await pilot.press(seek)
            await pilot.pause(0.1)
            assert key in app.table.rows.keys and app.table.rows.cursor == key


async def test_events_end_at_the_moment_also_after_going_back(directory: Path) -> None:
    async with replaying(directory, "03:05") as (app, pilot):
        await pilot.press("6")
        await until(pilot, lambda: "event 150" in words(app))
        await pilot.press("colon", *"replay 02:15", "enter")
        await at(pilot, "02:15:00")
        screen = words(app)
        assert "event 105" in screen and "event 106" not in screen and "to 2 replicas" not in screen
        await pilot.press("pagedown", "end", "pagedown")
        await pilot.pause(0.1)
        assert all(row.at <= app.feed.now for row in (app.table.rows[key] for key in app.table.rows.keys))


# ---------------------------------------------------------------- in and out


async def test_from_the_present_and_back(directory: Path) -> None:
    engine = FakeEngine()
    app = app_of(directory, engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        before = words(app)
        await pilot.press("z")
        await until(pilot, lambda: said(app, "the record begins at 2026-11-24 02:10:00"))
        await at(pilot, "02:10:00")
        engine.put("alarms", {}, ["no-ready:images"])
        await pilot.press("z")
        await until(pilot, lambda: "● acting" in words(app) and "REPLAY" not in words(app))
        await loaded(pilot)
        assert app.feed.tables.engine == engine.tables["engine"]["engine"]
        assert app.feed.tables.events.keys() == engine.tables["events"].keys()
        assert before.splitlines()[0] == words(app).splitlines()[0]


async def test_no_act_can_be_asked_for(directory: Path) -> None:
    engine = FakeEngine()
    app = app_of(directory, engine, armed=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        await pilot.press("z")
        await at(pilot, "02:10:00")
        for key in ("W", "s", "P", "A", "u", "K"):
            await pilot.press(key)
            await pilot.pause()
            assert len(app.screen_stack) == 1 and not app.arming.armed
        assert said(app, "this is a replay")
        await pilot.press("z")
        await until(pilot, lambda: "● acting" in words(app))
        assert not app.arming.armed and not engine.intents


async def test_what_is_held_keeps_it_from_leaving_the_present(directory: Path) -> None:
    engine = FakeEngine()
    app = app_of(directory, engine, armed=True, hold_s=5.0)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        await pilot.press("down", "s", "5", "enter")
        await pilot.press("y")
        await until(pilot, lambda: "u revokes it" in words(app))
        await pilot.press("z")
        await until(pilot, lambda: said(app, "an act is held"))
        assert app.feed.replay is None


async def test_a_dead_engine_is_no_hindrance_and_its_last_state_comes_back(directory: Path) -> None:
    engine = FakeEngine()
    app = app_of(directory, engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        engine.go_away()
        await until(pilot, lambda: "engine away" in words(app))
        await pilot.press("z")
        assert "≈" not in await at(pilot, "02:10:00")
        await pilot.press("z")
        await until(pilot, lambda: "engine away" in words(app))
        assert app.feed.tables.engine == engine.tables["engine"]["engine"]


async def test_without_a_record_it_says_so_and_stays(tmp_path: Path) -> None:
    app = app_of(tmp_path / "none")
    async with app.run_test(size=(120, 40)) as pilot:
        await loaded(pilot)
        await pilot.press("z")
        await until(pilot, lambda: said(app, "there is no record"))
        await until(pilot, lambda: "● acting" in words(app))
        await pilot.press("W")
        assert app.arming.armed


async def test_a_damaged_record_shows_what_is_whole(directory: Path, tmp_path: Path) -> None:
    for segment in directory.iterdir():
        (tmp_path / segment.name).write_bytes(segment.read_bytes())
    victim = sorted(tmp_path.iterdir())[2]
    data = bytearray(victim.read_bytes())
    data[-500] ^= 0xFF
    victim.write_bytes(data)
    async with replaying(tmp_path, "02:39:50") as (app, pilot):
        await until(pilot, lambda: "no record from" in words(app) and "damaged" in words(app))
        await pilot.press("right_curly_bracket")
        await at(pilot, "02:49:50")


async def test_an_instances_page_and_log_are_honest(directory: Path) -> None:
    async with replaying(directory, "02:15") as (app, pilot):
        await pilot.press("i", "enter")
        await until(pilot, lambda: "01:32:07 · Ready on gpu01" in words(app))
        assert "Drain was asked for" not in words(app)  # at 02:22
        await pilot.press("right_curly_bracket")
        await until(pilot, lambda: "Drain was asked for" in words(app))
        await pilot.press("l")
        await until(pilot, lambda: "as it is now, not as it was then" in words(app))
        await pilot.press("z")
        await until(pilot, lambda: "not as it was then" not in words(app))


# ---------------------------------------------------------------- how it looks


@pytest.mark.parametrize("size", [(80, 24), (200, 60)], ids=["80x24", "200x60"])
@pytest.mark.parametrize("moment", ["02:35", "02:53"], ids=["shown", "missing"])
def test_replay(snap_compare: Compare, directory: Path, size: tuple[int, int], moment: str) -> None:
    async def ready(pilot: Pilot[Any]) -> None:
        await at(pilot, moment)
        pilot.app.clear_notifications()
        await pilot.pause()

    assert snap_compare(app_of(directory, replay=moment), terminal_size=size, run_before=ready)


def test_replay_without_colour(snap_compare: Compare, directory: Path) -> None:
    async def ready(pilot: Pilot[Any]) -> None:
        await at(pilot, "02:35")
        await pilot.press("space")
        await until(pilot, lambda: " 1x" in words(pilot.app))
        for entry in pilot.app.screen.query(Input):
            entry.cursor_blink = False

    app = app_of(directory, replay="02:35", terminal=Terminal("none"))
    assert snap_compare(app, terminal_size=(80, 24), run_before=ready)


# ---------------------------------------------------------------- moments by word


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("03:12", "2026-11-24T03:12:00"),
        ("3:12:05", "2026-11-24T03:12:05"),
        ("03:13", "2026-11-23T03:13:00"),
        ("-8h", "2026-11-23T19:12:07"),
        ("90m ago", "2026-11-24T01:42:07"),
        ("2026-11-23T03:12", "2026-11-23T03:12:00"),
        ("2026-11-23 03:12:09", "2026-11-23T03:12:09"),
        ("2026-11-23T03:12+01:00", "2026-11-23T02:12:00"),
    ],
)
def test_moments(said: str, meant: str) -> None:
    assert when(said, sample.NOW) == when(meant, sample.NOW)


@pytest.mark.parametrize(
    "said", ["", "noon", "24:00", "3:60", "-", "-x", "-8", "9999999999-01-01", "١٢:٣٠", "-1d2w"]
)
def test_what_is_no_moment(said: str) -> None:
    with pytest.raises(ValueError, match="that is no moment: write 03:12"):
        when(said, sample.NOW)
