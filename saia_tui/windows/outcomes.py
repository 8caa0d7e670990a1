"""What came of acts, target by target; stays until it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from saia_tui.cells import text
from saia_tui.windows.pages import Page


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one act on one target."""

    what: str
    done: bool
    words: str


def outcomes_page(outcomes: Sequence[Outcome]) -> Page:
    """The failed ones first."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for outcome in sorted(outcomes, key=lambda each: each.done):
        mark = text("● done", "ok") if outcome.done else text("✖ not done", "bad")
        words = text(outcome.words)
        words.no_wrap = False
        grid.add_row(mark, text(outcome.what, "strong"), words)
    failed = sum(not outcome.done for outcome in outcomes)
    return Page(f"{failed} of {len(outcomes)} not done", grid)
