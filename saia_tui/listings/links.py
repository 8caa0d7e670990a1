"""The listing of one proxy's connections, each a relay of the gate."""

from __future__ import annotations

from rich.text import Text

from saia_engine.view import LinkView, ProxyView
from saia_tui.cells import count, known, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.figures import took_cell
from saia_tui.listings.fields import since

SLOW_S = 0.5
"""A round trip from which a first token is felt to be late."""


def round_trip(row: LinkView | ProxyView, sight: Sight, width: int) -> Text:
    slow = row.round_trip_s is not None and row.round_trip_s >= SLOW_S
    return took_cell(row.round_trip_s, "warn" if slow else "")


def routes(row: LinkView | ProxyView, sight: Sight, width: int) -> Text:
    """The generation that the proxy acknowledged, and how far the engine's is ahead."""
    if not row.routes_generation:
        return known(None)
    if row.routes_behind:
        return text(f"{row.routes_generation} (-{row.routes_behind})", "warn")
    return text(row.routes_generation, "quiet")


LINKS = Listing(
    table="links",
    title="CONNECTIONS",
    columns=(
        Column("CONNECTION", lambda row, s, w: text(row.relay, "strong"), 10, lambda r: r.relay),
        Column("PEER", lambda row, s, w: known(row.peer), 16, lambda r: r.peer, grow=1, limit=47),
        Column("FOR", lambda row, s, w: since(row.since, s), 7, lambda r: r.since or 0, right=True),
        Column("ROUND TRIP", round_trip, 10, lambda r: -(r.round_trip_s or 0), right=True),
        Column("ROUTES", routes, 10, lambda r: r.routes_generation, right=True),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 5, lambda r: -r.in_flight, right=True),
        Column("ORDERS", lambda row, s, w: text("acked", "quiet") if row.orders_acked else text("◑ not acked", "warn"),
               11, lambda r: r.orders_acked),
        Column("GATE PID", lambda row, s, w: text(row.pid, "quiet"), 8, drop=1, right=True),
    ),
    order=lambda row: (row.orders_acked, not row.routes_behind, row.since or 0.0, row.relay),
    words=lambda row: f"{row.relay} {row.peer}",
    empty="This proxy is away: no connection of it reports.",
)  # fmt: skip
