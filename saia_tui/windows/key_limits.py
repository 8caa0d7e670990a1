"""Asks for an API key's limits, beginning with those that are ordered now."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_engine.view import KeyView
from saia_tui.acts.on_keys import Limits
from saia_tui.cells import text
from saia_tui.listings.keys import limits
from saia_tui.windows.window import Window, facts

NAMES = ("concurrency", "per_minute")
ASKED = {"concurrency": "requests at once:", "per_minute": "requests a minute:"}


class KeyLimitsWindow(Window[Limits]):
    """Both limits, or None. Nothing is sent from here: a confirmation follows."""

    def __init__(self, rows: Sequence[KeyView]) -> None:
        super().__init__()
        self._rows = rows

    def compose(self) -> ComposeResult:
        row, names = self._rows[0], ", ".join(row.name for row in self._rows)
        in_force = limits(row.said_concurrency, row.said_per_minute) if row.known else "unknown"
        with Vertical() as box:
            box.border_title = "Limits of an API key"
            yield Static(facts([("key", names), ("proxy", row.proxy), ("in force", in_force)]))
            for name in NAMES:
                ordered = getattr(row, f"ordered_{name}")
                with Horizontal(classes="entry"):
                    yield Static(text(ASKED[name].rjust(18), "quiet"))
                    yield Input(
                        "" if ordered is None else str(ordered), restrict=r"[0-9]{0,6}", id=name, compact=True
                    )
            yield Static(
                text("empty: as the proxy is configured; 0: no limit. Enter goes on, Esc leaves", "faint"),
                classes="note",
            )

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#concurrency"))

    @on(Input.Submitted, "#concurrency")
    def _next(self) -> None:
        self.set_focus(self.query_one("#per_minute"))

    @on(Input.Submitted, "#per_minute")
    def _done(self) -> None:
        entered = {name: self.query_one(f"#{name}", Input).value for name in NAMES}
        self.dismiss({name: int(value) if value else None for name, value in entered.items()})
