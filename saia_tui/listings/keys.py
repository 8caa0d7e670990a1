"""The listing of API keys: their state, limits and use. Never a key or its hash: nobody here has them."""

from __future__ import annotations

from rich.text import Text

from saia_engine.view import KeyView
from saia_tui.cells import count, known, sparkline, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.figures import rate_cell


def key_of(row: KeyView) -> str:
    """Its key in the state stream."""
    return f"{row.proxy}/{row.name}"


def limits(concurrency: int, per_minute: int) -> str:
    """As they are in force; `none` where there are none."""
    words = [f"{concurrency} at once"] if concurrency else []
    words += [f"{per_minute}/min"] if per_minute else []
    return ", ".join(words) or "none"


def _state(row: KeyView, sight: Sight, width: int) -> Text:
    if not row.in_force:
        return text("◑ not in force", "warn")
    if not row.known:
        return text("? not there", "warn")
    return text("✖ revoked", "bad") if row.revoked else text("● valid", "ok")


def _limits(row: KeyView, sight: Sight, width: int) -> Text:
    if not row.known:
        return known(None)
    ordered = row.ordered_concurrency is not None or row.ordered_per_minute is not None
    return text(limits(row.said_concurrency, row.said_per_minute), "busy" if ordered else "quiet")


KEYS = Listing(
    table="keys",
    title="KEYS",
    columns=(
        Column("KEY", lambda row, s, w: text(row.name, "strong"), 14, lambda r: r.name, grow=2, limit=34),
        Column("PROXY", lambda row, s, w: text(row.proxy, "quiet"), 8, lambda r: r.proxy, grow=1, limit=20,
               drop=3),
        Column("STATE", _state, 14, lambda r: (r.in_force, r.known, not r.revoked)),
        Column("REQ/S~", lambda row, s, w: rate_cell(row.requests_per_s), 6,
               lambda r: -(r.requests_per_s or 0), right=True),
        Column("LAST HOUR", lambda row, s, w: sparkline(s.rates.get(key_of(row), ()), w), 9, grow=2, limit=60,
               drop=4),
        Column("REFUSED/S~", lambda row, s, w: rate_cell(row.refused_per_s, "warn"), 10,
               lambda r: -(r.refused_per_s or 0), right=True),
        Column("OPEN~", lambda row, s, w: count(row.said_in_flight), 5, lambda r: -r.said_in_flight,
               right=True),
        Column("LIMITS~", _limits, 17, grow=1, limit=26, drop=1),
        Column("REQUESTS~", lambda row, s, w: count(row.said_requests), 9, lambda r: -r.said_requests, drop=5,
               right=True),
        Column("REFUSED~", lambda row, s, w: count(row.said_refused), 8, lambda r: -r.said_refused, drop=6,
               right=True),
        Column("MODELS~", lambda row, s, w: text(row.said_models, "quiet"), 10, grow=1, limit=32, drop=7),
    ),
    order=lambda row: (row.in_force, not row.refused_per_s, row.proxy, row.name),
    words=lambda row: f"{row.name} {row.proxy} {row.said_models} {'revoked' if row.revoked else 'valid'}",
    empty="No proxy tells of API keys.",
)  # fmt: skip
