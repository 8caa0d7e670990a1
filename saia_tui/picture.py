"""`python -m saia_tui.picture OUT.svg --socket PATH`: the overview as an SVG, drawn by the program itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from saia_engine.client import EngineClient
from saia_tui.app import SaiaApp
from saia_tui.feed import RATES_KEPT, Engine, Feed

ANSWER_S = 15.0


class NothingToDraw(Exception):
    """No engine gave its state in time."""


async def draw(
    engine: Engine,
    *,
    size: tuple[int, int] = (120, 40),
    watch_s: float = 0.0,
    rates: Mapping[str, Sequence[float]] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> str:
    """The overview as SVG, after watching for `watch_s` seconds. Raises NothingToDraw."""
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
        app.repaint()
        await pilot.pause()
        return app.export_screenshot(title="saia-tui")


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--socket", required=True, type=click.Path(path_type=Path), help="operator.sock of the engine.")
@click.option("--columns", default=120, show_default=True)
@click.option("--lines", default=40, show_default=True)
@click.option("--watch", "watch_s", default=0.0, show_default=True, help="Seconds to fill the sparklines.")
def main(out: Path, socket: Path, columns: int, lines: int, watch_s: float) -> None:
    """Draw the overview of a running engine into OUT."""

    async def run() -> str:
        async with EngineClient(socket) as engine:
            return await draw(engine, size=(columns, lines), watch_s=watch_s)

    try:
        out.write_text(asyncio.run(run()))
    except (NothingToDraw, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


if __name__ == "__main__":
    sys.exit(main())
