"""The listing of alarms."""

from __future__ import annotations

from saia_engine.model import short_id
from saia_tui.cells import text
from saia_tui.columns import Column, Listing
from saia_tui.listings.fields import WORST_SEVERITY, rank, severity, since

ALARMS = Listing(
    table="alarms",
    title="ALARMS",
    columns=(
        Column("ALARM", severity, 10, lambda r: rank(r.severity, WORST_SEVERITY)),
        Column("FOR", lambda row, s, w: since(row.since, s), 7, lambda r: r.since, right=True),
        Column("SUBJECT", lambda row, s, w: text(short_id(row.subject), "strong"), 12, grow=1, limit=24),
        Column(
            "CODE", lambda row, s, w: text(row.code, "quiet"), 18, lambda r: r.code, drop=1, limit=24, grow=1
        ),
        Column("WHAT IS WRONG", lambda row, s, w: text(row.text), 66, grow=8),
    ),
    order=lambda row: (rank(row.severity, WORST_SEVERITY), -row.since, row.code, row.subject),
    words=lambda row: f"{row.severity} {row.code} {row.subject} {row.text}",
    empty="● none: everything is as desired",
    empty_style="ok",
)
