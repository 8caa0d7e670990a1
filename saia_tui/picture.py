"""`python -m saia_tui.picture OUT.svg --socket PATH`: the screen as an SVG, drawn by the program itself.

With `--all DIRECTORY` the main screens and windows, each in a file of its own; with `--demo` from a demo of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from saia_engine.client import EngineClient
from saia_tui.app import SaiaApp
from saia_tui.demo import demo
from saia_tui.feed import RATES_KEPT, Engine, Feed

ANSWER_S = 15.0
SETTLE_S = 0.3


class NothingToDraw(Exception):
    """No engine gave its state in time."""


SCREENS: Mapping[str, Sequence[str]] = {
    "overview": ("1",),
    "services": ("2",),
    "jobs": ("3",),
    "nodes": ("4",),
    "proxies": ("5",),
    "events": ("6",),
    "scale": ("1", "s"),
    "command": ("1", "colon"),
    "help": ("1", "question_mark"),
    "tour": ("1", "f2"),
}
"""Names of pictures, and the keys that lead there."""


async def draw(
    engine: Engine,
    *,
    size: tuple[int, int] = (120, 40),
    watch_s: float = 0.0,
    rates: Mapping[str, Sequence[float]] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> str:
    """The overview as SVG, after watching for `watch_s` seconds. Raises NothingToDraw."""
    overview = {"overview": SCREENS["overview"]}
    drawn = await draw_all(engine, overview, size=size, watch_s=watch_s, rates=rates, monotonic=monotonic)
    return drawn["overview"]


async def draw_all(
    engine: Engine,
    screens: Mapping[str, Sequence[str]] = SCREENS,
    *,
    size: tuple[int, int] = (120, 40),
    watch_s: float = 0.0,
    rates: Mapping[str, Sequence[float]] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """SVGs by name, after watching for `watch_s` seconds. Raises NothingToDraw."""
    feed = Feed(engine, monotonic=monotonic)
    for name, past in (rates or {}).items():
        feed.rates[name] = deque(past, maxlen=RATES_KEPT)
    app = SaiaApp(feed, engine)
    async with app.run_test(size=size) as pilot:
        try:
            async with asyncio.timeout(ANSWER_S):
                while feed.tables.engine is None or not feed.link.up:
                    await pilot.pause(0.05)
        except TimeoutError:
            raise NothingToDraw(feed.link.fault or "the engine gave no state") from None
        await pilot.pause(max(0.1, watch_s))
        drawn: dict[str, str] = {}
        for name, keys in screens.items():
            await pilot.press(*keys)
            await pilot.pause(SETTLE_S)
            app.repaint()
            await pilot.pause()
            drawn[name] = app.export_screenshot(title="saia-tui")
            while len(app.screen_stack) > 1:
                await pilot.press("escape")
        return drawn


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--socket", type=click.Path(path_type=Path), help="operator.sock of the engine.")
@click.option("--demo", "as_demo", is_flag=True, help="Draw a demo that is started for it.")
@click.option(
    "--all", "directory", type=click.Path(path_type=Path, file_okay=False), help="Draw all screens."
)
@click.option("--columns", default=120, show_default=True)
@click.option("--lines", default=40, show_default=True)
@click.option("--watch", "watch_s", default=0.0, show_default=True, help="Seconds to fill the sparklines.")
def main(
    out: Path | None,
    socket: Path | None,
    as_demo: bool,
    directory: Path | None,
    columns: int,
    lines: int,
    watch_s: float,
) -> None:
    """Draw the overview of a running engine into OUT, or all screens into a directory."""
    if (out is None) == (directory is None) or (socket is None) != as_demo:
        raise click.UsageError("give OUT or --all DIRECTORY, and --socket PATH or --demo")
    screens = SCREENS if directory is not None else {"overview": SCREENS["overview"]}

    async def run(at: Path) -> dict[str, str]:
        async with EngineClient(at) as engine:
            return await draw_all(engine, screens, size=(columns, lines), watch_s=watch_s)

    try:
        with demo(drill=False) if as_demo else nullcontext(socket) as at:
            assert at is not None
            drawn = asyncio.run(run(at))
        for name, picture in drawn.items():
            (out or (directory or Path()) / f"{name}.svg").write_text(picture)
    except (NothingToDraw, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    sys.exit(main())
