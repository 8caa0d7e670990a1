"""Writes segments below one directory, and removes the oldest ones. For one thread; every call may block.

A frame is appended in one go and never changed: who is killed loses at most the last one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from saia_engine.record import files
from saia_engine.record.frames import Note, Packer, lines_of

SEGMENT_S = 600.0
"""After so long a segment ends, and the next one begins with all rows."""
SEGMENT_BYTES = 16 * 1024**2
"""And when it has become so large."""
SEGMENT_UNPACKED = 128 * 1024**2
GAP_STEPS = 3
"""So many steps without a sample are a gap: the next one begins a segment."""
LEAST_SEGMENTS = 8
"""As many have room, whatever the bound on their bytes is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    step_s: float = 10.0
    keep_s: float = 36 * 3600.0
    """0: nothing."""
    most_bytes: int = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of one moment: all of them (`whole`), or what changed since the sample before."""

    at: float
    notes: Sequence[Note]
    tables: Mapping[str, tuple[Mapping[str, msgspec.Raw], Sequence[str]]]
    """Rows, and keys that are gone."""
    whole: bool


@dataclass(slots=True)
class _Segment:
    """The one that is being written."""

    name: str
    descriptor: int
    began: float
    last: float
    size: int = 0
    packer: Packer = field(default_factory=Packer)


class Writer:
    def __init__(self, directory: Path, limits: Limits) -> None:
        self.directory = directory
        self._limits = limits
        self._segment: _Segment | None = None
        self._sizes: dict[str, int] | None = None
        """Of all segments but the open one, the oldest first; None: not looked at yet."""
        self._next = 0

    def wants_whole(self, at: float) -> bool:
        """Whether a sample of that moment begins a segment, and so must be whole."""
        segment, most = self._segment, self._limits.most_bytes // LEAST_SEGMENTS
        return (
            segment is None
            or not segment.last <= at <= segment.last + GAP_STEPS * self._limits.step_s
            or at >= segment.began + SEGMENT_S
            or segment.size > min(SEGMENT_BYTES, most)
            or segment.packer.unpacked > SEGMENT_UNPACKED
        )

    def write(self, sample: Sample) -> None:
        """Raises OSError; then the next sample must be whole."""
        try:
            if sample.whole:
                self.close()
                self._segment = self._open(sample.at)
            segment = self._segment
            if segment is None:
                raise ValueError("the first sample of a segment must be whole")
            lines = lines_of(sample.tables, reset=sample.whole)
            self._append(segment, segment.packer.frame(sample.at, sample.notes, lines))
            segment.last = sample.at
            self._make_room(sample.at)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """What is written stays; the next sample begins a segment."""
        segment, self._segment = self._segment, None
        if segment is not None:
            os.close(segment.descriptor)
            if self._sizes is not None:
                self._sizes[segment.name] = segment.size

    def _open(self, at: float) -> _Segment:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if self._sizes is None:
            found = files.names(self.directory)
            self._sizes = {name: (self.directory / name).stat().st_size for name in found}
            self._next = files.number_of(found[-1]) + 1 if found else 0
        name = files.name_of(at, self._next)
        self._next += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        segment = _Segment(name, os.open(self.directory / name, flags, 0o600), at, at)
        self._append(segment, Packer.header(self._limits.step_s))
        return segment

    @staticmethod
    def _append(segment: _Segment, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(segment.descriptor, rest) :]
        segment.size += len(data)

    def _make_room(self, now: float) -> None:
        """The oldest go first: those that are too old, then those that are too many."""
        sizes = self._sizes or {}
        total = sum(sizes.values()) + (self._segment.size if self._segment else 0)
        for name in list(sizes):
            ended = files.time_of(name) + SEGMENT_S + self._limits.step_s
            if ended >= now - self._limits.keep_s and total <= self._limits.most_bytes:
                break
            (self.directory / name).unlink(missing_ok=True)
            total -= sizes.pop(name)
