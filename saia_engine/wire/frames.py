"""Length-prefixed, typed frames: the bytes between proxy and gate (docs/protocol.md).

A side first sends MAGIC and one HELLO frame; anything before the magic (an rc file that prints) is a
`NotOurPeer`. A frame is `!IBI`: payload length, kind, stream id (0 for the connection itself), then the payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

WIRE_VERSION = 1
MAGIC = b"\x00saia\x01\r\n"
HEADER = struct.Struct("!IBI")
MAX_DATA = 64 * 1024
"""Bytes in one DATA frame: small enough that one stream never blocks the others for long."""
MAX_PAYLOAD = 1024 * 1024
"""Bytes in any frame; heads and control messages are refused above it."""


class Kind(IntEnum):
    HELLO = 0
    OPEN = 1
    HEAD = 2
    DATA = 3
    END = 4
    RESET = 5
    CREDIT = 6
    CONTROL = 7
    PING = 8
    PONG = 9


OF_CONNECTION = frozenset({Kind.HELLO, Kind.CONTROL, Kind.PING, Kind.PONG})
"""They have stream number 0; all others have that of a stream."""
EMPTY = frozenset({Kind.END, Kind.PING, Kind.PONG})


class WireError(Exception):
    """The peer broke the protocol; the connection is of no more use."""


class NotOurPeer(WireError):
    """Bytes came before the handshake; `seen` holds their beginning, raw."""

    def __init__(self, seen: bytes) -> None:
        super().__init__("unexpected output before the handshake")
        self.seen = seen


class Frame(NamedTuple):
    kind: Kind
    stream: int
    payload: bytes


KINDS = {int(kind): kind for kind in Kind}


def encode(kind: Kind, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, stream) + payload


class Decoder:
    """Bytes in, whole frames out; holds at most one partial frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises NotOurPeer for a wrong beginning, WireError for a frame that can't be."""
        buffer = self._buffer
        source: bytes | bytearray = data
        if buffer or not self._greeted:
            buffer += data
            source = buffer
            if not self._greeted and not self._greet():
                return
        position, size = 0, len(source)
        try:
            while size - position >= HEADER.size:
                length, kind, stream = HEADER.unpack_from(source, position)
                if length > MAX_PAYLOAD:
                    raise WireError(f"a frame of {length} bytes, above {MAX_PAYLOAD}")
                known = KINDS.get(kind)
                if known is None:
                    raise WireError(f"a frame of unknown kind {kind}")
                start = position + HEADER.size
                if size - start < length:
                    break
                position = start + length
                yield Frame(known, stream, bytes(memoryview(source)[start:position]))
        finally:
            if source is buffer:
                del buffer[:position]
            elif position < size:
                buffer += data[position:]

    def _greet(self) -> bool:
        """Whether the magic is here, whole. Raises NotOurPeer."""
        buffer = self._buffer
        if not MAGIC.startswith(buffer[: len(MAGIC)]):
            raise NotOurPeer(bytes(buffer[:200]))
        self._greeted = len(buffer) >= len(MAGIC)
        if self._greeted:
            del buffer[: len(MAGIC)]
        return self._greeted
