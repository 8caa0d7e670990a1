"""The way from a service to an instance and back, by keys."""

from __future__ import annotations

import msgspec

from saia_tui.trail import Place, Trail, below
from saia_tui.windows.pages import Page
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

ID = "k7q2.hpc.chat-large.a81f"


def test_a_trail_goes_down_level_by_level_and_back() -> None:
    trail = Trail("services")
    for place in (Place("instances", "chat-large"), Place("instance", ID), Place("log", ID)):
        trail.down(place)
    assert trail.crumbs() == ["services", "chat-large", "chat-large.a81f", "log"]
    assert trail.tab == "services"
    assert trail.up() and trail.here == Place("instance", ID)
    assert trail.up() and trail.up() and not trail.up()
    assert trail.here == Place("services")


def test_a_log_that_is_reached_from_a_list_names_its_instance() -> None:
    trail = Trail("jobs")
    trail.down(Place("log", ID))
    assert trail.crumbs() == ["jobs", "chat-large.a81f log"]


def test_all_instances_belong_to_the_tab_of_services() -> None:
    trail = Trail()
    trail.jump("instances")
    assert (trail.tab, trail.crumbs()) == ("services", ["instances"])


def test_only_rows_with_something_below_them_lead_on() -> None:
    assert below("services", "chat") == Place("instances", "chat")
    assert below("jobs", "4711", ID) == Place("instance", ID)
    assert below("jobs", "4711") is None
    assert below("proxies", "cloud") is None


async def test_enter_leads_down_and_escape_back_with_cursor_and_filter_as_they_were() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("2", "slash", *"chat", "enter", "down", "enter")
        await until(pilot, lambda: "services › chat-small" in words(app))
        assert "chat-small.29aa" in words(app) and "chat-large.c02d" not in words(app)
        assert app.table.rows.total == 4
        await pilot.press("slash", *"ready", "enter", "down")
        chosen = app.table.rows.cursor
        await pilot.press("enter")
        await until(pilot, lambda: "services › chat-small › chat-small.29aa" in words(app))
        assert chosen == "k7q2.hpc.chat-small.29aa"
        await pilot.press("escape")
        await until(pilot, lambda: "2 of 4" in words(app))
        assert (app.table.rows.cursor, app.table.rows.filter) == (chosen, "ready")
        await pilot.press("escape", "backspace")  # the filter, then the level
        await until(pilot, lambda: "2 of 5" in words(app))
        assert (app.table.rows.cursor, app.table.rows.filter) == ("chat-small", "chat")
        await pilot.press("escape", "escape")
        await until(pilot, lambda: "[1 Overview]" in words(app))


async def test_another_service_begins_at_its_worst_row_without_a_filter() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("down", "enter", "slash", *"zzz", "enter")
        await until(pilot, lambda: "0 of 4" in words(app))
        await pilot.press("1", "home", "enter")
        await until(pilot, lambda: "overview › images" in words(app))
        assert (app.table.rows.filter, len(app.table.rows.keys)) == ("", 2)
        await pilot.press("i")
        await until(pilot, lambda: "INSTANCE" in words(app) and app.table.rows.total == 12)


async def test_an_instance_shows_its_fields_its_job_and_its_story() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("i", "enter")
        await until(pilot, lambda: "EVENTS, the newest first" in words(app))
        screen = words(app)
        for fact in (ID, "JOB, AS SLURM SHOWS IT", "gpu:a100:2", "GPUS", "88%", "68.8 of 80 GiB",
                     "Ready on gpu01 after 61 s", "rule missing: have 2, wanted 3", "not waiting for gpu05",
                     r"[/x]\x1b[31m\nforged  by uid 1004"):  # fmt: skip
            assert fact in screen


async def test_acts_from_an_instances_page_go_to_it() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("i", "enter", "d")
        await until(pilot, lambda: len(app.screen_stack) == 2 and ID in words(app))
        await pilot.press(*ID.rpartition(".")[2], "enter")
        await until(pilot, lambda: engine.intents == [("drain", ID, True)])


async def test_the_page_asks_again_when_something_happens_to_its_instance() -> None:
    engine = FakeEngine()
    asked: list[str] = []
    real = engine.instance_story

    async def counted(instance: str):
        asked.append(instance)
        return await real(instance)

    engine.instance_story = counted
    async with shown(engine) as (_, pilot):
        await pilot.press("i", "enter")
        await until(pilot, lambda: asked == [ID])
        newest = sample.events()["900"]
        engine.put("events", {"901": msgspec.structs.replace(newest, seq=901, subject="embed")})
        engine.put("events", {"902": msgspec.structs.replace(newest, seq=902, subject=ID)})
        await until(pilot, lambda: asked == [ID, ID])


async def test_an_instance_that_left_the_view_is_told_of_from_the_journal() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("i", "enter")
        await until(pilot, lambda: "EVENTS, the newest first" in words(app))
        engine.put("instances", gone=[ID])
        await until(pilot, lambda: "none any more" in words(app))
        assert "Ready on gpu01" in words(app)


async def test_a_job_of_ours_leads_to_its_instance_and_any_other_to_its_fields() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("3", "enter")
        await until(pilot, lambda: "jobs › " in words(app) and "[3 Jobs]" in words(app))
        await pilot.press("escape", "end", "enter")
        await until(pilot, lambda: isinstance(app.screen, Page))


async def test_keys_typed_ahead_go_where_the_way_leads() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press("2")
        for key in ("i", "enter", "l"):
            app.simulate_key(key)
        await until(pilot, lambda: "instances › chat-large.a81f log" in words(app))
