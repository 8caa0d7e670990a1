"""WebSockets: a client's connection taken over after the service's 101, its bytes relayed raw both ways."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from saia_engine.wire import messages
from saia_engine.wire.stream import Bell, Stream, StreamReset
from saia_proxy.errors import ClientGone

HOLD = 64 * 1024
"""Bytes that wait to go on before the client's connection is not read any more."""
HALF_CLOSED_S = 5.0
"""How long a service may go on after its client has ended its side."""


class Flow(Protocol):
    """A connection's bytes."""

    write_paused: bool

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class RawClient:
    """What a connection carries after the head of an upgrade. Its protocol calls `feed`, `ended` and `lost`."""

    def __init__(self, flow: Flow) -> None:
        self.moved_at = monotonic()
        """When the last bytes came or went."""
        self.bytes_out = 0
        self._flow = flow
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._lost = False
        self._changed = Bell()

    async def read(self) -> bytes:
        """The client's next bytes, b"" at its end. Raises ClientGone."""
        while not self._chunks:
            if self._lost:
                raise ClientGone
            if self._ended:
                return b""
            await self._changed.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if not self._lost:
            self._flow.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Waits while the client reads slowly. Raises ClientGone."""
        self._flow.write(data)
        if self._flow.write_paused:
            await self._flow.drain()
        if self._lost:
            raise ClientGone
        self.moved_at = monotonic()
        self.bytes_out += len(data)

    def feed(self, data: bytes) -> None:
        if not data or self._ended:
            return
        self.moved_at = monotonic()
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HOLD:
            self._flow.pause_reading()
        self._changed.ring()

    def ended(self) -> None:
        """Nothing more is read from it, whatever comes."""
        self._ended = True
        self._changed.ring()

    def lost(self) -> None:
        self._lost = True
        self._changed.ring()


async def relay(stream: Stream, client: RawClient) -> None:
    """Bytes both ways until the service ends. Raises StreamReset, ClientGone.

    Where the client ends its side, the service gets to know and may still say something.
    """
    upward = asyncio.create_task(_up(stream, client))
    try:
        while data := await stream.receive():
            await client.write(data)
    finally:
        upward.cancel()
        await asyncio.gather(upward, return_exceptions=True)
    stream.end()


async def _up(stream: Stream, client: RawClient) -> None:
    try:
        while data := await client.read():
            await stream.send(data)
        stream.end()
        await asyncio.sleep(HALF_CLOSED_S)
        stream.reset(messages.CANCELLED, "the client went away")
    except (StreamReset, ClientGone):
        pass  # the other direction ends too, and says so
