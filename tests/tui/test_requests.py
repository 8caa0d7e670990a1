"""The screen of requests: its order, its past, and the plots of one row."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saia_engine.client import NotFound
from saia_tui.figures import rate, took
from saia_tui.views.requests import RequestsView
from saia_tui.widgets.plot import Curve, Plot, draw
from saia_tui.windows.plots import PlotsWindow
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words


async def test_services_in_trouble_stand_first_with_their_models_below() -> None:
    async with shown(FakeEngine(), (200, 60)) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: "TTFT p50" in words(app))
        names = [
            line[2:40].split("  ")[0].strip() or line[4:40].split("  ")[0] for line in words(app).splitlines()
        ]
        order = [
            name for name in names if name in (*sample.services(), "llama-3.3-70b", "gpt-4o", "no service")
        ]
        assert order[:4] == ["chat-large", "gpt-4o", "llama-3.3-70b", "images"] and order[-1] == "no service"
        line = next(line for line in words(app).splitlines() if "chat-large" in line)
        assert "timeout 11  lost 4  client 9" in line and "410ms" in line and "2.60s" in line
        assert "70.5 req/s, 3,932 tok/s" in words(app)


async def test_unknown_times_and_rates_are_dashes() -> None:
    engine = FakeEngine()
    silent = msgspec.structs.replace(
        sample.traffic()["embed"],
        requests_per_s=None,
        errors_per_s=None,
        tokens_per_s=None,
        answer_p95_s=None,
    )
    engine.tables["traffic"] = {"embed": silent}
    async with shown(engine, (120, 40)) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: "TTFT p50" in words(app))
        line = next(line for line in words(app).splitlines() if line[2:].startswith("embed"))
        assert "0.0" not in line and line.count("–") >= 5
        assert "req/s" not in words(app)


async def test_the_past_is_there_at_once_and_asked_for_only_while_it_is_shown() -> None:
    engine = FakeEngine()
    async with shown(engine, (120, 40)) as (app, pilot):
        assert engine.asked == []
        await pilot.press("5")
        await until(pilot, lambda: ("history", "keys", "") in engine.asked)
        await until(pilot, lambda: "▇" in words(app))
        await pilot.press("1")
        await pilot.pause()
        asked = len(engine.asked)
        view = app._views["requests"]
        assert isinstance(view, RequestsView)
        view._ask()
        await pilot.pause()
        assert len(engine.asked) == asked


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_enter_opens_the_last_hour_of_a_row_and_escape_closes_it(size: tuple[int, int]) -> None:
    engine = FakeEngine()
    async with shown(engine, size) as (app, pilot):
        await pilot.press("5", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlotsWindow))
        await until(pilot, lambda: "-60 min" in words(app))
        assert ("history", "traffic", "chat-large") in engine.asked
        assert "chat-large: the last hour" in words(app) and "first token p50" in words(app)
        if size[0] > 100:
            assert "timeout: too slow to begin" in words(app) and "in the queue" in words(app)
        await pilot.press("escape", "tab", "down", "enter")
        await until(pilot, lambda: "campus/" in words(app) or "cloud/" in words(app))
        await until(pilot, lambda: "admitted" in words(app))
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


async def test_a_row_without_a_past_says_so() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):

        async def gone(table: str, row: str = "") -> dict[str, object]:
            raise NotFound("not_found", "there is no past of x [/y] in traffic")

        engine.history = gone  # type: ignore[method-assign]
        await pilot.press("5", "enter")
        await until(pilot, lambda: "there is no past of x [/y]" in words(app))


async def test_hostile_names_of_models_stay_in_their_cells() -> None:
    engine = FakeEngine()
    row = msgspec.structs.replace(sample.traffic()["embed"], model=sample.HOSTILE_NAMES[0], service="embed")
    engine.tables["traffic"]["embed/x"] = row
    async with shown(engine, (200, 60)) as (app, pilot):
        await pilot.press("5")
        await until(pilot, lambda: r"\x1b[2J" in words(app))
        assert "\x1b" not in words(app)


def test_plotting_is_loaded_only_where_a_plot_is_drawn() -> None:
    code = "import sys, saia_tui.app; print([name for name in sys.modules if name.startswith('plotext')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


VALUES = st.lists(st.none() | st.floats(0, 1e12), max_size=40)


@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(1, 200), st.integers(1, 60))
def test_a_plot_can_be_drawn_of_anything_in_any_size(
    values: list[list[float | None]], width: int, height: int
) -> None:
    curves = [Curve(f"c{number}", each) for number, each in enumerate(values)]
    if any(value is not None for each in values for value in each):
        assert draw(curves, width, height, 10.0)
    assert isinstance(Plot("x", "y"), Plot)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0.0, "0ms"), (0.0214, "21ms"), (0.9994, "999ms"), (0.9996, "1.00s"), (9.994, "9.99s"),
     (12.4, "12.4s"),
     (125, "2m05s")],
)  # fmt: skip
def test_durations_have_three_digits_that_count(seconds: float | None, shown: str) -> None:
    assert took(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (0.0, "0.0"), (0.02, "0.02"), (6.44, "6.4"), (99.94, "99.9"), (1204.4, "1,204")],
)
def test_rates_have_three_digits_that_count(value: float | None, shown: str) -> None:
    assert rate(value) == shown
