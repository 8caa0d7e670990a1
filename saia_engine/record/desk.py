"""Gives the record to operators, who may not open its directory: what there is, a segment, the state at a moment.

It reads in a few threads of its own, so that a disk that hangs holds up nobody else, and one question at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from saia_engine.record import files
from saia_engine.record.frames import RecordFault
from saia_engine.record.index import Index, Indexer
from saia_engine.record.reading import state_at

READERS = 2
ANSWER_S = 20.0
PIECE = 256 * 1024

P = ParamSpec("P")
Found = TypeVar("Found")


class RecordDesk:
    """Every method raises RecordFault."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._indexer = Indexer(directory)
        self._indexing = asyncio.Lock()
        self._unpacking = asyncio.Lock()
        self._threads = ThreadPoolExecutor(READERS, "record-reader")

    async def index(self) -> Index:
        async with self._indexing:
            return await self._in_thread(self._indexer.index)

    async def state(self, moment: float) -> bytes:
        """All rows of the sample that stands for that moment, and when it was taken, as JSON."""
        index = await self.index()

        def look() -> bytes:
            at, rows = state_at(self._directory, index, moment)
            return msgspec.json.encode({"at": at, "tables": rows})

        async with self._unpacking:
            return await self._in_thread(look)

    async def segment(self, name: str) -> tuple[int, AsyncIterator[bytes]]:
        """A segment's size now, and its bytes in pieces. The pieces must be read to their end, or closed."""
        stack = ExitStack()
        file, size = await self._in_thread(stack.enter_context, files.opened(self._directory, name))
        return size, self._pieces(stack, file, size)

    async def _pieces(self, stack: ExitStack, file: int, size: int) -> AsyncIterator[bytes]:
        with stack:
            pieces = files.pieces(file, size, PIECE)
            while piece := await self._in_thread(next, pieces, b""):
                yield piece

    async def _in_thread(self, act: Callable[P, Found], *args: P.args, **kwargs: P.kwargs) -> Found:
        task = asyncio.get_running_loop().run_in_executor(self._threads, lambda: act(*args, **kwargs))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await task
        except TimeoutError:
            raise RecordFault(f"the disk has not answered for {ANSWER_S:.0f} s") from None
        except FileNotFoundError:
            raise RecordFault("that part of the record is not kept any more") from None
        except OSError as exc:
            raise RecordFault(f"the record can't be read: {exc.strerror or exc}") from exc
