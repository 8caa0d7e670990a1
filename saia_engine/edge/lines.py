"""Bytes of a log as lines: as they come in, in bounded memory, and as a terminal would leave them."""

from __future__ import annotations

import re
from typing import NamedTuple

from saia_engine.edge.text import clean

LONGEST_LINE = 16 * 1024
"""Bytes; what is longer is cut, and says so."""
_COLOURS = re.compile(rb"\x1b\[[0-9;:]{0,40}m")


class Line(NamedTuple):
    offset: int
    """Of its first byte in the file."""
    raw: bytes
    """Without its end; after a carriage return only what was printed over it."""
    cut: int = 0
    """Bytes left out at its end."""

    @property
    def text(self) -> str:
        """Safe to show: colours are dropped, tabs become spaces, all else that is no plain text its escape."""
        raw = _COLOURS.sub(b"", self.raw) if b"\x1b" in self.raw else self.raw
        words = raw.decode("utf-8", "backslashreplace").expandtabs()
        shown = clean(words, 4 * LONGEST_LINE)
        return f"{shown}… and {self.cut:,} bytes more" if self.cut else shown


class LineSplitter:
    """Give it the bytes in their order; keeps no more of an unfinished line than `longest` bytes."""

    def __init__(self, offset: int = 0, longest: int = LONGEST_LINE) -> None:
        self.end = offset
        """Offset of the byte that comes next."""
        self._longest = longest
        self._start = offset
        self._kept = bytearray()
        self._cut = 0
        self._returned = False
        """A carriage return came last: what follows, unless the line ends, is printed over it."""

    @property
    def rest(self) -> Line | None:
        """The line that has not ended yet."""
        return Line(self._start, bytes(self._kept), self._cut) if self.end > self._start else None

    def feed(self, data: bytes) -> list[Line]:
        """The lines that are whole now."""
        *whole, rest = data.split(b"\n")
        lines: list[Line] = []
        for part in whole:
            self._take(part)
            lines.append(Line(self._start, bytes(self._kept), self._cut))
            self.end += len(part) + 1
            self._begin()
        self._take(rest)
        self.end += len(rest)
        return lines

    def _begin(self) -> None:
        self._start = self.end
        self._kept.clear()
        self._cut, self._returned = 0, False

    def _take(self, part: bytes) -> None:
        printed = part.rstrip(b"\r")
        if printed:
            if self._returned or b"\r" in printed:
                self._kept.clear()
                self._cut = 0
            self._returned = False
            printed = printed.rpartition(b"\r")[2]
        self._returned |= part.endswith(b"\r")
        room = self._longest - len(self._kept)
        self._kept += printed[:room]
        self._cut += max(0, len(printed) - room)
