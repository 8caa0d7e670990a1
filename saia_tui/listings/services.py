"""The listing of services."""

from __future__ import annotations

from rich.text import Text

from saia_engine.view import ServiceView
from saia_tui.cells import count, join, sparkline, state_cell, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import rank, until
from saia_tui.palette import state

WORST_SERVICE = ("down", "degraded", "removed", "paused", "ok", "stopped")


def _ready_of_desired(row: ServiceView, sight: Sight, width: int) -> Text:
    style = "ok" if row.ready >= row.replicas else "bad" if row.ready == 0 else "warn"
    mark = text("*", "busy") if row.override_by_uid is not None else text("")
    return join(text(row.ready, style), text(f"/{row.replicas}", "quiet"), mark)


def _errors(row: ServiceView, sight: Sight, width: int) -> Text:
    return count(row.errors, "bad" if row.errors * 100 > row.requests else "warn")


def _rate(row: ServiceView, sight: Sight, width: int) -> Text:
    rate = row.requests_per_s
    return text(f"{rate:.1f}" if rate < 100 else f"{rate:.0f}", "" if rate else "faint")


def _moving(row: ServiceView, sight: Sight, width: int) -> Text:
    """Instances that are neither ready nor gone, with the marks of their states."""
    parts = [
        text(f"{state(word)[0]}{number} ", state(word)[1])
        for word, number in (("starting", row.starting), ("draining", row.draining), ("unready", row.unready))
        if number
    ]
    return join(*parts)


def _override(row: ServiceView, sight: Sight, width: int) -> Text:
    """What stands above the file's word: an operator's number, a rollback; and a rollout under way."""
    told = []
    if row.override_by_uid is not None:
        told.append(text(f"uid {row.override_by_uid}: {row.configured_replicas} → {row.replicas}", "busy"))
    if row.pinned_to:
        told.append(text(f"{' ' if told else ''}rolled back to {row.pinned_to}", "warn"))
    elif row.rollout:
        told.append(text(f"{' ' if told else ''}rollout {row.rollout}", "busy"))
    return join(*told)


SERVICES = Listing(
    table="services",
    title="SERVICES",
    columns=(
        Column("SERVICE", lambda row, s, w: text(row.name, "strong"), 12, lambda r: r.name, grow=2, limit=28),
        Column(
            "STATUS",
            lambda row, s, w: state_cell(row.status),
            10,
            lambda r: rank(r.status, WORST_SERVICE),
        ),
        Column("READY", _ready_of_desired, 6, lambda r: r.ready - r.replicas, right=True),
        Column("MOVING", _moving, 8, lambda r: -r.starting - r.draining - r.unready),
        Column(
            "ENDS IN",
            lambda row, s, w: until(row.next_end, s),
            7,
            lambda r: r.next_end,
            right=True,
        ),
        Column("REQ/S", _rate, 5, lambda r: r.requests_per_s, right=True),
        Column(
            "RATE", lambda row, s, w: sparkline(s.rates.get(row.name, ()), w), 8, grow=3, limit=60, drop=2
        ),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 5, lambda r: r.in_flight, drop=3, right=True),
        Column("ERRORS", _errors, 6, lambda r: r.errors, drop=1, right=True),
        Column(
            "REQUESTS", lambda row, s, w: count(row.requests), 9, lambda r: r.requests, drop=7, right=True
        ),
        Column("OVERRIDE", _override, 18, lambda r: r.override_at, drop=8),
        Column("MODELS", lambda row, s, w: text(" ".join(row.models), "quiet"), 12, grow=2, limit=32, drop=9),
    ),
    order=lambda row: (rank(row.status, WORST_SERVICE), row.name),
    words=lambda row: f"{row.name} {row.status} {' '.join(row.models)}",
    empty="No services yet: declare one, [services.NAME], in the engine's file; then SIGHUP.",
)
