"""One client's request and the answer to it: every byte of both goes through here."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Bell
from saia_proxy.begun import time_limit
from saia_proxy.errors import ApiError, ClientGone, as_event, of_service
from saia_proxy.request_head import RequestHead

if TYPE_CHECKING:
    from saia_proxy.upgrade import RawClient

LINGER_S = 2.0
"""How long a refused body is read and thrown away, so that the client gets to read the refusal."""

LARGEST_ERROR = 64 * 1024
"""Of an instance's error no more is passed on as an event."""

LONGEST_NAME = 256
NAMES_KNOWN = 1000
"""Of headers that were seen in answers before."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS = frozenset(
    {"x-request-id", "date", "server", "connection", "keep-alive", "transfer-encoding", "upgrade"}
)

_EVENT_STREAM = b"text/event-stream"
_HELD_HEADERS = b"content-type: text/event-stream\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
_WAITING = b": waiting\n\n"
_BODYLESS = frozenset({101, 204, 304})


def request_id(given: bytes | None) -> str:
    """The client's own where it is well formed, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{random.getrandbits(96):024x}"


class ClientConnection(Protocol):
    """What an exchange needs of the connection that it came on."""

    write_paused: bool
    """The client reads slowly: what is written piles up."""

    @property
    def upgradable(self) -> bool: ...
    def respond(self, status: int, headers: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def answered(self, exchange: Exchange) -> None: ...
    def want_body(self) -> None: ...
    def resume_reading(self) -> None: ...
    def take_over(self, headers: bytes) -> RawClient: ...
    def hang_up(self) -> None: ...
    def cut(self) -> None: ...


class Exchange:
    """`begun` once a byte of the answer may have gone out; from then on the only other end is `cut`.

    One that is `held` has begun as an event stream before there is an answer: an error is then its last event.
    """

    def __init__(
        self,
        connection: ClientConnection,
        *,
        method: str,
        raw_path: str,
        query: str,
        head: RequestHead,
        length: bytes | None,
        client: str,
        keep_alive: bool,
    ) -> None:
        """`length` is the value of Content-Length; the parser checked its digits."""
        self.method = method
        self.raw_path = raw_path
        """As the client wrote it, without the query."""
        self.query = query
        self.head = head
        self.client = client
        """Its address."""
        self.keep_alive = keep_alive
        """Another request may follow on the connection."""
        self.began_at = monotonic()
        self.ended_at = 0.0
        self.received_at = 0.0
        """When the last piece of its body came, by the monotonic clock."""
        self.status = 0
        self.bytes_out = self.events = 0
        self.taken_at: float | None = None
        self.answered_at: float | None = None
        self.first_event_at: float | None = None
        self.begun = self.held = False
        self.gone = False
        self.outcome = "ok"
        self.key = self.model = self.service = self.instance = ""
        self.relay = ""
        """Which connection to a gate carried it."""
        self.request_id = request_id(head.first.get(b"x-request-id"))
        self.content_length = None if length is None else int(length)
        """What the client announced."""
        self._connection = connection
        self._pieces: list[bytes] = []
        self._waiting = 0
        """Bytes of them."""
        self._body_ended = False
        self._arrived = Bell()
        self._on_gone: Callable[[], None] | None = None
        self._waits_to_send = head.first.get(b"expect", b"").lower() == b"100-continue"
        self._failure: bytearray | None = None
        """What the instance says instead of the stream that was begun for it."""
        self._unread = False
        self._chunked = False
        self._left = 0
        """Bytes of the answer's body that are announced and not written yet."""
        self._is_events = False
        self._over = False

    # -- the request

    @property
    def path(self) -> str:
        """Decoded."""
        return unquote(self.raw_path)

    @property
    def upgradable(self) -> bool:
        """It asks for a WebSocket."""
        return self._connection.upgradable

    @property
    def announces_body(self) -> bool:
        return bool(self.content_length) or b"transfer-encoding" in self.head.first

    def header(self, name: bytes) -> bytes | None:
        """The first one's value."""
        return self.head.first.get(name)

    def arrived(self) -> bytes | None:
        """The whole body where it is here already: nobody need wait for it."""
        return self._take() if self._body_ended and self._pieces else None

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises ClientGone."""
        while not self._pieces:
            if self.gone:
                raise ClientGone
            if self._body_ended:
                return b""
            if self._waits_to_send:
                self._waits_to_send = False
                self._connection.want_body()
            await self._arrived.wait()
        return self._take()

    def unread(self, error: ApiError) -> ApiError:
        """The same error, to be answered although the client still sends."""
        self._unread = True
        return error

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call back when the client goes away before its answer is complete."""
        self._on_gone = on_gone
        self._connection.resume_reading()

    def close(self) -> None:
        self._on_gone = None

    # -- from the connection

    def feed(self, data: bytes) -> int:
        """More of the body; returns how many bytes of it wait now."""
        if self._over:
            return 0
        self._pieces.append(data)
        self._waiting += len(data)
        self._arrived.ring()
        return self._waiting

    def body_ended(self) -> None:
        self._body_ended = True
        self._waits_to_send = False
        self._arrived.ring()

    def lost(self) -> None:
        """The connection ended before the answer was complete."""
        self.gone = True
        self._arrived.ring()
        if self._on_gone is not None:
            self._on_gone()

    # -- the answer

    async def hold(self) -> None:
        """Keeps a client that waits for an event stream: its head if it has none yet, and a comment."""
        if not self.held:
            self._respond(200, _HELD_HEADERS, None, _EVENT_STREAM)
            self.held = True
            self.begun = False
            self.status = 0
        self._write(_WAITING)

    def start(self, head: Head) -> None:
        """The instance's status and headers. Raises ApiError (502) for what HTTP can't carry."""
        if not 200 <= head.status <= 599:
            raise ApiError(502, "bad_response", "The service gave an answer that is not HTTP.")
        lines, known = _sendable(head)
        kind = known.get(b"content-type", b"")
        self.answered_at = monotonic()
        if not self.held:
            self._respond(head.status, lines, known.get(b"content-length"), kind)
            return
        self._is_events = kind.startswith(_EVENT_STREAM) and b"content-encoding" not in known
        if head.status == 200 and not self._is_events:
            raise ApiError(502, "bad_response", "The service answered with something else than a stream.")
        self.begun = True
        self.status = head.status
        if head.status != 200:
            self._failure = bytearray()

    def upgrade(self, head: Head) -> RawClient:
        """The service's 101; the connection as it is from here on. Raises ApiError (502) where nobody asked for it."""
        if not self.upgradable:
            raise ApiError(502, "bad_response", "The service upgraded a request that did not ask for it.")
        self.begun = True
        self.status = head.status
        return self._connection.take_over(self._id_line() + _sendable(head)[0] + b"\r\n")

    def hang_up(self) -> None:
        """Ends a connection that was taken over."""
        self._connection.hang_up()

    def write(self, data: bytes) -> None:
        """A part of the body; nobody should while it is `stuck`. Raises ApiError (502) for more than was announced."""
        if self._failure is not None:
            self._failure += data[: LARGEST_ERROR - len(self._failure)]
            return
        if self._is_events:
            if not self.events:
                self.first_event_at = monotonic()
            self.events += data.count(b"\n\n")
        self._write(data)

    @property
    def stuck(self) -> bool:
        """What is written piles up."""
        return self._connection.write_paused

    async def drain(self) -> None:
        """Waits while the client reads slowly."""
        await self._connection.drain()

    def end(self) -> None:
        """Raises ApiError (502) where less of a body came than was announced."""
        if self._failure is not None:
            self._write(as_event(of_service(self.status, self._failure)))
        if self._left:
            raise _other_length()
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._over = True
        self._connection.answered(self)

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """An answer of our own; nothing of another may have been sent. Held, its body is an event."""
        if self.held:
            self.begun, self.status = True, status
            self._write(as_event(body))
            self.end()
            return
        unread = self._unread
        # Who waits to be told to send its body may send it or not: the connection is of no more use.
        if unread or self._waits_to_send:
            self.keep_alive = False
        length = b"%d" % len(body)
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self._respond(status, b"%bcontent-length: %b\r\n" % (lines, length), length, b"")
        self._write(body)
        if unread:
            await self._discard()
        self.end()

    async def cut(self) -> None:
        """End the connection in a way that no client takes for the end of the answer."""
        self.cut_off()
        while not self.gone:
            await self._arrived.wait()

    def cut_off(self) -> None:
        """The same without waiting until the connection is closed."""
        self._connection.cut()

    # -- inside

    def _take(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        self.received_at = monotonic()
        self._connection.resume_reading()
        return data

    def _respond(self, status: int, lines: bytes, length: bytes | None, kind: bytes) -> None:
        """`lines` are the headers, `length` and `kind` the values of two of them.

        How the body ends follows from its headers (RFC 9112, 6).
        """
        ending = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        if self.method != "HEAD" and status not in _BODYLESS:
            if length is None:
                self._chunked = True
                ending = b"transfer-encoding: chunked\r\n" + ending
            else:
                self._left = _length(length)
        self._is_events = kind.startswith(_EVENT_STREAM)
        self.begun = True
        self.status = status
        self._connection.respond(status, self._id_line() + lines + ending)

    def _id_line(self) -> bytes:
        return b"x-request-id: %b\r\n" % self.request_id.encode()

    def _write(self, data: bytes) -> None:
        if not data or self.method == "HEAD":
            return
        self.bytes_out += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif len(data) > self._left:
            raise _other_length()
        else:
            self._left -= len(data)
        self._connection.write(data)

    async def _discard(self) -> None:
        """Reads on a little, so that a client which still sends gets to read its answer."""
        try:
            async with time_limit(LINGER_S):
                while await self.receive():
                    pass
        except (TimeoutError, ClientGone):
            pass


def _sendable(head: Head) -> tuple[bytes, dict[bytes, bytes]]:
    """An answer's headers that HTTP can carry, as lines, and by their names in lower case."""
    lines: list[bytes] = []
    known: dict[bytes, bytes] = {}
    for name, value in head.headers:
        word = _passing(name) if len(name) <= LONGEST_NAME else b""
        if not word or _BAD_VALUE.search(value):
            continue
        if word == b"content-length" and head.status in _BODYLESS:
            continue
        known[word] = sent = value.encode("latin-1")
        lines.append(b"%b: %b\r\n" % (name.encode(), sent))
    return b"".join(lines), known


@lru_cache(NAMES_KNOWN)
def _passing(name: str) -> bytes:
    """In lower case; empty for a header that does not pass."""
    word = name.lower()
    return word.encode() if word not in _OURS and _HEADER_NAME.fullmatch(name) else b""


def _length(announced: bytes) -> int:
    if not announced.isdigit():
        raise _other_length()
    return int(announced)


def _other_length() -> ApiError:
    return ApiError(502, "bad_response", "The service's answer is not as long as it said.")
