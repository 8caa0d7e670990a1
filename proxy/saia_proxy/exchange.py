"""One client's request and the answer to it: every byte of both goes through here."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Bell
from saia_proxy.errors import ApiError, ClientGone, as_event, of_service

if TYPE_CHECKING:
    from saia_proxy.upgrade import RawClient

LINGER_S = 2.0
"""How long a refused body is read and thrown away, so that the client gets to read the refusal."""

LARGEST_ERROR = 64 * 1024
"""Of an instance's error no more is passed on as an event."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS = frozenset(
    {"x-request-id", "date", "server", "connection", "keep-alive", "transfer-encoding", "upgrade"}
)

_EVENT_STREAM = b"text/event-stream"
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
        headers: list[tuple[bytes, bytes]],
        first: dict[bytes, bytes],
        client: str,
        keep_alive: bool,
    ) -> None:
        """`first` holds of each header the first value; all names are in lower case."""
        self.method = method
        self.raw_path = raw_path
        """As the client wrote it, without the query."""
        self.query = query
        self.headers = headers
        self.client = client
        """Its address."""
        self.keep_alive = keep_alive
        """Another request may follow on the connection."""
        self.began_at = monotonic()
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
        self.request_id = request_id(first.get(b"x-request-id"))
        self._first = first
        self._connection = connection
        self._pieces: list[bytes] = []
        self._waiting = 0
        """Bytes of them."""
        self._body_ended = False
        self._arrived = Bell()
        self._on_gone: Callable[[], None] | None = None
        self._waits_to_send = first.get(b"expect", b"").lower() == b"100-continue"
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
    def content_length(self) -> int | None:
        """What the client announced; its digits were checked by the parser."""
        length = self._first.get(b"content-length")
        return None if length is None else int(length)

    @property
    def announces_body(self) -> bool:
        return bool(self.content_length) or b"transfer-encoding" in self._first

    def header(self, name: bytes) -> bytes | None:
        """The first one's value."""
        return self._first.get(name)

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
            self._respond(
                200,
                [
                    (b"x-request-id", self.request_id.encode()),
                    (b"content-type", _EVENT_STREAM),
                    (b"cache-control", b"no-cache"),
                    (b"x-accel-buffering", b"no"),
                ],
            )
            self.held = True
            self.begun = False
            self.status = 0
        self._write(_WAITING)

    async def start(self, head: Head) -> None:
        """The instance's status and headers. Raises ApiError (502) for what HTTP can't carry."""
        if not 200 <= head.status <= 599:
            raise ApiError(502, "bad_response", "The service gave an answer that is not HTTP.")
        headers = self._headers(head)
        self.answered_at = monotonic()
        if not self.held:
            self._respond(head.status, headers)
            return
        self._is_events = _is_plain_stream(headers)
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
        return self._connection.take_over(_lines(self._headers(head)) + b"\r\n")

    def hang_up(self) -> None:
        """Ends a connection that was taken over."""
        self._connection.hang_up()

    async def write(self, data: bytes) -> None:
        """Waits while the client reads slowly."""
        if self._failure is not None:
            self._failure += data[: LARGEST_ERROR - len(self._failure)]
            return
        if self._is_events:
            if not self.events:
                self.first_event_at = monotonic()
            self.events += data.count(b"\n\n")
        self._write(data)
        if self._connection.write_paused:
            await self._connection.drain()

    async def end(self) -> None:
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
            await self.end()
            return
        unread = self._unread
        sent = [*headers, (b"x-request-id", self.request_id.encode()), (b"content-length", b"%d" % len(body))]
        # Who waits to be told to send its body may send it or not: the connection is of no more use.
        if unread or self._waits_to_send:
            self.keep_alive = False
        self._respond(status, sent)
        self._write(body)
        if unread:
            await self._discard()
        await self.end()

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

    def _respond(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """How the body ends follows from its headers (RFC 9112, 6)."""
        lines = _lines(headers)
        known = {name.lower(): value for name, value in headers}
        if self.method != "HEAD" and status not in _BODYLESS:
            length = known.get(b"content-length")
            if length is None:
                self._chunked = True
                lines += b"transfer-encoding: chunked\r\n"
            else:
                self._left = _length(length)
        self._is_events = known.get(b"content-type", b"").startswith(_EVENT_STREAM)
        self.begun = True
        self.status = status
        self._connection.respond(
            status, lines + (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        )

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

    def _headers(self, head: Head) -> list[tuple[bytes, bytes]]:
        """Those that HTTP can carry."""
        headers = [(b"x-request-id", self.request_id.encode())]
        dropped = _OURS | {"content-length"} if head.status in _BODYLESS else _OURS
        for name, value in head.headers:
            if name.lower() not in dropped and _HEADER_NAME.fullmatch(name) and not _BAD_VALUE.search(value):
                headers.append((name.encode(), value.encode("latin-1")))
        return headers

    async def _discard(self) -> None:
        """Reads on a little, so that a client which still sends gets to read its answer."""
        try:
            async with asyncio.timeout(LINGER_S):
                while await self.receive():
                    pass
        except (TimeoutError, ClientGone):
            pass


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _is_plain_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    known = {name.lower(): value for name, value in headers}
    return known.get(b"content-type", b"").startswith(_EVENT_STREAM) and b"content-encoding" not in known


def _length(announced: bytes) -> int:
    if not announced.isdigit():
        raise _other_length()
    return int(announced)


def _other_length() -> ApiError:
    return ApiError(502, "bad_response", "The service's answer is not as long as it said.")
