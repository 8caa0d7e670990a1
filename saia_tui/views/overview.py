"""The first screen: what is wrong, how the services are, what ends next and what changed last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from saia_tui.feed import Feed
from saia_tui.listings import ALARMS, EVENTS, INSTANCES, NODES, PROXIES, SERVICES
from saia_tui.listings.instances import is_live
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable

TWO_COLUMNS_FROM = 170
SHORT_BELOW = 28
"""Lines; a shorter screen leaves the instances to their own view."""


@dataclass(frozen=True, slots=True)
class Heights:
    """Lines of each panel, header included; 0 hides it. `nodes` and `events` take what is left."""

    alarms: int
    services: int
    instances: int
    events: int
    proxies: int
    nodes: int


def share(height: int, *, wide: bool, alarms: int, services: int, instances: int, proxies: int) -> Heights:
    """Divide `height` lines between panels with so many rows; a blank line follows each panel but the last."""
    top = min(_lines(alarms), max(2, height // 3))
    rest = height - top - 1
    middle = min(_lines(services), max(2, rest * 2 // 3))
    below = rest - middle - 1
    ends = 0 if height < SHORT_BELOW else min(_lines(instances), max(2, below * 3 // 5))
    last = below - ends - (1 if ends else 0)
    links = min(_lines(proxies), max(2, rest // 3)) if wide else 0
    return Heights(top, max(0, middle), ends, max(0, last), links, max(0, rest - links - 1) if wide else 0)


def _lines(rows: int) -> int:
    """A header and its rows; an empty panel is one line that says so."""
    return rows + 1 if rows else 1


class Overview(View):
    DEFAULT_CSS = """
    Overview > RowTable, Overview Vertical > RowTable { margin-bottom: 1; }
    Overview #events { margin-bottom: 0; }
    Overview #nodes { margin-bottom: 0; }
    Overview #left { width: 11fr; }
    Overview #right { width: 8fr; margin-left: 2; }
    """

    def __init__(self, feed: Feed) -> None:
        self._panels = {
            listing.table: RowTable(listing, lambda: feed.sight, where=where, id=listing.table)
            for listing, where in (
                (ALARMS, _all), (SERVICES, _all), (INSTANCES, is_live), (EVENTS, _all), (PROXIES, _all), (NODES, _all),
            )
        }  # fmt: skip
        self._right = Vertical(self._panels["proxies"], self._panels["nodes"], id="right")
        super().__init__(feed, *self._panels.values(), id="overview", first=self._panels["services"])

    def compose(self) -> ComposeResult:
        yield self._panels["alarms"]
        with Horizontal():
            with Vertical(id="left"):
                yield self._panels["services"]
                yield self._panels["instances"]
                yield self._panels["events"]
            yield self._right

    def on_mount(self) -> None:
        self._arrange()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def on_row_table_arranged(self, event: RowTable.Arranged) -> None:
        self._arrange()

    def _arrange(self) -> None:
        wide = self.size.width >= TWO_COLUMNS_FROM
        counts = {name: len(table.rows.keys) for name, table in self._panels.items()}
        heights = share(
            self.size.height,
            wide=wide,
            alarms=counts["alarms"],
            services=counts["services"],
            instances=counts["instances"],
            proxies=counts["proxies"],
        )
        self._right.display = wide
        for name, table in self._panels.items():
            lines = getattr(heights, name)
            table.display = lines > 0
            table.styles.height = max(1, lines)


def _all(row: Any) -> bool:
    return True
