"""The first screen: what is wrong, how the services are, what ends next and what changed last."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from saia_tui.columns import Sight
from saia_tui.listings import ALARMS, EVENTS, INSTANCES, NODES, PROXIES, SERVICES, is_live
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable

TWO_COLUMNS_FROM = 150
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

    def compose(self) -> ComposeResult:
        yield RowTable(ALARMS, self._sight, id="alarms")
        with Horizontal():
            with Vertical(id="left"):
                yield RowTable(SERVICES, self._sight, id="services")
                yield RowTable(INSTANCES, self._sight, where=is_live, id="instances")
                yield RowTable(EVENTS, self._sight, id="events")
            with Vertical(id="right"):
                yield RowTable(PROXIES, self._sight, id="proxies")
                yield RowTable(NODES, self._sight, id="nodes")

    def _sight(self) -> Sight:
        return self.feed.sight

    def first(self) -> RowTable:
        return self.query_one("#services", RowTable)

    def on_mount(self) -> None:
        self._arrange()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def on_row_table_arranged(self, event: RowTable.Arranged) -> None:
        self._arrange()

    def _arrange(self) -> None:
        tables = {table.id: table for table in self.row_tables()}
        wide = self.size.width >= TWO_COLUMNS_FROM
        self.query_one("#right").display = wide
        heights = share(
            self.size.height,
            wide=wide,
            **{name: len(tables[name].rows.keys) for name in ("alarms", "services", "instances", "proxies")},
        )
        for name, table in tables.items():
            lines = getattr(heights, str(name))
            table.display = lines > 0
            table.styles.height = max(1, lines)
