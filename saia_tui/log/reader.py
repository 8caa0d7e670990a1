"""Reads one stream of an instance's log through the engine, only where one looks, and only new bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from saia_engine.client import ClientError
from saia_engine.view import LogPiece
from saia_tui.feed import Engine
from saia_tui.log.search import Pattern
from saia_tui.log.times import time_of
from saia_tui.log.window import LogWindow

LAST_BYTES = 64 * 1024
STEP_BYTES = 64 * 1024
FOLLOW_BYTES = 256 * 1024
SEARCH_BYTES = 1024 * 1024
TOO_FAR_BYTES = 8 * 1024 * 1024
"""So far behind a log that grows faster than it can be read, the rest is passed over."""
WAIT_S = 20.0
RETRY_S = 3.0
ROWS_A_SLICE = 2000
PROBE_BYTES = 64 * 1024


class LogReader:
    """Owns the window. One task at a time may move it; the view sees to that."""

    def __init__(self, engine: Engine, instance: str, stream: str, on_change: Callable[[], None]) -> None:
        self.instance, self.stream = instance, stream
        self.window = LogWindow()
        self.size = 0
        self.written_at: float | None = None
        self.fault = ""
        self.busy = ""
        """What takes long, in words; empty: nothing."""
        self._file = ""
        self._engine = engine
        self._on_change = on_change

    @property
    def at_end(self) -> bool:
        """Whether what is held goes to the end of the file."""
        return self.window.end >= self.size

    # ------------------------------------------------------------ following

    async def follow(self) -> None:
        """Take in what comes, for ever; at first the end of what is there. Faults are kept, and it tries again."""
        while True:
            try:
                if not self._file:
                    await self.open_end()
                elif self.at_end:
                    await self._take_next(FOLLOW_BYTES, WAIT_S)
                else:
                    # One looks elsewhere: no more than how large it is by now.
                    await asyncio.sleep(WAIT_S)
                    self._note(await self._ask(self.size, 0))
            except ClientError as exc:
                self.fault = str(exc)
                self._on_change()
                await asyncio.sleep(RETRY_S)

    async def _take_next(self, most: int, wait_s: float = 0.0) -> None:
        held = self.window.end, self._file
        piece = await self._ask(self.window.end, most, wait_s)
        # Meanwhile one may have gone elsewhere.
        if (self.window.end, self._file) == held:
            self._take(piece)

    def _take(self, piece: LogPiece) -> None:
        before = self.window.end
        if piece.file != self._file:
            self.window.notice("the file was rotated; this is the new one")
        elif piece.size < before:
            self.window.notice("the file was cut short; it begins anew")
            self._note(piece)
            return
        if piece.size - piece.end > TOO_FAR_BYTES:
            passed = piece.size - LAST_BYTES - before
            why = f"{passed:,} bytes were passed over: it grows faster than it can be read"
            self.window.notice(why, piece.size - LAST_BYTES)
        elif piece.data:
            self.window.append(piece.data)
        self._note(piece)

    def _note(self, piece: LogPiece) -> None:
        self._file, self.size, self.written_at = piece.file, piece.size, piece.written_at
        self.fault = ""
        self._on_change()

    async def _ask(self, offset: int, most: int, wait_s: float = 0.0) -> LogPiece:
        return await self._engine.instance_log(
            self.instance, stream=self.stream, offset=offset, most=most, file=self._file, wait_s=wait_s
        )

    # ------------------------------------------------------------ going

    async def open_end(self) -> None:
        """Hold the last part of the file."""
        self._file = ""
        self._open(await self._ask(-LAST_BYTES, LAST_BYTES))

    async def open_at(self, offset: int) -> int:
        """Hold what is around a byte; the number of its row."""
        start = max(0, offset - STEP_BYTES // 2)
        self._file = ""
        self._open(await self._ask(start, STEP_BYTES))
        return self.window.number_at(offset)

    def _open(self, piece: LogPiece) -> None:
        self.window.open(piece.data, piece.offset)
        self._note(piece)

    async def older(self) -> bool:
        """Hold a piece more before what is held; False at the beginning."""
        start = self.window.start
        if start <= 0:
            return False
        offset = max(0, start - STEP_BYTES)
        piece = await self._ask(offset, start - offset)
        if piece.file != self._file or len(piece.data) != start - offset or self.window.start != start:
            return False
        self.window.prepend(piece.data, offset)
        self._note(piece)
        return True

    async def newer(self) -> bool:
        """Hold a piece more after what is held; False at the end."""
        if self.at_end:
            return False
        await self._take_next(STEP_BYTES)
        return True

    # ------------------------------------------------------------ finding

    async def find(self, pattern: Pattern, number: int, *, back: bool) -> int | None:
        """The next row that matches, before or after row `number`; None where there is none.

        What is not held is read in pieces; `busy` tells how far it is. Raises ClientError.
        """
        try:
            found = await self._find_held(pattern, number, back=back)
            if found is None:
                offset = await (self._find_before(pattern) if back else self._find_after(pattern))
                found = None if offset is None else await self.open_at(offset)
            return found
        finally:
            self.busy = ""
            self._on_change()

    async def _find_held(self, pattern: Pattern, number: int, *, back: bool) -> int | None:
        window, looked_at = self.window, 0
        number += -1 if back else 1
        while window.first <= number < window.beyond:
            if pattern.is_in(window[number].text):
                return number
            number += -1 if back else 1
            looked_at += 1
            if looked_at % ROWS_A_SLICE == 0:
                await asyncio.sleep(0)
        return None

    async def _find_before(self, pattern: Pattern) -> int | None:
        end = self.window.start
        while end > 0:
            self._say(f"searching back: {_mib(end)} left, Esc stops")
            start = max(0, end - SEARCH_BYTES)
            piece = await self._ask(start, end - start)
            if not piece.data:
                return None
            skipped = _skipped(piece.data, start)
            if found := pattern.offsets(piece.data[skipped:], start + skipped):
                return found[-1]
            end = start + skipped if skipped < len(piece.data) else start
        return None

    async def _find_after(self, pattern: Pattern) -> int | None:
        start = self.window.end
        while start < self.size:
            self._say(f"searching on: {_mib(self.size - start)} left, Esc stops")
            piece = await self._ask(start, SEARCH_BYTES)
            if not piece.data:
                return None
            if found := pattern.offsets(piece.data, start):
                return found[0]
            # Go on with the line that the piece cut, if it has the end of any.
            whole = piece.data.rfind(b"\n") + 1
            start += whole if whole and piece.end < piece.size else len(piece.data)
        return None

    async def moment(self, at: float, now: float) -> int | None:
        """Offset of the first line that was written then or later; None where lines tell no times."""
        low, high = 0, self.size
        seen = False
        while high - low > PROBE_BYTES:
            middle = (low + high) // 2
            told = await self._time_at(middle, now)
            if told is None:
                break
            seen = True
            low, high = (middle, high) if told < at else (low, middle)
        piece = await self._ask(max(0, low - PROBE_BYTES), 3 * PROBE_BYTES)
        window = LogWindow()
        window.open(piece.data, piece.offset)
        for number in range(window.first, window.beyond):
            told = time_of(window[number].text, now)
            seen = seen or told is not None
            if told is not None and told >= at:
                return window[number].offset
        return piece.end if seen else None

    async def _time_at(self, offset: int, now: float) -> float | None:
        piece = await self._ask(offset, PROBE_BYTES)
        window = LogWindow()
        window.open(piece.data, piece.offset)
        rows = (window[number] for number in range(window.first, window.beyond))
        return next((told for row in rows if (told := time_of(row.text, now)) is not None), None)

    def _say(self, words: str) -> None:
        self.busy = words
        self._on_change()


def _skipped(data: bytes, offset: int) -> int:
    """Bytes of a line that begins before the piece; none where the piece has no line's end."""
    return data.find(b"\n") + 1 if offset else 0


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.1f} MiB"
