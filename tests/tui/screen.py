"""Runs the screen over a fake engine, with a clock that stands still until told."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from saia_tui.app import SaiaApp
from saia_tui.feed import RATES_KEPT, Feed
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class PastFeed(Feed):
    """Its sparklines stay as they are, however slow the machine is."""

    def sample_rates(self) -> None:
        pass


def make(
    engine: FakeEngine, clock: Clock | None = None, *, armed: bool = True, hold_s: float = 0.0, **options: Any
) -> SaiaApp:
    """Acts are armed, and sent at once, unless a test wants to see how they are held."""
    feed = PastFeed(engine, monotonic=clock or Clock())
    for name, past in sample.rates().items():
        feed.rates[name] = deque(past, maxlen=RATES_KEPT)
    app = SaiaApp(feed, engine, hold_s=hold_s, **options)
    if armed:
        app.arming.toggle()
    return app


async def until(pilot: Pilot[Any], true: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait for a condition; the screen works meanwhile."""
    for _ in range(int(within_s / 0.02)):
        if true():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"not within {within_s} s; the screen:\n{words(pilot.app)}")


async def loaded(pilot: Pilot[Any]) -> None:
    """Until the sample is on the screen."""
    app = pilot.app
    assert isinstance(app, SaiaApp)
    await until(pilot, lambda: app.feed.link.up and bool(app.feed.tables.events))
    app.repaint()
    await pilot.pause()


@asynccontextmanager
async def shown(
    engine: FakeEngine, size: tuple[int, int] = (120, 40), clock: Clock | None = None, **options: Any
) -> AsyncIterator[tuple[SaiaApp, Pilot[str]]]:
    app = make(engine, clock, **options)
    async with app.run_test(size=size) as pilot:
        await loaded(pilot)
        yield app, pilot


def words(app: SaiaApp) -> str:
    """The text on the screen, line by line; empty while it is not laid out yet."""
    strips = app.screen._compositor.render_strips(app.size)
    if len(strips) != app.size.height:
        return ""
    return "\n".join(strip.text for strip in strips)
