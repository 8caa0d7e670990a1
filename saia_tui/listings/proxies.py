"""The listing of proxies."""

from __future__ import annotations

from rich.text import Text

from saia_engine.view import ProxyView
from saia_tui.cells import count, join, known, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import since
from saia_tui.listings.links import round_trip, routes


def _connection(row: ProxyView, sight: Sight, width: int) -> Text:
    if row.connected:
        return text("● connected", "ok")
    return join(
        text("✖ away", "bad"), text(" "), since(row.silent_since, sight) if row.silent_since else text("")
    )


def _maintenance(row: ProxyView, sight: Sight, width: int) -> Text:
    word = "on" if row.maintenance else "off"
    if row.orders_acked or not (row.connected or row.maintenance):
        return text(f"▽ {word}" if row.maintenance else word, "warn" if row.maintenance else "quiet")
    return text(f"◑ {word}, not acked", "warn")


PROXIES = Listing(
    table="proxies",
    title="PROXIES",
    columns=(
        Column("PROXY", lambda row, s, w: text(row.name, "strong"), 10, lambda r: r.name, grow=1, limit=20),
        Column("LINK", _connection, 11, lambda r: r.connected),
        Column("FOR", lambda row, s, w: since(row.connected_since, s), 7, right=True),
        Column("MAINTENANCE", _maintenance, 15, lambda r: (r.maintenance, r.orders_acked)),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 6, lambda r: r.in_flight, right=True),
        Column("RTT", round_trip, 6, lambda r: -(r.round_trip_s or 0), drop=1, right=True),
        Column("ROUTES", routes, 8, lambda r: r.routes_generation, right=True),
        Column("RELAYS", lambda row, s, w: count(row.relays), 6, lambda r: r.relays, drop=2, right=True),
        Column(
            "REQUESTS", lambda row, s, w: count(row.requests), 10, lambda r: r.requests, drop=2, right=True
        ),
        Column("QUEUE~", lambda row, s, w: count(row.said_queue, "warn"), 6, drop=3, right=True),
        Column("VERSION~", lambda row, s, w: known(row.said_version, "quiet"), 8, drop=2),
        Column("PEER", lambda row, s, w: known(row.peer, "quiet"), 16, grow=1, limit=40, drop=5),
        Column("SERVICES", lambda row, s, w: text(" ".join(row.services), "quiet"), 10, grow=1, drop=6),
    ),
    order=lambda row: (row.connected, row.orders_acked, row.name),
    words=lambda row: f"{row.name} {row.peer} {row.said_version} {' '.join(row.services)}",
    stale=lambda row, sight: row.silent_since is not None,
    empty="No proxies yet: [proxies.NAME] in the configuration, then saia-engine gate-key --proxy NAME KEY.",
)
