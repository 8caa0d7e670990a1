"""What an operator does, by keys, and what reaches the engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from textual.widgets import Button, Input

from saia_engine.client import ClientError, NeedsConfirmation
from saia_tui.app import SaiaApp
from saia_tui.kept import Kept
from saia_tui.windows.confirm import ConfirmWindow
from saia_tui.windows.leave import LeaveWindow
from saia_tui.windows.pages import Page
from saia_tui.windows.scale import ScaleWindow
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import Clock, make, shown, until, words

VICTIM = "k7q2.hpc.chat-large.a81f"


def toasts(app: SaiaApp) -> list[str]:
    return [note.message for note in app._notifications]


async def test_the_worst_stands_first_without_a_key_pressed() -> None:
    async with shown(FakeEngine(), (80, 24)) as (app, _):
        lines = words(app).splitlines()
        assert lines[0].startswith(" saia  hpc slurm  ● acting")
        alarm = next(number for number, line in enumerate(lines) if "✖ critical" in line)
        service = next(number for number, line in enumerate(lines) if "✖ down" in line)
        assert lines[alarm - 1].split()[0] == "ALARM" and "images" in lines[alarm]
        assert lines[service - 1].split()[0] == "SERVICE" and "images" in lines[service]


@pytest.mark.parametrize(
    ("key", "word"),
    [("1", "SERVICE"), ("2", "SERVICE"), ("i", "INSTANCE"), ("3", "NODES (REASON)"), ("4", "LIVE USE"),
     ("5", "TTFT p50"), ("6", "EVENT"), ("7", "MAINTENANCE")],
)  # fmt: skip
@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_a_number_goes_to_each_screen(key: str, word: str, size: tuple[int, int]) -> None:
    async with shown(FakeEngine(), size) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: word in words(app))


async def test_hostile_job_names_show_as_escapes() -> None:
    async with shown(FakeEngine(), (200, 60)) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: "train-00021" in words(app))
        screen = words(app)
        assert r"\x1b[2J\x1b[31mowned\x1b]52;c;ZXZpbA==\x07" in screen
        assert "job[/x] [bold red]markup" in screen
        assert r"two\nlines\r\tand \u202eright" in screen
        assert "\x1b" not in screen


async def test_scaling_sends_the_number_only_after_the_confirmation() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("down", "s")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
        assert app.screen.query_one(Input).value == "3"
        await pilot.press("5", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "chat-large" in words(app) and "3 → 5" in words(app)
        focused = app.screen.focused
        assert isinstance(focused, Button) and focused.id == "cancel"
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, ConfirmWindow))
        assert engine.intents == []
        await pilot.press("s", "up", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        await pilot.press("right", "enter")
        await until(pilot, lambda: bool(engine.intents))
        assert engine.intents == [("scale", "chat-large", 4, False)]
        await until(pilot, lambda: "Scale: chat-large: the engine has it" in toasts(app))


async def test_what_the_engine_wants_confirmed_needs_the_typed_name() -> None:
    engine = FakeEngine()
    engine.refuse = [NeedsConfirmation("needs_confirmation", "more than 4 times the 3 it has now")]
    async with shown(engine) as (app, pilot):
        await pilot.press("down", "s", *"25", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow) and bool(engine.intents))
        await until(pilot, lambda: "more than 4 times" in words(app))
        await pilot.press(*"chat-larg", "enter")
        assert isinstance(app.screen, ConfirmWindow) and len(engine.intents) == 1
        await pilot.press("e", "enter")
        await until(pilot, lambda: len(engine.intents) == 2)
        assert engine.intents == [("scale", "chat-large", 25, False), ("scale", "chat-large", 25, True)]


async def test_a_drain_goes_to_the_row_it_was_opened_for() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("i", "d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert VICTIM in words(app) and "ready → draining" in words(app)
        other = msgspec.structs.replace(sample.instances()["k7q2.hpc.embed.4f4f"], end=sample.NOW + 1)
        engine.put("instances", {other.id: other})  # now it sorts before the victim
        await until(pilot, lambda: app.feed.tables.instances[other.id].end == sample.NOW + 1)
        await pilot.press(*"a81f", "enter")
        await until(pilot, lambda: bool(engine.intents))
        assert engine.intents == [("drain", VICTIM, True)]


async def test_a_target_that_is_gone_or_changed_is_refused() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("i", "d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        engine.put("instances", gone=[VICTIM])
        await until(pilot, lambda: VICTIM not in app.feed.tables.instances)
        await pilot.press(*"a81f", "enter")
        await until(pilot, lambda: "a81f is gone: nothing was sent" in words(app))
        await pilot.press("escape", "1", "home", "s", "2", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        changed = msgspec.structs.replace(sample.services()["images"], replicas=7)
        engine.put("services", {"images": changed})
        await until(pilot, lambda: app.feed.tables.services["images"].replicas == 7)
        await pilot.press("y")
        await until(pilot, lambda: "changed meanwhile (replicas 1 → 7)" in words(app))
        assert engine.intents == []


async def test_maintenance_and_the_end_of_an_override() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("7", "down", "down", "m")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "off → on" in words(app)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("maintenance", "cloud", True, False)])
        await pilot.press("1", "down", "u")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        await pilot.press("y")
        await until(pilot, lambda: engine.intents[1:] == [("clear_override", "chat-large", False)])


async def test_an_act_on_the_wrong_table_says_where_it_works() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("d")
        await until(pilot, lambda: any("drain works on instances" in note for note in toasts(app)))


async def test_a_refusal_of_the_engine_is_shown() -> None:
    engine = FakeEngine()
    engine.refuse = [ClientError("failed", "the lease was lost [/x]")]
    async with shown(engine) as (app, pilot):
        await pilot.press("i", "d")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        await pilot.press(*"a81f", "enter")
        await until(pilot, lambda: "the lease was lost [/x]" in words(app))


async def test_link_loss_keeps_the_last_state_says_so_and_sends_nothing() -> None:
    engine, clock = FakeEngine(), Clock()
    async with shown(engine, clock=clock) as (app, pilot):
        engine.go_away()
        await until(pilot, lambda: not app.feed.link.up)
        clock.at += 12
        await until(pilot, lambda: "engine away 12 s" in words(app).splitlines()[0])
        assert "chat-large" in words(app) and app.view.first.stale
        await pilot.press("i", "d")
        await until(pilot, lambda: any("the engine is away" in note for note in toasts(app)))
        assert len(app.screen_stack) == 1
        assert engine.intents == []
        engine.reachable = True
        await until(pilot, lambda: "● acting" in words(app).splitlines()[0])
        assert not app.view.first.stale


async def test_before_the_first_state_nothing_is_claimed() -> None:
    engine = FakeEngine()
    engine.reachable = False
    app = make(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no engine yet" in words(app).splitlines()[0])
        assert "No alarms" not in words(app) and "none:" not in words(app)
        engine.reachable = True
        await until(pilot, lambda: "● acting" in words(app).splitlines()[0])


async def test_keys_typed_ahead_go_where_the_first_one_leads() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("i")
        for key in ("slash", "d", "q", "s"):
            app.simulate_key(key)
        await until(pilot, lambda: app.table.rows.filter == "dqs")
        assert len(app.screen_stack) == 1 and toasts(app) == []


async def test_the_filter_finds_and_escape_shows_all_again() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "slash", *"train-0001", "enter")
        await until(pilot, lambda: "10 of 34" in words(app))
        await pilot.press("escape")
        await until(pilot, lambda: "all: 34" in words(app))
        await pilot.press("a")
        await until(pilot, lambda: "ours: 10" in words(app))


async def test_enter_on_a_proxy_in_the_overview_tells_of_its_keys_and_whether_it_obeys() -> None:
    async with shown(FakeEngine(), (200, 60)) as (app, pilot):
        app.screen.query_one("Overview #proxies").focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Page))
        told = " ".join(words(app).split())
        for fact in (
            "orders acked False",
            "keys ordered 2",
            "keys revoked 1",
            "said keys 12",
            "links 41b2aa90",
        ):
            assert fact in told


async def test_the_cursor_stays_on_its_row_while_rows_come_and_go() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("3", *["down"] * 15)
        mine = app.table.rows.cursor
        late = [sample.jobs(40)[str(70_000 + number)] for number in range(30, 40)]
        engine.put("jobs", {str(row.id): row for row in late}, gone=["88415", "88101"])
        await until(pilot, lambda: "all: 42" in words(app))
        assert app.table.rows.cursor == mine
        assert f"▸    {mine}" in words(app)


async def test_help_lists_every_action() -> None:
    async with shown(FakeEngine(), (120, 60)) as (app, pilot):
        await pilot.press("question_mark")
        await until(pilot, lambda: "drain the instance; its slot is filled again" in words(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Page))


class Child:
    pid = 4242
    alive = True
    obituary = "the engine started here ended with exit code 3, see engine.log"


@pytest.mark.parametrize(("key", "result"), [("enter", "keep"), ("k", "keep"), ("s", "stop")])
async def test_leaving_asks_what_becomes_of_the_engine_started_here(key: str, result: str) -> None:
    async with shown(FakeEngine(), embedded=Child()) as (app, pilot):
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, LeaveWindow) and "4242" in words(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, LeaveWindow))
        await pilot.press("ctrl+c")
        await until(pilot, lambda: isinstance(app.screen, LeaveWindow))
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running)
    assert app.return_value == result


async def test_leaving_an_engine_that_was_attached_to_asks_nothing() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.return_value is None


@pytest.mark.parametrize("size", [(60, 15), (30, 8), (10, 3), (1, 1), (300, 100)])
async def test_any_size_of_terminal_is_borne(size: tuple[int, int]) -> None:
    async with shown(FakeEngine(), size) as (app, pilot):
        for key in (
            "2",
            "enter",
            "enter",
            "i",
            "3",
            "4",
            "5",
            "6",
            "7",
            "1",
            "s",
            "escape",
            "question_mark",
            "escape",
        ):
            await pilot.press(key)
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "SERVICE" in words(app))


async def test_a_damaged_file_of_settings_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "tui.json").write_text("{")
    async with shown(FakeEngine(), kept=Kept(tmp_path / "tui.json")) as (app, _):
        assert any("tui.json is passed over" in note for note in toasts(app))


async def test_marks_are_made_by_space_shown_by_a_sign_and_counted() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "space", "down", "space")
        table = app.table
        assert list(table.rows.marked) == [table.rows.keys[0], table.rows.keys[2]] and table.rows.index == 3
        await until(pilot, lambda: "2 marked" in words(app))
        assert sum(line.startswith((" *", "▸*")) for line in words(app).splitlines()) == 2
        await pilot.press("slash", *"nothing", "enter")
        await until(pilot, lambda: "2 out of sight" in words(app))
        await pilot.press("escape", "asterisk")
        await until(pilot, lambda: f"{table.rows.total} marked" in words(app))
        await pilot.press("minus")
        await until(pilot, lambda: "marked" not in words(app))


async def test_a_bad_filter_is_said_below_it_and_changes_nothing() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "slash", *"state=running")
        await until(pilot, lambda: 0 < len(app.table.rows.keys) < app.table.rows.total)
        before = list(app.table.rows.keys)
        await pilot.press("space", *"~(a+)+$")
        await until(pilot, lambda: "could take for ever" in words(app))
        assert app.table.rows.keys == before
        await pilot.press("enter")
        await until(pilot, lambda: "could take for ever" not in words(app))
        assert app.query_one("#filter", Input).value == app.table.rows.filter == "state=running ~(a+)"


async def test_an_alarm_is_taken_up_without_a_window_and_left_again() -> None:
    engine = FakeEngine()
    async with shown(engine, (160, 40)) as (app, pilot):
        await pilot.press("K")
        await until(pilot, lambda: any("only alarms are taken up" in note for note in toasts(app)))
        await pilot.press("shift+tab", "K")
        await until(pilot, lambda: engine.intents == [("acknowledge", "service_down:images", False)])
        await until(pilot, lambda: "✓ critical" in words(app) and "uid 1004 <1m" in words(app))
        await pilot.press("K")
        await until(pilot, lambda: engine.intents[1:] == [("unacknowledge", "service_down:images", False)])
        await until(pilot, lambda: "✖ critical" in words(app))
        engine.refuse = [ClientError("not_found", "there is no alarm service_down:images: it may be over")]
        await pilot.press("K")
        await until(pilot, lambda: any("it may be over" in note for note in toasts(app)))
        engine.go_away()
        await until(pilot, lambda: not app.feed.link.up)
        await pilot.press("K")
        await until(pilot, lambda: any("nothing was sent" in note for note in toasts(app)))
        assert len(engine.intents) == 3
