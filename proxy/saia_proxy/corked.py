"""A transport that gathers what is written in one turn of the event loop, and sends it as one piece.

An answer's head and the first piece of its body are two writes, and each write is a system call and a packet. No timer
waits for more: what one turn wrote goes at its end.
"""

from __future__ import annotations

import asyncio
from typing import Any

FLUSH_AT = 64 * 1024
"""Bytes that wait for the end of the turn at most."""


class Corked:
    """In place of `transport` for whoever writes; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= FLUSH_AT:
            self.flush()

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._pieces.clear()
        self._size = 0
        self._transport.abort()

    def flush(self) -> None:
        """What was gathered goes now."""
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._transport.write(data)
