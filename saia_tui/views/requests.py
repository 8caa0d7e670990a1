"""The screen of requests: by service and model, and by API key, each with its last hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import events
from textual.app import ComposeResult

from saia_engine.client import ClientError
from saia_tui.columns import Sight
from saia_tui.feed import Engine, Feed
from saia_tui.figures import rate
from saia_tui.listings import KEYS, TRAFFIC
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows.plots import PlotsWindow

REFRESH_S = 10.0
"""The engine keeps steps of this length."""


class RequestsView(View):
    DEFAULT_CSS = "RequestsView > #traffic { margin-bottom: 1; } RequestsView > #keys { height: 1fr; }"

    def __init__(self, feed: Feed, engine: Engine) -> None:
        self._engine = engine
        self._past: dict[str, Sequence[float]] = {}
        self._traffic = RowTable(TRAFFIC, self._sight, id="traffic")
        self._keys = RowTable(KEYS, self._sight, id="keys")
        super().__init__(feed, self._traffic, self._keys, id="requests", first=self._traffic)

    def compose(self) -> ComposeResult:
        yield self._traffic
        yield self._keys

    def on_mount(self) -> None:
        self.set_interval(REFRESH_S, self._ask)

    def on_show(self, event: events.Show) -> None:
        self._ask()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def on_row_table_arranged(self, event: RowTable.Arranged) -> None:
        self._arrange()

    def on_row_table_chosen(self, event: RowTable.Chosen) -> None:
        event.stop()
        self.app.push_screen(PlotsWindow(self._engine, event.table.listing.table, event.key))

    def caption(self) -> str:
        rows = [row for row in self.feed.tables.traffic.values() if not row.model and row.service]
        if not rows or all(row.requests_per_s is None for row in rows):
            return ""
        requests = sum(row.requests_per_s or 0.0 for row in rows)
        tokens = sum(row.tokens_per_s or 0.0 for row in rows)
        return f"{rate(requests)} req/s, {rate(tokens)} tok/s"

    def _arrange(self) -> None:
        """Services have what they need, up to two thirds; the keys below have the rest."""
        wanted = len(self._traffic.rows.keys) + 1
        self._traffic.styles.height = max(1, min(wanted, self.size.height * 2 // 3))

    def _sight(self) -> Sight:
        return Sight(self.feed.now, {} if self.feed.replay else self._past)

    def _ask(self) -> None:
        if self.display and self.feed.link.up and self.feed.replay is None:
            self.run_worker(self._read_past(), exclusive=True, group="past")

    async def _read_past(self) -> None:
        """An engine that is away, or too old to tell, leaves what is shown."""
        for table in ("traffic", "keys"):
            try:
                answer = await self._engine.history(table)
            except ClientError:
                return
            self._past |= {str(key): _numbers(values) for key, values in dict(answer.get("rows", {})).items()}
        self._traffic.look_again()
        self._keys.look_again()


def _numbers(values: Any) -> list[float]:
    return [float(value or 0.0) for value in values]
