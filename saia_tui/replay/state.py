"""One look at a past moment."""

from __future__ import annotations

import asyncio

from saia_engine.client import Tables
from saia_engine.record.frames import RecordFault, Reel
from saia_engine.record.index import where
from saia_engine.record.reading import frame_at
from saia_engine.view import Change
from saia_tui import moments
from saia_tui.replay.source import Record


async def state_at(record: Record, moment: float) -> tuple[Tables, float]:
    """All tables, and when that sample was taken. Raises RecordFault where there is none of that moment."""
    index = await record.index()
    span = index.span_for(moment)
    if span is None or moment > span.until:
        raise RecordFault(f"there is no record of {moments.stamp(moment)}: {where(index, moments.stamp)}")
    reel = await asyncio.to_thread(Reel, await record.segment(span.name))
    number = frame_at(reel, moment)
    if number < 0:
        raise RecordFault(f"{span.name}: {reel.fault or 'it is empty'}")
    tables = Tables()
    for table, rows in reel.rows(number).items():
        tables.apply(Change(0, table, rows, reset=True))
    return tables, reel.frames[number].at
