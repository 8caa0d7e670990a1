"""What a record holds: its segments, from when to when, where parts are missing, and where one may want to go."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from saia_engine.record import files
from saia_engine.record.frames import Note, RecordFault, scan

GAP_STEPS = 3.5
"""A frame stands for so many steps after it at most; then something is missing."""
MOST_MOMENTS = 2000
INSTANCE = "instance"


class Span(msgspec.Struct, frozen=True, omit_defaults=True):
    """One segment."""

    name: str
    begin: float
    end: float
    """When its first and its last frame were taken."""
    step_s: float
    frames: int
    size: int
    fault: str = ""
    """Why it ends before its end, or can't be read at all."""

    @property
    def until(self) -> float:
        """As long as its last frame may be shown."""
        return self.end + GAP_STEPS * self.step_s


class Moment(msgspec.Struct, frozen=True):
    at: float
    kind: str
    subject: str
    text: str


class Gap(msgspec.Struct, frozen=True):
    """No record from here to there."""

    begin: float
    end: float
    why: str


class Index(msgspec.Struct, frozen=True):
    spans: list[Span] = []
    """By the time they begin. After a clock was set back they may overlap."""
    moments: list[Moment] = []
    """Critical alarms, operators' acts, starts of the engine; the newest 2,000."""
    changes: list[float] = []
    """When an instance changed its state."""
    faults: list[str] = []
    """Files that can't be read."""

    @property
    def begin(self) -> float | None:
        return self.spans[0].begin if self.spans else None

    @property
    def end(self) -> float | None:
        return max((span.end for span in self.spans), default=None)

    def gaps(self) -> list[Gap]:
        found: list[Gap] = []
        reached: Span | None = None
        for span in self.spans:
            if reached is not None and span.begin > reached.until:
                why = reached.fault or self._unread(reached.end, span.begin) or "nothing was recorded"
                found.append(Gap(reached.end, span.begin, why))
            if reached is None or span.end > reached.end:
                reached = span
        return found

    def _unread(self, begin: float, end: float) -> str:
        """Which file of that time can't be read."""
        return next(
            (
                fault
                for fault in self.faults
                if begin <= files.time_of(fault) + 1 and files.time_of(fault) < end
            ),
            "",
        )

    def gap_at(self, moment: float) -> Gap | None:
        return next(
            (gap for gap in self.gaps() if gap.begin < moment < gap.end and not self.covers(moment)), None
        )

    def covers(self, moment: float) -> bool:
        return any(span.begin <= moment <= span.until for span in self.spans)

    def span_for(self, moment: float) -> Span | None:
        """The segment with the last frame at or before that moment; None: it is before all. Of a time that came
        twice, because the clock was set back, the second one is told."""
        begun = self.spans[: bisect_right(self.spans, moment, key=lambda span: span.begin)]
        return max(begun, key=lambda span: (min(span.end, moment), files.number_of(span.name)), default=None)

    def span_after(self, moment: float) -> Span | None:
        """The first segment that begins after that moment."""
        at = bisect_right(self.spans, moment, key=lambda span: span.begin)
        return self.spans[at] if at < len(self.spans) else None


class Indexer:
    """Reads a directory, and remembers what it found of segments that have not grown since. Every call may block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[int, _Found]] = {}

    def index(self) -> Index:
        """Raises RecordFault where the directory can't be read. One that is not there is an empty record."""
        try:
            names = files.names(self._directory)
        except FileNotFoundError:
            names = []
        except OSError as exc:
            raise RecordFault(f"{self._directory} can't be read: {exc.strerror or exc}") from exc
        self._known = {name: self._look(name) for name in names}
        return _index(found for _, found in self._known.values())

    def _look(self, name: str) -> tuple[int, _Found]:
        try:
            with files.opened(self._directory, name) as (file, size):
                known = self._known.get(name)
                if known is not None and known[0] == size:
                    return known
                return size, _found(name, b"".join(files.pieces(file, size)))
        except RecordFault as exc:
            return -1, _Found(None, (), f"{name}: {exc}")
        except OSError as exc:
            return -1, _Found(None, (), f"{name}: {exc.strerror or exc}")


class _Found(msgspec.Struct, frozen=True):
    span: Span | None
    noted: tuple[tuple[float, tuple[Note, ...]], ...]
    fault: str = ""


def _found(name: str, data: bytes) -> _Found:
    segment = scan(data)
    frames = segment.frames
    if not frames:
        return _Found(None, (), f"{name}: {segment.fault or 'it is empty'}")
    span = Span(name, frames[0].at, frames[-1].at, segment.step_s, len(frames), len(data), segment.fault)
    return _Found(span, tuple((frame.at, frame.notes) for frame in frames if frame.notes))


def _index(found: Iterable[_Found]) -> Index:
    each = list(found)
    spans = sorted(
        (one.span for one in each if one.span is not None), key=lambda span: (span.begin, span.name)
    )
    noted = sorted((part for one in each for part in one.noted), key=lambda part: part[0])
    moments = [
        Moment(at, note.kind, note.subject, note.text)
        for at, notes in noted
        for note in notes
        if note.kind != INSTANCE
    ]
    changes = [at for at, notes in noted if any(note.kind == INSTANCE for note in notes)]
    return Index(spans, moments[-MOST_MOMENTS:], changes, [one.fault for one in each if one.fault])


def told(index: Index) -> dict[str, Any]:
    """As `GET /v1/record` answers it."""
    return {
        "from": index.begin,
        "to": index.end,
        "bytes": sum(span.size for span in index.spans),
        "gaps": index.gaps(),
        **{name: getattr(index, name) for name in index.__struct_fields__},
    }


def where(index: Index, stamp: Any) -> str:
    """In words: from when to when there is a record. `stamp` writes a time."""
    if not index.spans:
        return "there is no record"
    edges: Sequence[Gap] = index.gaps()
    begin = index.begin
    parts = []
    for gap in edges:
        parts.append(f"{stamp(begin)} to {stamp(gap.begin)}")
        begin = gap.end
    parts.append(f"{stamp(begin)} to {stamp(index.end)}")
    return "there is one from " + ", ".join(parts[-4:])
