"""The state at a moment, straight from a directory. Every call may block."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from saia_engine.record import files
from saia_engine.record.frames import RecordFault, Reel, Rows
from saia_engine.record.index import Index


def frame_at(reel: Reel, moment: float) -> int:
    """The number of the last frame at or before that moment; -1: there is none."""
    return bisect_right(reel.frames, moment, key=lambda frame: frame.at) - 1


def state_at(directory: Path, index: Index, moment: float) -> tuple[float, Rows]:
    """All rows of the sample that stands for that moment, and when it was taken. Raises RecordFault."""
    span = index.span_for(moment)
    if span is None or moment > span.until:
        raise RecordFault("there is no record of that moment")
    try:
        reel = Reel(files.read(directory, span.name))
    except OSError as exc:
        raise RecordFault(f"{span.name}: {exc.strerror or exc}") from exc
    number = frame_at(reel, moment)
    if number < 0:
        raise RecordFault("there is no record of that moment")
    return reel.frames[number].at, reel.rows(number)
