"""Old data is shown as old: dimmed, with a mark, and with its age where one looks for it."""

from __future__ import annotations

import msgspec

from saia_tui.widgets.row_lines import STALE_SIGN
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import Clock, shown, until, words


def rows_with(screen: str, mark: str) -> list[str]:
    return [line for line in screen.splitlines() if line[1:2] == mark]


async def test_a_proxy_that_is_away_says_since_when_and_is_marked() -> None:
    async with shown(FakeEngine(), (160, 40)) as (app, pilot):
        await pilot.press("7")
        await until(pilot, lambda: "✖ away 11m" in words(app))
        (marked,) = rows_with(words(app), STALE_SIGN)
        assert "dmz" in marked


async def test_an_agent_that_is_silent_is_named_on_its_row() -> None:
    engine = FakeEngine()
    async with shown(engine, (160, 40)) as (app, pilot):
        app.action_show("instances")
        await until(pilot, lambda: "chat-small.7c3e" in words(app))
        assert not rows_with(words(app), STALE_SIGN)
        row = sample.instances()["k7q2.hpc.chat-small.7c3e"]
        engine.put("instances", {row.id: msgspec.structs.replace(row, silent_since=sample.NOW - 190)})
        await until(pilot, lambda: "agent silent for 3m" in words(app))
        (marked,) = rows_with(words(app), STALE_SIGN)
        assert "chat-small.7c3e" in marked


async def test_jobs_and_nodes_are_old_once_slurm_is_silent_for_two_polls_and_services_are_not() -> None:
    clock = Clock()
    async with shown(FakeEngine(), (120, 40), clock) as (app, pilot):
        await pilot.press("3")
        await until(pilot, lambda: "88415" in words(app))
        clock.at += 23.0  # the sample's snapshot was 6 s old, and a poll takes 15 s
        app.repaint()
        await pilot.pause()
        assert not rows_with(words(app), STALE_SIGN)
        clock.at += 2.0
        app.repaint()
        await until(pilot, lambda: len(rows_with(words(app), STALE_SIGN)) > 20)
        assert "▲ Slurm is silent" in words(app) and "data of <1m ago" in words(app)
        await pilot.press("4")
        await until(pilot, lambda: bool(rows_with(words(app), STALE_SIGN)))
        await pilot.press("2")
        await until(pilot, lambda: "chat-large" in words(app))
        assert not rows_with(words(app), STALE_SIGN)


async def test_a_lost_link_marks_everything_tells_for_how_long_and_goes_on() -> None:
    clock, engine = Clock(), FakeEngine()
    async with shown(engine, (120, 40), clock) as (app, pilot):
        engine.go_away()
        await until(pilot, lambda: not app.feed.link.up)
        clock.at += 190.0
        app.repaint()
        await until(pilot, lambda: "engine away 3m" in words(app))
        assert len(rows_with(words(app), STALE_SIGN)) > 10
        assert any("chat-large" in line for line in rows_with(words(app), STALE_SIGN))
        engine.reachable = True
        await until(pilot, lambda: app.feed.link.up)
        app.repaint()
        await until(pilot, lambda: not rows_with(words(app), STALE_SIGN))
