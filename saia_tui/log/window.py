"""The part of a log that is held: whole lines in their order, in bounded memory, with the place of each in the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from saia_engine.edge.lines import Line, LineSplitter

MOST_LINES = 50_000
MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Notice:
    """Our own word between the lines: the file was rotated, a part was passed over."""

    text: str
    offset: int = -1


Row = Line | Notice


class LogWindow:
    """Rows have numbers that stay theirs while others come before and after them, or are dropped."""

    def __init__(self, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self.reset()

    def reset(self, offset: int = 0) -> None:
        """Hold nothing; the next bytes are those at `offset`."""
        self._rows: deque[Row] = deque()
        self._bytes = 0
        self._splitter = LineSplitter(offset)
        self._start = offset
        self._last_notice: int | None = None
        self.first = 0
        """Number of the first row."""

    @property
    def start(self) -> int:
        """Offset of the first byte held; 0 where nothing older can be asked for."""
        mixed = self._last_notice is not None and self.first <= self._last_notice
        return 0 if mixed else self._start

    @property
    def end(self) -> int:
        """Offset of the byte that comes next."""
        return self._splitter.end

    @property
    def beyond(self) -> int:
        """Number after the last row; a line that has not ended yet is one."""
        return self.first + len(self._rows) + (self._splitter.rest is not None)

    def __getitem__(self, number: int) -> Row:
        index = number - self.first
        if index == len(self._rows) and (rest := self._splitter.rest):
            return rest
        if index < 0:
            raise IndexError(number)
        return self._rows[index]

    def number_at(self, offset: int) -> int:
        """The row that holds the byte; the first or last one where it is not held."""
        low, high = self.first, self.beyond - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self[middle].offset <= offset:
                low = middle
            else:
                high = middle - 1
        return low

    def append(self, data: bytes) -> None:
        """The bytes that follow; the oldest rows go where it is too much."""
        self._extend(self._splitter.feed(data))
        while self._is_too_much() and self._rows:
            self._bytes -= _weight(self._rows.popleft())
            self.first += 1
            self._start = self._rows[0].offset if self._rows else self._splitter.end

    def open(self, data: bytes, offset: int) -> None:
        """Hold this part alone. What may be the end of a line that begins before it is left out."""
        skipped = data.find(b"\n") + 1 if offset else 0
        self.reset(offset + skipped)
        self.append(data[skipped:])

    def prepend(self, data: bytes, offset: int) -> None:
        """The bytes that come before; the newest rows go where it is too much."""
        skipped = data.find(b"\n") + 1 if offset else 0
        if skipped == len(data):
            skipped = 0  # a line longer than all of it: begin inside
        splitter = LineSplitter(offset + skipped)
        lines = splitter.feed(data[skipped:])
        if splitter.rest is not None:
            lines.append(splitter.rest)
        self._rows.extendleft(reversed(lines))
        self._bytes += sum(map(_weight, lines))
        self.first -= len(lines)
        self._start = offset + skipped
        dropped: Row | None = None
        while self._is_too_much():
            dropped = self._rows.pop()
            self._bytes -= _weight(dropped)
        if dropped is not None:
            self._splitter = LineSplitter(dropped.offset)

    def notice(self, why: str, offset: int = 0) -> None:
        """Go on at another place, or in another file: what is held stays, but nothing older can be asked for."""
        if (rest := self._splitter.rest) is not None:
            self._extend([rest])
        self._last_notice = self.first + len(self._rows)
        self._rows.append(Notice(why))
        self._splitter = LineSplitter(offset)

    def _extend(self, rows: Iterable[Line]) -> None:
        for row in rows:
            self._rows.append(row)
            self._bytes += _weight(row)

    def _is_too_much(self) -> bool:
        return len(self._rows) > self._most_lines or self._bytes > self._most_bytes


def _weight(row: Row) -> int:
    return len(row.raw) if isinstance(row, Line) else 0
