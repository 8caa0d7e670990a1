"""The screen of the tunnel: proxies, and of the one under the cursor its connections and API keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.message import Message

from saia_tui.feed import Feed
from saia_tui.listings import KEYS, PROXIES
from saia_tui.listings.links import LINKS
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable


class ProxyTable(RowTable):
    """Tells when its cursor goes to another proxy."""

    looked_at: str | None = None

    class Looked(Message):
        pass

    def repaint(self) -> None:
        super().repaint()
        if self.rows.cursor != self.looked_at:
            self.looked_at = self.rows.cursor
            self.post_message(self.Looked())


class ProxiesView(View):
    DEFAULT_CSS = """
    ProxiesView > #proxies, ProxiesView > #links { margin-bottom: 1; }
    ProxiesView > #keys { height: 1fr; }
    """

    def __init__(self, feed: Feed) -> None:
        self._proxies = ProxyTable(PROXIES, lambda: feed.sight, id="proxies")
        self._links, self._keys = (
            RowTable(listing, lambda: feed.sight, id=listing.table) for listing in (LINKS, KEYS)
        )
        self._shown: str | None = None
        super().__init__(feed, self._proxies, self._keys, id="proxies", first=self._proxies)

    def compose(self) -> ComposeResult:
        yield self._proxies
        yield self._links
        yield self._keys

    def take_all(self) -> None:
        super().take_all()
        self._follow_cursor(always=True)

    def take(self, changed: Mapping[str, set[str] | None]) -> None:
        super().take(changed)
        self._follow_cursor(always="proxies" in changed)

    def show_stale(self, stale: bool) -> None:
        super().show_stale(stale)
        self._links.show_stale(stale)

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def on_row_table_arranged(self, event: RowTable.Arranged) -> None:
        self._arrange()

    def on_proxy_table_looked(self, event: ProxyTable.Looked) -> None:
        event.stop()
        self._follow_cursor(always=False)

    def on_row_table_chosen(self, event: RowTable.Chosen) -> None:
        """Enter on a proxy leads to its keys."""
        if event.table is self._proxies:
            event.stop()
            self._follow_cursor(always=True)
            self._keys.focus()

    def caption(self) -> str:
        rows = self.feed.tables.proxies.values()
        return f"{sum(row.connected for row in rows)} of {len(rows)} connected"

    def _follow_cursor(self, *, always: bool) -> None:
        """Show what belongs to the proxy under the cursor."""
        name = self._proxies.rows.cursor
        if name == self._shown and not always:
            self._links.repaint()
            return
        proxy = self.feed.tables.proxies.get(name or "")
        if name != self._shown:
            self._shown = name
            self._keys.show_where(lambda row: row.proxy == name)
        links: dict[str, Any] = {link.relay: link for link in proxy.links} if proxy else {}
        self._links.take(links)

    def _arrange(self) -> None:
        """Proxies and connections have what they need, each up to a third; the keys have the rest."""
        most = max(2, self.size.height // 3)
        for table in (self._proxies, self._links):
            table.styles.height = max(1, min(len(table.rows.keys) + 1, most))
