"""What a terminal shows after bytes were written to it: as much of one as a Textual program uses, without colours."""

from __future__ import annotations

import codecs
import re

_PART = re.compile(r"\x1b\[([0-9;?<=>]*)[ -/]*([@-~])|\x1b[^\[]|[^\x1b\r\n]+|[\r\n]")
_CUT_SHORT = re.compile(r"\x1b(\[[0-9;?<=>]*[ -/]*)?\Z")


class Picture:
    """Every character is one cell wide."""

    def __init__(self, columns: int, lines: int) -> None:
        self._cells = [[" "] * columns for _ in range(lines)]
        self._columns = columns
        self._x = self._y = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self) -> list[str]:
        return ["".join(line) for line in self._cells]

    def text(self) -> str:
        return "\n".join(self.lines())

    def feed(self, data: bytes) -> None:
        written = self._rest + self._decoder.decode(data)
        cut = _CUT_SHORT.search(written)
        self._rest = written[cut.start() :] if cut else ""
        for found in _PART.finditer(written, 0, cut.start() if cut else len(written)):
            numbers, command = found.groups()
            if command is not None:
                self._obey(numbers, command)
            elif found[0] == "\r":
                self._x = 0
            elif found[0] == "\n":
                self._y += 1
            elif not found[0].startswith("\x1b"):
                self._put(found[0])

    def _obey(self, numbers: str, command: str) -> None:
        if command == "H":
            line, _, column = numbers.partition(";")
            self._y, self._x = int(line or 1) - 1, int(column or 1) - 1
        elif command == "J":
            for line in self._cells:
                line[:] = [" "] * self._columns

    def _put(self, characters: str) -> None:
        if 0 <= self._y < len(self._cells):
            room = characters[: max(0, self._columns - self._x)]
            self._cells[self._y][self._x : self._x + len(room)] = room
        self._x += len(characters)
