"""The listing of events, the newest first."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import Severity, short_id
from saia_engine.view import EventView
from saia_tui import moments
from saia_tui.cells import state_cell, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import WORST_SEVERITY, rank


def _plain_unless_bad(row: EventView, sight: Sight, width: int) -> Text:
    return text(row.text, "quiet" if row.severity == Severity.INFO else "")


def _by(row: EventView, sight: Sight, width: int) -> Text:
    return text("engine", "faint") if row.uid is None else text(f"uid {row.uid}", "busy")


EVENTS = Listing(
    table="events",
    title="EVENTS",
    columns=(
        Column("TIME", lambda row, s, w: text(moments.clock(row.at, s.now), "quiet"), 8, lambda r: -r.seq),
        Column(
            "", lambda row, s, w: state_cell(row.severity)[:1], 1, lambda r: rank(r.severity, WORST_SEVERITY)
        ),
        Column(
            "SUBJECT",
            lambda row, s, w: text(short_id(row.subject), "strong"),
            14,
            lambda r: r.subject,
            grow=1,
            limit=24,
        ),
        Column("EVENT", _plain_unless_bad, 38, grow=8),
        Column("BY", _by, 8, lambda r: -1 if r.uid is None else r.uid, drop=1),
        Column("CODE", lambda row, s, w: text(row.code, "quiet"), 18, lambda r: r.code, drop=2),
    ),
    order=lambda row: (-row.seq,),
    words=lambda row: f"{row.severity} {row.code} {row.subject} {row.text} uid={row.uid}",
    empty="Nothing has happened yet: here the engine writes what it does, and why.",
)
