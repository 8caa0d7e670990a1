"""The listing of alarms."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import short_id
from saia_engine.view import AlarmView
from saia_tui.cells import join, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import WORST_SEVERITY, rank, severity, since


def _severity(row: AlarmView, sight: Sight, width: int) -> Text:
    """Quiet once somebody has taken it up."""
    return severity(row, sight, width) if row.acked_by is None else text(f"✓ {row.severity}", "quiet")


def _acked(row: AlarmView) -> str:
    return "" if row.acked_by is None else " taken up"


def _taken_up(row: AlarmView, sight: Sight, width: int) -> Text:
    if row.acked_by is None:
        return text("")
    return join(text(f"uid {row.acked_by} ", "busy"), since(row.acked_at, sight))


ALARMS = Listing(
    table="alarms",
    title="ALARMS",
    columns=(
        Column("ALARM", _severity, 10, lambda r: rank(r.severity, WORST_SEVERITY)),
        Column("FOR", lambda row, s, w: since(row.since, s), 7, lambda r: r.since, right=True),
        Column("SUBJECT", lambda row, s, w: text(short_id(row.subject), "strong"), 12, grow=1, limit=24),
        Column(
            "CODE", lambda row, s, w: text(row.code, "quiet"), 18, lambda r: r.code, drop=1, limit=24, grow=1
        ),
        Column("TAKEN UP", _taken_up, 14, lambda r: r.acked_at or 0.0, drop=2),
        Column("WHAT IS WRONG", lambda row, s, w: text(row.text), 66, grow=8),
    ),
    order=lambda row: (
        rank(row.severity, WORST_SEVERITY),
        row.acked_by is not None,
        -row.since,
        row.code,
        row.subject,
    ),
    words=lambda row: f"{row.severity} {row.code} {row.subject} {row.text}{_acked(row)}",
    empty="● none: everything is as desired",
    empty_style="ok",
)
