"""Where a record is read: through the engine, or from its directory where no engine answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from saia_engine.client import ClientError, EngineUnreachable
from saia_engine.record import files
from saia_engine.record.frames import RecordFault
from saia_engine.record.index import Index, Indexer

T = TypeVar("T")


class Told(Protocol):
    """What is needed of `EngineClient`."""

    async def record(self) -> Index: ...
    async def record_segment(self, name: str) -> bytes: ...


class Record:
    """Its methods raise RecordFault. A directory is read only where no engine answers."""

    def __init__(self, engine: Told | None, directory: Path | None = None) -> None:
        self._engine = engine
        self._directory = directory
        self._indexer = Indexer(directory) if directory else None

    async def index(self) -> Index:
        return await self._told(lambda engine: engine.record(), self._read_index)

    async def segment(self, name: str) -> bytes:
        return await self._told(lambda engine: engine.record_segment(name), lambda: self._read(name))

    async def _told(self, ask: Callable[[Told], Awaitable[T]], read: Callable[[], Awaitable[T]]) -> T:
        if self._engine is not None:
            try:
                return await ask(self._engine)
            except EngineUnreachable as exc:
                if self._directory is None:
                    raise RecordFault(str(exc)) from exc
            except ClientError as exc:
                raise _fault(exc) from exc
        return await read()

    async def _read_index(self) -> Index:
        if self._indexer is None:
            raise RecordFault("no engine answers, and it is not known where the record lies: give --config")
        return await asyncio.to_thread(self._indexer.index)

    async def _read(self, name: str) -> bytes:
        if self._directory is None:
            raise RecordFault("no engine answers")
        try:
            return await asyncio.to_thread(files.read, self._directory, name)
        except OSError as exc:
            raise RecordFault(f"{self._directory / name}: {exc.strerror or exc}") from exc


def _fault(exc: ClientError) -> RecordFault:
    if exc.code == "no_such_call":
        return RecordFault("the engine is older than this screen, and keeps no record")
    return RecordFault(str(exc))
