"""The format of a segment: bytes only, no files.

A segment is a header and frames. A frame is one sample of the state: when it was taken, what of note happened since
the sample before (notes), and lines of `view.Change`. The first frame of a segment holds all tables, each later one
what changed. The lines of a segment are one zlib stream, flushed after each frame: small changes of long rows cost
little. Each frame has a CRC over all of it; after the first one that is damaged or cut short nothing is believed, for
what follows builds upon it.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from saia_engine.view import Change

VERSION = 1
_HEADER = struct.Struct("<8sHdI")
"""Magic, version, seconds between two samples, CRC of these."""
_MAGIC = b"saia-rec"
_FRAME = struct.Struct("<4sdIII")
"""Mark, when, bytes of notes, bytes of data, CRC of all of the frame but itself."""
_MARK = b"FRAM"

LARGEST_NOTES = 64 * 1024
LARGEST_FRAME = 64 * 1024**2
"""Packed bytes of a frame."""
LARGEST_UNPACKED = 512 * 1024**2
"""Of all lines of a segment: hostile bytes must not fill the memory."""
LEVEL = 6

Rows = dict[str, dict[str, msgspec.Raw]]
"""All tables: encoded rows by key."""


class RecordFault(Exception):
    """The record can't be read, here or at all; the message says why."""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """Something worth to go to."""

    kind: str
    """`alarm` (a critical one begins), `alarm-end`, `act` (an operator's), `engine` (it starts) or `instance` (another
    state)."""
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One sample, still packed."""

    at: float
    notes: tuple[Note, ...]
    start: int
    """Of its packed lines in the segment."""
    length: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What a segment's bytes hold: the frames that are whole, and what is wrong after them."""

    step_s: float
    frames: tuple[Frame, ...]
    fault: str = ""
    """Why there are no more; empty where the bytes end with a frame."""


_changes = msgspec.json.Decoder(Change)
_notes = msgspec.json.Decoder(list[Note])
_encoder = msgspec.json.Encoder()


# ---------------------------------------------------------------- out


class Packer:
    """Makes the bytes of one segment, frame after frame; each is to be appended to what came before."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(LEVEL)
        self.unpacked = 0
        """Bytes of all lines so far."""

    @staticmethod
    def header(step_s: float) -> bytes:
        said = _HEADER.pack(_MAGIC, VERSION, step_s, 0)[:-4]
        return said + struct.pack("<I", zlib.crc32(said))

    def frame(self, at: float, notes: Sequence[Note], lines: Sequence[bytes]) -> bytes:
        """`lines` are `view.Change`, each in JSON with its newline."""
        told = _encoder.encode(notes)
        if len(told) > LARGEST_NOTES:
            told = b"[]"
        packed = b"".join([*map(self._packer.compress, lines), self._packer.flush(zlib.Z_SYNC_FLUSH)])
        self.unpacked += sum(map(len, lines))
        head = _FRAME.pack(_MARK, at, len(told), len(packed), 0)[:-4]
        return b"".join([head, struct.pack("<I", _sum(head, told, packed)), told, packed])


def lines_of(
    changes: Mapping[str, tuple[Mapping[str, msgspec.Raw], Sequence[str]]], *, reset: bool
) -> list[bytes]:
    """Rows and gone keys by table as lines of `view.Change`."""
    lines = []
    for table, (rows, gone) in changes.items():
        if not (rows or gone or reset):
            continue
        change: dict[str, object] = {"seq": len(lines), "table": table, "set": rows, "gone": gone}
        if reset:
            change["reset"] = True
        lines.append(_encoder.encode(change) + b"\n")
    return lines


# ---------------------------------------------------------------- in


def scan(data: bytes) -> Segment:
    """The frames of a segment, none of them unpacked. Raises RecordFault for what is no segment."""
    step_s = header(data[: _HEADER.size])
    frames: list[Frame] = []
    at = _HEADER.size
    while at < len(data):
        try:
            frame, after = _frame(data, at, frames[-1].at if frames else None)
        except RecordFault as exc:
            return Segment(step_s, tuple(frames), str(exc))
        frames.append(frame)
        at = after
    return Segment(step_s, tuple(frames))


def header(head: bytes) -> float:
    """Seconds between two samples. Raises RecordFault."""
    if len(head) < _HEADER.size:
        raise RecordFault("it was cut short")
    magic, version, step_s, crc = _HEADER.unpack(head[: _HEADER.size])
    if magic != _MAGIC or crc != zlib.crc32(head[: _HEADER.size - 4]):
        raise RecordFault("it is no record, or damaged")
    if version != VERSION:
        raise RecordFault(f"it has format {version}, and this saia reads format {VERSION}")
    return step_s


def _frame(data: bytes, at: int, before: float | None) -> tuple[Frame, int]:
    if len(data) - at < _FRAME.size:
        raise RecordFault("cut short")
    mark, when, told, packed, crc = _FRAME.unpack_from(data, at)
    if mark != _MARK or told > LARGEST_NOTES or packed > LARGEST_FRAME:
        raise RecordFault("damaged")
    notes_at = at + _FRAME.size
    start, end = notes_at + told, notes_at + told + packed
    if end > len(data):
        raise RecordFault("cut short")
    view = memoryview(data)
    if crc != _sum(view[at : at + _FRAME.size - 4], view[notes_at:start], view[start:end]):
        raise RecordFault("damaged")
    if not math.isfinite(when) or (before is not None and when < before):
        raise RecordFault("damaged")
    try:
        notes = tuple(_notes.decode(view[notes_at:start]))
    except msgspec.DecodeError as exc:
        raise RecordFault("damaged") from exc
    return Frame(when, notes, start, packed), end


def _sum(*parts: bytes | memoryview) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


class Reel:
    """A segment that is being looked at: the state at each of its frames. Forth is cheap, back begins anew."""

    def __init__(self, data: bytes) -> None:
        """Raises RecordFault for what is no segment."""
        found = scan(data)
        self.step_s = found.step_s
        self.frames = found.frames
        self.fault = found.fault
        self._data = data
        self._unpacker = zlib.decompressobj()
        self._unpacked: list[bytes] = []
        self._size = 0
        self._rows: Rows = {}
        self._at = -1

    def rows(self, index: int) -> Rows:
        """All tables at that frame; the caller must not change them. Raises RecordFault, IndexError."""
        if not 0 <= index < len(self.frames):
            raise IndexError(index)
        if index < self._at:
            self._rows, self._at = {}, -1
        while self._at < index:
            try:
                self._apply(self._lines(self._at + 1))
            except (msgspec.DecodeError, zlib.error) as exc:
                self._rows, self._at = {}, -1
                raise RecordFault("damaged") from exc
            self._at += 1
        return {table: dict(rows) for table, rows in self._rows.items()}

    def _lines(self, index: int) -> bytes:
        while len(self._unpacked) <= index:
            frame = self.frames[len(self._unpacked)]
            packed = memoryview(self._data)[frame.start : frame.start + frame.length]
            room = LARGEST_UNPACKED - self._size
            lines = self._unpacker.decompress(packed, room + 1)
            if len(lines) > room:
                raise RecordFault(f"a segment holds more than {LARGEST_UNPACKED} bytes")
            self._size += len(lines)
            self._unpacked.append(lines)
        return self._unpacked[index]

    def _apply(self, lines: bytes) -> None:
        for change in _lines_in(lines):
            if change.reset:
                self._rows[change.table] = {}
            table = self._rows.setdefault(change.table, {})
            for key in change.gone:
                table.pop(key, None)
            table.update(change.set)


def _lines_in(lines: bytes) -> Iterator[Change]:
    return (_changes.decode(line) for line in lines.split(b"\n") if line)


def difference(before: Rows, after: Rows) -> list[Change]:
    """What leads from one state to another, only rows that differ; a table that is new comes whole."""
    changes = []
    for table in before.keys() | after.keys():
        old, new = before.get(table), after.get(table, {})
        if old is None:
            changes.append(Change(len(changes), table, dict(new), reset=True))
            continue
        changed = {key: row for key, row in new.items() if (known := old.get(key)) is None or known != row}
        gone = [key for key in old if key not in new]
        if changed or gone:
            changes.append(Change(len(changes), table, changed, gone))
    return changes
