"""The listing of requests by service and model, as the proxies tell of them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from saia_engine.view import TrafficView
from saia_tui.cells import count, join, sparkline, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.figures import rate_cell, took_cell

REASONS = {
    "busy": "its queue was full, or the gate at its limits (429)",
    "away": "nothing was ready or within reach, or the proxy in maintenance (503)",
    "service": "the instance itself answered 5xx",
    "lost": "the instance or the way to it was lost on the way (502, or cut)",
    "timeout": "too slow to begin or to go on (504, or cut)",
    "proxy": "the proxy failed (500)",
    "limit": "its API key's own limit (429)",
    "client": "the request itself: key, path, model, size (4xx)",
    "gone": "the client went away before the end",
}
"""What each reason means; those from `limit` on are the clients' doing."""
CLIENTS_DOING = ("limit", "client", "gone")
SLOW_QUEUE_S = 1.0


def key_of(row: TrafficView) -> str:
    """Its key in the state stream."""
    if not row.service:
        return "-"
    return f"{row.service}/{row.model}" if row.model else row.service


def failures(failed: Mapping[str, int]) -> Text:
    """The most frequent reason first; the clients' own doing is quiet."""
    parts = [
        text(f"{reason} {number}  ", "quiet" if reason in CLIENTS_DOING else "bad")
        for reason, number in sorted(
            failed.items(), key=lambda item: (item[0] in CLIENTS_DOING, -item[1], item[0])
        )
    ]
    return join(*parts)


def _name(row: TrafficView, sight: Sight, width: int) -> Text:
    if not row.service:
        return text("no service", "quiet")
    return text(f"  {row.model}", "quiet") if row.model else text(row.service, "strong")


def _models(row: TrafficView, sight: Sight, width: int) -> Text:
    return text("" if row.model else " ".join(row.models), "quiet")


def _waited(row: TrafficView, sight: Sight, width: int) -> Text:
    slow = row.waited_p95_s is not None and row.waited_p95_s >= SLOW_QUEUE_S
    return took_cell(row.waited_p95_s, "warn" if slow else "quiet")


TRAFFIC = Listing(
    table="traffic",
    title="REQUESTS",
    columns=(
        Column("SERVICE", _name, 14, lambda r: (not r.service, r.service, r.model), grow=2, limit=34),
        Column("REQ/S~", lambda row, s, w: rate_cell(row.requests_per_s), 6, lambda r: r.requests_per_s or 0,
               right=True),
        Column("LAST HOUR", lambda row, s, w: sparkline(s.rates.get(key_of(row), ()), w), 9, grow=3, limit=60,
               drop=3),
        Column("ERR/S~", lambda row, s, w: rate_cell(row.errors_per_s, "bad"), 6,
               lambda r: -(r.errors_per_s or 0), right=True),
        Column("TTFT p50", lambda row, s, w: took_cell(row.first_token_p50_s), 8,
               lambda r: -(r.first_token_p50_s or 0), right=True),
        Column("p95", lambda row, s, w: took_cell(row.first_token_p95_s), 6,
               lambda r: -(r.first_token_p95_s or 0), right=True),
        Column("ANSWER p95", lambda row, s, w: took_cell(row.answer_p95_s), 10,
               lambda r: -(r.answer_p95_s or 0), drop=5, right=True),
        Column("WAIT p95", _waited, 8, lambda r: -(r.waited_p95_s or 0), drop=4, right=True),
        Column("QUEUE", lambda row, s, w: count(row.queued, "warn"), 5, lambda r: -r.queued, right=True),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 5, lambda r: -r.in_flight, right=True),
        Column("TOK/S", lambda row, s, w: rate_cell(row.tokens_per_s), 6, lambda r: -(r.tokens_per_s or 0),
               drop=2, right=True),
        Column("FAILED, LAST MINUTE", lambda row, s, w: failures(row.failed), 19, grow=2, limit=44, drop=6),
        Column("MODELS", _models, 10, grow=1, limit=32, drop=7),
    ),
    order=lambda row: (not row.troubled, not row.service, row.service, row.model),
    words=lambda row: f"{row.service} {row.model} {' '.join(row.models)} {' '.join(row.failed)}",
    empty="Nobody tells of requests: no service is configured, or the engine is older than this screen.",
)  # fmt: skip
