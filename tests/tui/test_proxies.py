"""The screen of the tunnel: what belongs to the proxy under the cursor, and the acts on its API keys."""

from __future__ import annotations

import msgspec
import pytest
from textual.widgets import Button, Input

from saia_tui.windows.confirm import ConfirmWindow
from saia_tui.windows.key_limits import KeyLimitsWindow
from saia_tui.windows.pages import Page
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

TO_CLOUD = ("7", "down", "down", "enter")
"""To its keys; the first is anna-notebook."""


async def test_connections_and_keys_are_those_of_the_proxy_under_the_cursor() -> None:
    async with shown(FakeEngine(), (120, 40)) as (app, pilot):
        await pilot.press("7")
        await until(pilot, lambda: "This proxy is away" in words(app))
        assert "2 of 3 connected" in words(app) and "417 (-1)" in words(app)
        await pilot.press("down")
        await until(pilot, lambda: "41b2aa90" in words(app) and "wiki" in words(app))
        assert "184ms" in words(app) and "not acked" in words(app) and "chat-ui" not in words(app)
        await pilot.press("down")
        await until(pilot, lambda: "8a1f03bb" in words(app) and "chat-ui" in words(app))
        assert "c0d4e5f6" in words(app) and "wiki" not in words(app)


async def test_a_connection_that_is_lost_goes_from_the_screen() -> None:
    engine = FakeEngine()
    async with shown(engine, (120, 40)) as (app, pilot):
        await pilot.press("7", "down", "down")
        await until(pilot, lambda: "8a1f03bb" in words(app))
        cloud = sample.proxies()["cloud"]
        engine.put("proxies", {"cloud": msgspec.structs.replace(cloud, links=cloud.links[1:])})
        await until(pilot, lambda: "8a1f03bb" not in words(app))
        assert "c0d4e5f6" in words(app)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_a_key_is_revoked_only_after_the_confirmation_and_restored_by_the_same_key(
    size: tuple[int, int],
) -> None:
    engine = FakeEngine()
    async with shown(engine, size) as (app, pilot):
        await pilot.press(*TO_CLOUD, "V")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "anna-notebook" in words(app) and "valid → revoked" in words(app) and "401" in words(app)
        focused = app.screen.focused
        assert isinstance(focused, Button) and focused.id == "cancel"
        await pilot.press("y")
        await until(pilot, lambda: engine.intents == [("revoke_key", "cloud", "anna-notebook", False)])
        row = msgspec.structs.replace(sample.keys()["cloud/anna-notebook"], revoked=True)
        engine.put("keys", {"cloud/anna-notebook": row})
        await until(pilot, lambda: app.feed.tables.keys["cloud/anna-notebook"].revoked)
        await pilot.press("V")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "revoked → valid" in words(app)
        await pilot.press("y")
        await until(pilot, lambda: engine.intents[1:] == [("restore_key", "cloud", "anna-notebook", False)])


async def test_what_was_revoked_by_another_meanwhile_is_not_restored() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press(*TO_CLOUD, "V")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        row = msgspec.structs.replace(sample.keys()["cloud/anna-notebook"], revoked=True)
        engine.put("keys", {"cloud/anna-notebook": row})
        await until(pilot, lambda: app.feed.tables.keys["cloud/anna-notebook"].revoked)
        await pilot.press("y")
        await until(pilot, lambda: "changed meanwhile" in words(app))
        assert engine.intents == []


async def test_limits_begin_with_what_is_ordered_and_empty_is_as_configured() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press(*TO_CLOUD, "L")
        await until(pilot, lambda: isinstance(app.screen, KeyLimitsWindow))
        entries = {entry.id: entry.value for entry in app.screen.query(Input)}
        assert entries == {"concurrency": "4", "per_minute": ""}
        await pilot.press("backspace", "enter", "9", "x", "0", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "90 a minute" in words(app) and "429" in words(app)
        await pilot.press("y")
        limits = {"concurrency": None, "per_minute": 90}
        await until(pilot, lambda: engine.intents == [("limit_key", "cloud", "anna-notebook", limits, False)])
        await pilot.press("L", "escape")
        assert len(app.screen_stack) == 1 and len(engine.intents) == 1


async def test_keys_are_administered_from_the_screen_of_requests_too() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("5", "tab", "V")
        await until(pilot, lambda: isinstance(app.screen, ConfirmWindow))
        assert "wiki" in words(app) and "campus" in words(app)
        await pilot.press("escape", "shift+tab", "V")
        await until(pilot, lambda: any("works on keys" in note.message for note in app._notifications))
        assert engine.intents == []


async def test_enter_on_a_key_tells_who_ordered_what() -> None:
    async with shown(FakeEngine()) as (app, pilot):
        await pilot.press(*TO_CLOUD, "enter")
        await until(pilot, lambda: isinstance(app.screen, Page))
        told = " ".join(words(app).split())
        assert "ordered by uid 1004" in told and "ordered concurrency 4" in told
