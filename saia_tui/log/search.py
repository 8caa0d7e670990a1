"""What is looked for in a log: a regular expression, or plain words where it is none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from saia_engine.edge.lines import Line, LineSplitter

_PLAIN = re.compile(r"[A-Za-z0-9 _=/:,-]+")


class Pattern:
    """Any case, unless it has a capital letter."""

    def __init__(self, words: str) -> None:
        self.words = words
        flags = re.IGNORECASE if words == words.lower() else re.NOFLAG
        try:
            self._regex = re.compile(words, flags)
        except re.error:
            self._regex = re.compile(re.escape(words), flags)
        self._bytes = re.compile(re.escape(words.encode()), flags) if _PLAIN.fullmatch(words) else None

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        return (match.span() for match in self._regex.finditer(text) if match.end() > match.start())

    def is_in(self, text: str) -> bool:
        return self._regex.search(text) is not None

    def may_be_in(self, data: bytes) -> bool:
        """False only where no line of these bytes can match: most of a large file is passed over by this."""
        return self._bytes is None or b"\x1b" in data or self._bytes.search(data) is not None

    def offsets(self, data: bytes, offset: int) -> list[int]:
        """Of the matching lines in a piece that begins with a line."""
        if not self.may_be_in(data):
            return []
        splitter = LineSplitter(offset)
        lines: list[Line] = splitter.feed(data)
        if splitter.rest is not None:
            lines.append(splitter.rest)
        return [line.offset for line in lines if self.is_in(line.text)]
