"""A log on the screen: followed, searched, jumped about in, and never read whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from saia_engine.client import EngineUnreachable
from saia_tui.app import SaiaApp
from saia_tui.views.log import LogView
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

ID = "k7q2.hpc.chat-large.a81f"
KIB, MIB = 1024, 1024**2


def numbered(count: int, **odd: str) -> bytes:
    """Lines of 100 bytes; `odd` replaces some: `line_7="..."`."""
    lines = [odd.get(f"line_{number}", f"line {number}") for number in range(count)]
    return b"".join(line.ljust(99).encode() + b"\n" for line in lines)


def view(app: SaiaApp) -> LogView:
    found = app.view
    assert isinstance(found, LogView)
    return found


def on_screen(app: SaiaApp, *parts: str) -> Callable[[], bool]:
    return lambda: all(part in words(app) for part in parts)


async def opened(app: SaiaApp, pilot: Pilot[Any], *parts: str) -> LogView:
    await pilot.press("i", "l")
    await until(pilot, on_screen(app, "chat-large.a81f log", *parts))
    return view(app)


async def test_l_shows_the_end_of_a_log_and_follows_it() -> None:
    engine = FakeEngine()
    engine.printed = bytearray(numbered(5000))
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "line 4999", "● following", "488.3 KiB of 488.3 KiB (100%)")
        assert sum(size for _, size in engine.log_reads) == 64 * KIB, "only the end is read"
        engine.printed += b"one more\nand a part"
        await until(pilot, on_screen(app, "one more", "and a part"))
        assert sum(size for _, size in engine.log_reads) == 64 * KIB + 19, "only new bytes are read"
        await pilot.press("escape")
        await until(pilot, lambda: app.view.id == "instances")
        reads = len(engine.log_reads)
        engine.printed += b"nobody looks\n"
        await pilot.pause(0.2)
        assert len(engine.log_reads) == reads, "nothing is read for nobody"


async def test_the_way_to_a_log_has_crumbs_from_an_instance_and_from_a_job() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("2", "down", "enter", "enter", "l")
        await until(pilot, on_screen(app, "services › chat-large › chat-large.a81f › log", "ready"))
        await pilot.press("escape")
        await until(pilot, lambda: app.view.id == "instance")
        await pilot.press("3", "l")
        await until(pilot, on_screen(app, "jobs › ", " log", "ready"))
        await pilot.press("escape", "end", "l")
        await until(pilot, lambda: any("is not saia's" in note.message for note in app._notifications))


async def test_moving_up_stands_still_while_more_comes_and_f_follows_again() -> None:
    engine = FakeEngine()
    engine.printed = bytearray(numbered(200))
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "line 199")
        await pilot.press("up")
        await until(pilot, on_screen(app, "○ standing still"))
        before = words(app).splitlines()[5:30]
        engine.printed += numbered(50)
        await until(pilot, lambda: view(app).reader.size == 25_000)
        assert words(app).splitlines()[5:30] == before
        await pilot.press("f")
        await until(pilot, on_screen(app, "line 49 ", "● following"))
        await pilot.press("f")
        await until(pilot, on_screen(app, "○ standing still"))


async def test_a_large_file_is_read_only_around_where_one_is() -> None:
    engine = FakeEngine()
    engine.printed = numbered(400_000)
    async with shown(engine) as (app, pilot):
        log = await opened(app, pilot, "line 399999")
        await pilot.press("g")
        await until(pilot, on_screen(app, "line 0 ", "line 20 ", "○ standing still"))
        await pilot.press("at", *"50%", "enter")
        await until(pilot, on_screen(app, "line 200000 "))
        await pilot.press("pageup")
        await until(pilot, on_screen(app, "line 199980 "))
        for _ in range(60):
            if "line 199000 " not in words(app):
                await pilot.press("pageup")
        await until(pilot, on_screen(app, "line 199000 "))
        await pilot.press("G")
        await until(pilot, on_screen(app, "line 399999", "● following"))
        assert sum(size for _, size in engine.log_reads) < MIB
        assert log.reader.window.beyond - log.reader.window.first < 50_000


async def test_search_goes_back_through_what_is_not_held_and_n_goes_on() -> None:
    engine = FakeEngine()
    engine.printed = numbered(
        100_000, line_7="Error: first", line_50000="a CUDA error here", line_99990="ERROR late"
    )
    async with shown(engine) as (app, pilot):
        log = await opened(app, pilot, "line 99999")
        await pilot.press("slash", *"err.r", "enter")
        await until(pilot, on_screen(app, "▸ERROR late"))
        await pilot.press("n")
        await until(pilot, on_screen(app, "▸a CUDA error here"))
        await pilot.press("n")
        await until(pilot, on_screen(app, "▸Error: first"))
        await pilot.press("n")
        await until(pilot, on_screen(app, "no earlier line matches err.r"))
        await pilot.press("N")
        await until(pilot, on_screen(app, "▸a CUDA error here"))
        await pilot.press("escape")
        assert log.pane.pattern is None and app.view.id == "log"


async def test_a_search_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    engine.printed = numbered(60_000)
    async with shown(engine) as (app, pilot):
        log = await opened(app, pilot, "line 59999")
        real = engine._piece

        def slow(*asked: Any) -> Any:
            piece = real(*asked)
            if asked[2] == MIB:
                raise EngineUnreachable("slow")
            return piece

        monkeypatch.setattr(engine, "_piece", slow)
        await pilot.press("slash", *"nowhere", "enter")
        await until(pilot, on_screen(app, "slow"))
        monkeypatch.setattr(engine, "_piece", real)

        async def never(*_: Any, **__: Any) -> Any:
            log.reader.busy = "searching back: 5.7 MiB left, Esc stops"
            log.reader._on_change()
            await pilot.pause(60)

        monkeypatch.setattr(log.reader, "_find_before", never)
        await pilot.press("n")
        await until(pilot, on_screen(app, "Esc stops"))
        await pilot.press("escape")
        await until(pilot, on_screen(app, "stopped"))
        assert app.view.id == "log" and not log.reader.busy


async def test_so_long_ago_is_found_by_the_times_in_the_lines() -> None:
    engine = FakeEngine()
    lines = [f"2026-11-24T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z step {second}\n"
             for second in range(11_527)]  # fmt: skip
    engine.printed = "".join(lines).encode()
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "step 11526")
        await pilot.press("at", *"-1h", "enter")
        await until(pilot, on_screen(app, "step 7927"))
        assert "step 7926" not in words(app)
        await pilot.press("at", *"soon", "enter")
        await until(pilot, on_screen(app, "write 50%"))
        engine.printed = numbered(5000)
        engine.files += 1
        await pilot.press("G", "at", *"-1h", "enter")
        await until(pilot, on_screen(app, "tell no times"))


async def test_t_shows_what_happened_to_the_instance_instead() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await opened(app, pilot, "ready")
        await pilot.press("t")
        await until(pilot, on_screen(app, "drain-asked: by hand (uid 1004)", "events"))
        await pilot.press("t")
        await until(pilot, on_screen(app, "loading"))


async def test_long_lines_wrap_or_are_moved_sideways() -> None:
    engine = FakeEngine()
    engine.printed = b"begin " + b"x" * 140 + b" end\n"
    async with shown(engine, (80, 24)) as (app, pilot):
        await opened(app, pilot, "begin", " end")
        await pilot.press("w")
        await until(pilot, on_screen(app, "not wrapped"))
        assert " end" not in words(app).split("chat-large.a81f log")[1].split("output")[0]
        await pilot.press(*["right"] * 5)
        await until(pilot, on_screen(app, " end"))
        assert "begin" not in words(app)


async def test_rotation_and_truncation_are_said_and_lose_nothing() -> None:
    engine = FakeEngine()
    engine.printed = bytearray(b"old file\n")
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "old file")
        engine.printed, engine.files = bytearray(b"new file\n"), 2
        await until(
            pilot, on_screen(app, "old file", "── the file was rotated; this is the new one ──", "new file")
        )
        engine.printed = bytearray(b"cut\n")
        await until(pilot, on_screen(app, "new file", "── the file was cut short; it begins anew ──"))
        await until(pilot, on_screen(app, " cut "))


async def test_no_output_yet_and_an_engine_that_is_away_are_said_and_tried_again(monkeypatch: Any) -> None:
    monkeypatch.setattr("saia_tui.log.reader.RETRY_S", 0.05)
    engine = FakeEngine()
    engine.printed = None
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "there is no output")
        engine.printed = b"there it is\n"
        await until(pilot, on_screen(app, "there it is", "● following"))


async def test_hostile_lines_reach_no_terminal() -> None:
    engine = FakeEngine()
    engine.printed = b"a\x1b]52;c;ZXZpbA==\x07b [bold]\x9b31m \xe2\x80\xae\nnext\r10%\r20%\n"
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, r"a\x1b]52;c;ZXZpbA==\x07b [bold]", "20%")
        assert "\x1b" not in words(app) and "10%" not in words(app)


async def test_acts_mean_nothing_in_a_log() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await opened(app, pilot, "ready")
        await pilot.press("d", "s", "m", "o", "u")
        await pilot.pause(0.1)
        assert len(app.screen_stack) == 1 and engine.intents == []
