"""From a key to what reaches the engine: armed, shown, held, checked again, told."""

from __future__ import annotations

import msgspec
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from saia_engine.client import Changed, ClientError
from saia_tui.app import SaiaApp
from saia_tui.windows.confirm import ConfirmWindow
from saia_tui.windows.hours import HoursWindow
from saia_tui.windows.pages import Page
from saia_tui.windows.revisions import RevisionsWindow
from saia_tui.windows.scale import ScaleWindow
from tests.tui import sample
from tests.tui.fake_engine import DIFF, HISTORY, FakeEngine
from tests.tui.screen import Clock, shown, until, words

EMBED = ("k7q2.hpc.embed.4f4f", "k7q2.hpc.embed.5a01")
LARGE = ("k7q2.hpc.chat-large.a81f", "k7q2.hpc.chat-large.c02d")


def toasts(app: SaiaApp) -> list[str]:
    return [note.message for note in app._notifications]


async def confirming(app: SaiaApp, pilot: Pilot[str]) -> ConfirmWindow:
    await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
    assert isinstance(app.screen, ConfirmWindow)
    return app.screen


async def cursor_on(app: SaiaApp, pilot: Pilot[str], screen: str, key: str) -> None:
    await pilot.press(screen)
    await until(pilot, lambda: key in app.table.rows.keys)
    app.table.rows.move_to(app.table.rows.keys.index(key))
    app.repaint()


async def page_says(app: SaiaApp, pilot: Pilot[str], words_of_it: str) -> None:
    await until(pilot, lambda: isinstance(app.screen, Page))
    await pilot.pause()
    await until(pilot, lambda: words_of_it in " ".join(words(app).split()))


def mark(app: SaiaApp, *keys: str) -> None:
    app.table.rows.clear_marks()
    for key in keys:
        app.table.rows.toggle_mark(key)


def status(app: SaiaApp) -> str:
    app.repaint()
    return app._status._line.plain


# ---------------------------------------------------------------- armed


async def test_acts_are_locked_until_armed_and_again_ten_minutes_after_the_last_one() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, armed=False) as (app, pilot):
        assert "ARMED" not in status(app) and "W arm" in app._hints._line.plain
        for key in ("s", "P", "B", "A"):
            await pilot.press(key)
        await until(pilot, lambda: toasts(app).count("acts are locked: W arms them for 10 minutes") == 4)
        assert len(app.screen_stack) == 1
        await pilot.press("W")
        await until(pilot, lambda: "◆ ARMED 10 min" in status(app))
        assert "s scale" in app._hints._line.plain and "W arm" not in app._hints._line.plain
        clock.at += 300
        assert "◆ ARMED 5 min" in status(app)
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("s", "3", "enter")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(engine.intents))
        await until(pilot, lambda: "◆ ARMED 10 min" in status(app))
        clock.at += 599
        assert "◆ ARMED 1 min" in status(app)
        clock.at += 2
        assert "ARMED" not in status(app)
        await pilot.press("s")
        await until(pilot, lambda: len(app.screen_stack) == 1 and "acts are locked" in toasts(app)[-1])
        assert len(engine.intents) == 1


async def test_the_key_that_arms_locks_again() -> None:
    async with shown(FakeEngine(), armed=False) as (app, pilot):
        await pilot.press("W")
        await until(pilot, lambda: "ARMED" in status(app))
        await pilot.press("W")
        await until(pilot, lambda: "ARMED" not in status(app))


async def test_a_screen_that_only_reads_is_never_armed_and_says_so() -> None:
    engine = FakeEngine()
    async with shown(engine, read_only=True) as (app, pilot):
        assert "read-only" in status(app) and "arm" not in app._hints._line.plain
        for key in ("W", "s", "m", "A"):
            await pilot.press(key)
        await until(pilot, lambda: toasts(app).count("this screen is read-only (--read-only)") == 4)
        assert engine.intents == [] and len(app.screen_stack) == 1


# ---------------------------------------------------------------- held


async def test_an_act_is_held_for_five_seconds_with_a_countdown_and_then_sent() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("s", "3", "enter")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: "Scale embed: sent in 5 s, u revokes it" in words(app))
        clock.at += 3.5
        await until(pilot, lambda: "sent in 2 s, u revokes it" in words(app))
        assert engine.intents == []
        clock.at += 1.6
        await until(pilot, lambda: engine.intents == [("scale", "embed", 3, False)])
        await until(pilot, lambda: "u revokes it" not in words(app))
        assert engine.expected == [{"replicas": 2, "revision": ""}]


async def test_what_is_revoked_is_never_sent() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("s", "3", "enter")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: "u revokes it" in words(app))
        clock.at += 4.9
        await pilot.press("u")
        await until(pilot, lambda: "revoked, and never sent: Scale embed" in toasts(app))
        clock.at += 60
        app.tick_held()
        await pilot.pause(0.1)
        assert engine.intents == [] and "u revokes it" not in words(app)
        assert len(app.screen_stack) == 1, "the key undid no override"


async def test_leaving_drops_what_is_held_with_a_word() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "7", "cloud")
        await pilot.press("m")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(app.hold))
        await pilot.press("q")
        await until(pilot, lambda: "not sent: Maintenance on cloud; q again leaves" in toasts(app))
        clock.at += 60
        app.tick_held()
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert engine.intents == []


async def test_a_target_that_changes_while_it_is_held_is_refused_and_the_reason_stays() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("d")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(app.hold))
        requeued = msgspec.structs.replace(sample.instances()[EMBED[0]], generation=2)
        engine.put("instances", {EMBED[0]: requeued})
        await until(pilot, lambda: app.feed.tables.instances[EMBED[0]].generation == 2)
        clock.at += 6
        await page_says(app, pilot, "embed.4f4f changed meanwhile (generation 1 → 2)")
        assert engine.intents == []


async def test_one_that_becomes_the_last_ready_one_while_it_is_held_is_refused() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("X")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(app.hold))
        sick = msgspec.structs.replace(sample.instances()[EMBED[1]], state="unready")
        engine.put("instances", {EMBED[1]: sick})
        await until(pilot, lambda: app.feed.tables.instances[EMBED[1]].state == "unready")
        clock.at += 6
        await page_says(app, pilot, "by now no instance of embed would be ready")
        assert engine.intents == []


# ---------------------------------------------------------------- the plan


async def test_the_plan_says_what_becomes_of_whom_and_the_command() -> None:
    async with shown(FakeEngine(), (110, 40)) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("d")
        window = await confirming(app, pilot)
        told = " ".join(words(app).split())
        for fact in (
            "ready → draining (generation 1)",
            "2 ready now, 1 after; min_available is 1",
            "41.2 requests/s in all, 2 in flight here",
            "2 open now, which may end until the drain deadline",
            "saia-engine drain k7q2.hpc.embed.4f4f",
        ):
            assert fact in told, told
        focused = window.focused
        assert isinstance(focused, Button) and focused.id == "cancel"


async def test_a_reason_goes_along_and_its_enter_sends_nothing() -> None:
    engine = FakeEngine()
    async with shown(engine, (110, 40)) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("R")
        window = await confirming(app, pilot)
        await pilot.press("r", *"yes, it's slow", "enter")
        await until(pilot, lambda: isinstance(window.focused, Button) and window.focused.id == "accept")
        assert engine.intents == []
        shown_command = " ".join(words(app).split())
        assert """--reason 'yes, it'"'"'s slow'""" in shown_command
        await pilot.press("enter")
        await until(pilot, lambda: engine.intents == [("replace", EMBED[0], False)])
        assert engine.reasons == ["yes, it's slow"]
        assert engine.expected == [{"state": "ready", "generation": 1}]


@pytest.mark.parametrize("key", ["P", "s"])
async def test_a_service_is_stopped_only_by_its_typed_name(key: str) -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press(key)
        if key == "s":
            await pilot.press("0", "enter")
        window = await confirming(app, pilot)
        assert "embed would be stopped" in words(app)
        assert isinstance(window.focused, Input) and window.focused.id == "name"
        await pilot.press("y", "enter")
        assert app.screen is window and engine.intents == []
        await pilot.press("backspace", *"embed", "enter")
        intent = ("pause", "embed", True) if key == "P" else ("scale", "embed", 0, True)
        await until(pilot, lambda: engine.intents == [intent])


async def test_a_paused_service_is_resumed_and_not_scaled() -> None:
    engine = FakeEngine()
    paused = msgspec.structs.replace(
        sample.services()["embed"],
        replicas=0,
        status="paused",
        paused_by_uid=1004,
        paused_at=sample.NOW - 3600,
        paused_because="no GPUs [/x]\x1b[2J",
    )
    engine.tables["services"]["embed"] = paused
    async with shown(engine) as (app, pilot):
        assert "‖ paused" in words(app)
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("s", "2", "enter")
        await until(pilot, lambda: "embed is paused: resume it first" in toasts(app))
        await pilot.press("P")
        await confirming(app, pilot)
        told = " ".join(words(app).split())
        assert r"by uid 1004, 1h 00m ago: no GPUs [/x]\x1b[2J" in told
        assert "0 → 2 as before the pause" in told
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("resume", "embed", False)])


async def test_the_last_healthy_instance_is_cancelled_only_by_its_typed_name() -> None:
    engine = FakeEngine()
    engine.tables["instances"].pop(EMBED[1])
    async with shown(engine, (110, 40)) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("X")
        window = await confirming(app, pilot)
        told = " ".join(words(app).split())
        assert "no instance of embed would be ready" in told and "ALL ARE CUT" in told
        await pilot.press("y", "backspace", *"5a01", "enter")
        assert app.screen is window and engine.intents == [], "not the name of another one"
        await pilot.press(*["backspace"] * 4, *"4f4f", "enter")
        await until(pilot, lambda: engine.intents == [("cancel", EMBED[0], True)])


async def test_one_of_several_is_cancelled_by_a_plain_yes() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        await pilot.press("X")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("cancel", EMBED[0], True)])


async def test_a_revision_is_chosen_from_its_history() -> None:
    engine = FakeEngine()
    async with shown(engine, (110, 40)) as (app, pilot):
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("B")
        await until(pilot, lambda: isinstance(app.screen, RevisionsWindow))
        screen = words(app)
        assert r"FAILED: never ready\x1b[2J" in screen and "cccc00000003 is asked for now" in screen
        assert screen.index("bbbb00000002") < screen.index("aaaa00000001"), "the newest first"
        await pilot.press("enter")  # the last good one has the cursor
        await confirming(app, pilot)
        assert "rollback embed aaaa00000001" in words(app)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("rollback", "embed", "aaaa00000001", False)])


async def test_a_rollback_is_ended_from_the_same_list() -> None:
    engine = FakeEngine()
    pin = {"revision": "aaaa00000001", "instead_of": "cccc00000003"}
    engine.revision_history = {**HISTORY, "asked_for": "aaaa00000001", "pin": pin}
    row = sample.services()["embed"]
    engine.tables["services"]["embed"] = msgspec.structs.replace(
        row, revision="aaaa00000001", pinned_to="aaaa00000001"
    )
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "1", "embed")
        await pilot.press("B")
        await until(pilot, lambda: isinstance(app.screen, RevisionsWindow))
        await pilot.press("home", "enter")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("unpin", "embed", False)])


async def test_a_node_is_excluded_for_hours_with_a_reason_and_cleared() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "4", "gpu04")
        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, HoursWindow))
        await pilot.press("1", "2", "enter")
        await confirming(app, pilot)
        assert "saia-engine exclude gpu04 --for 720m" in words(app)
        await pilot.press("r", *"ECC", "enter", "enter")
        await until(pilot, lambda: engine.intents == [("exclude", "gpu04", 12 * 3600.0, False)])
        assert (engine.reasons, engine.expected) == (["ECC"], [{"excluded": False}])
        row = sample.nodes()["gpu04"]
        excluded = msgspec.structs.replace(row, excluded_until=sample.NOW + 3600, excluded_because="ECC")
        engine.put("nodes", {"gpu04": excluded})
        await until(pilot, lambda: app.feed.tables.nodes["gpu04"].excluded_until is not None)
        await cursor_on(app, pilot, "4", "gpu04")
        await pilot.press("E")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents[1:] == [("include", "gpu04", False)])


async def test_a_changed_file_is_shown_before_it_is_applied() -> None:
    engine = FakeEngine()
    async with shown(engine, (110, 40)) as (app, pilot):
        await pilot.press("A")
        await confirming(app, pilot)
        told = " ".join(words(app).split())
        for fact in (
            "replicas: 2 → 4",
            "⇒ 2 replicas become 4",
            "15.0 → 30.0 (after a restart of the engine)",
        ):
            assert fact in told
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("apply_config", False)])
        assert engine.expected == [{"digest": "0123456789abcdef"}]


async def test_a_file_without_a_service_of_before_is_applied_by_a_typed_word() -> None:
    engine = FakeEngine()
    engine.diff = {
        **DIFF,
        "services": [{"service": "embed", "change": "removed", "fields": [], "means": ["it ends"]}],
    }
    async with shown(engine) as (app, pilot):
        await pilot.press("A")
        window = await confirming(app, pilot)
        assert "all instances of embed would end" in words(app)
        await pilot.press("y", "enter")
        assert app.screen is window
        await pilot.press("backspace", *"apply", "enter")
        await until(pilot, lambda: engine.intents == [("apply_config", True)])


async def test_a_bad_file_is_told_with_its_faults_and_one_without_news_too() -> None:
    engine = FakeEngine()
    fault = {
        "file": "e.toml",
        "key": "services.chat.x",
        "text": "is unknown\x1b[2J",
        "suggestion": "did you?",
    }
    async with shown(engine) as (app, pilot):
        engine.diff = {"file": "e.toml", "changed": False, "faults": [fault]}
        await pilot.press("A")
        await page_says(app, pilot, "e.toml")
        assert r"e.toml: services.chat.x: is unknown\x1b[2J; did you?" in words(app)
        await pilot.press("escape")
        engine.diff = {**DIFF, "changed": False, "services": [], "settings": []}
        await pilot.press("A")
        await until(pilot, lambda: "/etc/saia/engine.toml says what is in force already" in toasts(app))
        assert engine.intents == []


# ---------------------------------------------------------------- what is old


async def test_what_rests_on_an_old_answer_of_slurm_is_refused_the_rest_is_not() -> None:
    engine = FakeEngine()
    row = sample.engine()
    engine.tables["engine"] = {"engine": msgspec.structs.replace(row, snapshot_at=sample.NOW - 100)}
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        for key in ("d", "X", "R"):
            await pilot.press(key)
        await until(pilot, lambda: sum("last good answer is 100 s old" in note for note in toasts(app)) == 3)
        await pilot.press("1", "s")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))


async def test_an_engine_that_only_watches_is_sent_nothing() -> None:
    engine = FakeEngine()
    row = msgspec.structs.replace(sample.engine(), acting=False, not_acting_because="the disk is full")
    engine.tables["engine"] = {"engine": row}
    async with shown(engine) as (app, pilot):
        await pilot.press("s")
        await until(pilot, lambda: "the engine does not act: the disk is full" in toasts(app))
        assert len(app.screen_stack) == 1


async def test_a_link_that_breaks_while_it_is_held_sends_nothing() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "7", "cloud")
        await pilot.press("m")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(app.hold))
        engine.go_away()
        await until(pilot, lambda: not app.feed.link.up)
        clock.at += 6
        await page_says(app, pilot, "the engine is away: nothing was sent")
        assert engine.intents == []


# ---------------------------------------------------------------- many at once


async def test_marked_rows_are_acted_on_and_nothing_else_and_each_is_told() -> None:
    engine = FakeEngine()
    engine.refuse = [Changed("changed", "state was ready, and is lost now [/x]")]
    async with shown(engine, (110, 40)) as (app, pilot):
        await cursor_on(app, pilot, "i", LARGE[1])
        mark(app, *EMBED, "k7q2.hpc.images.bad1")
        await pilot.press("d")
        await confirming(app, pilot)
        screen = words(app)
        assert "Drain: 2 instances" in screen and "type 2 to do it" in screen
        assert "left alone: k7q2.hpc.images.bad1 is failed already" in " ".join(screen.split())
        assert "no instance of embed would be ready" in screen, "none counts on the other"
        assert all(f"saia-engine drain {name} --yes" in screen for name in EMBED)
        await pilot.press("1", "enter")
        assert engine.intents == []
        await pilot.press("backspace", "2", "enter")
        await page_says(app, pilot, "1 of 2 not done")
        assert engine.intents == [("drain", name, True) for name in EMBED]
        screen = words(app)
        assert "1 of 2 not done" in screen
        assert screen.index("✖ not done") < screen.index("● done")
        assert "is lost now [/x]" in screen
        await pilot.press("s")
        assert isinstance(app.screen, Page), "it stays until it is read"
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)


async def test_a_long_list_of_targets_can_be_read_to_its_end() -> None:
    engine = FakeEngine()
    one = sample.instances()[EMBED[0]]
    many = [f"k7q2.hpc.embed.{number:04x}" for number in range(60)]
    engine.tables["instances"] |= {name: msgspec.structs.replace(one, id=name) for name in many}
    async with shown(engine, (80, 24)) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        mark(app, *many)
        await pilot.press("R")
        await confirming(app, pilot)
        await until(pilot, lambda: "embed.0000" in words(app) and "Replace (y)" in words(app))
        assert "replace k7q2.hpc.embed.003b" not in words(app)
        await pilot.press(*["pagedown"] * 20)
        await until(pilot, lambda: "replace k7q2.hpc.embed.003b" in words(app))
        await pilot.press("n")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        assert engine.intents == []


async def test_a_number_for_several_services() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await cursor_on(app, pilot, "1", "images")
        mark(app, "embed", "chat-small")
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
        assert "Scale 2 services" in words(app)
        await pilot.press("3", "enter")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: len(engine.intents) == 2)
        assert engine.intents == [("scale", "chat-small", 3, False), ("scale", "embed", 3, False)]
        await until(pilot, lambda: "Scale: 2 services: the engine has them all" in toasts(app))


async def test_what_failed_waits_until_nobody_types() -> None:
    engine, clock = FakeEngine(), Clock()
    engine.refuse = [ClientError("failed", "the lease was lost")]
    async with shown(engine, clock=clock, hold_s=5.0) as (app, pilot):
        await cursor_on(app, pilot, "7", "cloud")
        await pilot.press("m")
        await confirming(app, pilot)
        await pilot.press("y")
        await until(pilot, lambda: bool(app.hold))
        await pilot.press("slash", "d")
        clock.at += 6
        await until(pilot, lambda: bool(engine.intents))
        await pilot.pause(0.3)
        assert len(app.screen_stack) == 1
        await pilot.press("enter")
        await page_says(app, pilot, "the lease was lost")


@pytest.mark.parametrize("size", [(80, 24), (60, 15), (30, 8)])
async def test_the_windows_bear_any_size(size: tuple[int, int]) -> None:
    async with shown(FakeEngine(), size) as (app, pilot):
        await cursor_on(app, pilot, "i", EMBED[0])
        for key in ("d", "X", "R"):
            await pilot.press(key)
            await confirming(app, pilot)
            await pilot.press("escape")
            await until(pilot, lambda: len(app.screen_stack) == 1)
        if size == (80, 24):
            await pilot.press("d")
            await confirming(app, pilot)
            assert "Drain (y)" in words(app) and "saia-engine drain" in words(app)
