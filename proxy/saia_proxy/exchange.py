"""One client's request and the answer to it, written straight to ASGI: every byte goes through here."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from saia_engine.wire.messages import Head
from saia_proxy.errors import ApiError, ClientGone, as_event, of_service

if TYPE_CHECKING:
    from saia_proxy.upgrade import RawClient

CONNECTION = "saia.connection"
"""ASGI extension: the ClientConnection that the request came on."""
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
_SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"

Message = dict[str, Any]


def request_id(given: bytes | None) -> str:
    """The client's own where it is well formed, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{secrets.token_hex(12)}"


class ClientConnection(Protocol):
    """What an exchange needs of its connection beyond ASGI."""

    @property
    def upgradable(self) -> bool:
        """The request asks for a WebSocket."""
        ...

    def take_over(self, head: bytes) -> RawClient:
        """Answers with this head; from here on it carries raw bytes."""
        ...

    def hang_up(self) -> None:
        """Ends one that was taken over, after what was written to it."""
        ...

    def cut(self) -> None:
        """Ends it so that the client can't take what it got for a whole answer."""
        ...

    def watch(self, on_lost: Callable[[], None] | None) -> None:
        """Calls back once if it is lost; None ends that."""
        ...


class Exchange:
    """`begun` once a byte of the answer may have gone out; from then on the only other end is `cut`.

    One that is `held` has begun as an event stream before there is an answer: an error is then its last event.
    """

    def __init__(self, scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
        self.scope = scope
        self.began_at = monotonic()
        self.received_at = 0.0
        """When the last piece of its body came, by the monotonic clock."""
        self.status = 0
        self.bytes_out = self.events = 0
        self.taken_at: float | None = None
        self.answered_at: float | None = None
        self.begun = self.held = False
        self.gone = False
        self.outcome = "ok"
        self.key = self.model = self.service = self.instance = ""
        self._receive = receive
        self._send = send
        self._is_events = False
        self._failure: bytearray | None = None
        """What the instance says instead of the stream that was begun for it."""
        self._connection: ClientConnection = scope["extensions"][CONNECTION]
        self._lost = asyncio.Event()
        self._on_lost: Callable[[], None] | None = None
        self._body_read = False
        self._unread = False
        self.request_id = request_id(self.header(b"x-request-id"))

    @property
    def method(self) -> str:
        return self.scope["method"]

    @property
    def raw_path(self) -> str:
        """As the client wrote it, without the query."""
        return self.scope["raw_path"].decode("latin-1")

    @property
    def upgradable(self) -> bool:
        """It asks for a WebSocket."""
        return self._connection.upgradable

    @property
    def query(self) -> str:
        return self.scope["query_string"].decode("latin-1")

    @property
    def content_length(self) -> int | None:
        """What the client announced; its digits were checked by the parser."""
        length = self.header(b"content-length")
        return None if length is None else int(length)

    @property
    def announces_body(self) -> bool:
        return bool(self.content_length) or self.header(b"transfer-encoding") is not None

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    async def receive(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises ClientGone."""
        while not self._body_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientGone
            self._body_read = not message.get("more_body")
            if self._on_lost is not None:
                self._connection.watch(self._on_lost)  # so much may have come at once that it reads no more
            if part := message.get("body"):
                self.received_at = monotonic()
                return part
        return b""

    def unread(self, error: ApiError) -> ApiError:
        """The same error, to be answered although the client still sends."""
        self._unread = True
        return error

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call back when the client goes away before its answer is complete."""

        def lost() -> None:
            self.gone = True
            self._lost.set()
            on_gone()

        self._on_lost = lost
        self._connection.watch(lost)

    def close(self) -> None:
        self._connection.watch(None)

    async def hold(self) -> None:
        """Keeps a client that waits for an event stream: its head if it has none yet, and a comment."""
        if not self.held:
            self.held = True
            headers = [
                (b"x-request-id", self.request_id.encode()),
                (b"content-type", _EVENT_STREAM),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send_part(_WAITING)

    async def start(self, head: Head) -> None:
        """The instance's status and headers. Raises ApiError (502) for what HTTP can't carry."""
        if not 200 <= head.status <= 599:
            raise ApiError(502, "bad_response", "The service gave an answer that is not HTTP.")
        headers = self._headers(head)
        self._is_events = any(
            value.startswith(_EVENT_STREAM) and name.lower() == b"content-type" for name, value in headers
        )
        if self.held and head.status == 200 and not (self._is_events and _is_plain(headers)):
            raise ApiError(502, "bad_response", "The service answered with something else than a stream.")
        self.begun = True
        self.answered_at = monotonic()
        self.status = head.status
        if not self.held:
            await self._send({"type": "http.response.start", "status": head.status, "headers": headers})
        elif head.status != 200:
            self._failure = bytearray()

    def upgrade(self, head: Head) -> RawClient:
        """The service's 101; the connection as it is from here on. Raises ApiError (502) where nobody asked for it."""
        if not self.upgradable:
            raise ApiError(502, "bad_response", "The service upgraded a request that did not ask for it.")
        lines = [name + b": " + value + b"\r\n" for name, value in self._headers(head)]
        self.begun = True
        self.status = head.status
        return self._connection.take_over(b"".join([_SWITCHING, *lines, b"\r\n"]))

    def hang_up(self) -> None:
        """Ends a connection that was taken over."""
        self._connection.hang_up()

    async def write(self, data: bytes) -> None:
        """Waits while the client reads slowly."""
        if self._failure is not None:
            self._failure += data[: LARGEST_ERROR - len(self._failure)]
            return
        if self._is_events:
            self.events += data.count(b"\n\n")
        await self._send_part(data)

    async def end(self) -> None:
        if self._failure is not None:
            await self._send_part(as_event(of_service(self.status, self._failure)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """An answer of our own; nothing of another may have been sent. Held, its body is an event."""
        if self.held:
            self.begun, self.status = True, status
            await self._send_part(as_event(body))
            await self.end()
            return
        unread = self._unread
        sent = [*headers, (b"x-request-id", self.request_id.encode()), (b"content-length", b"%d" % len(body))]
        # Who waits to be told to send its body may send it or not: the connection is of no more use.
        if unread or (not self._body_read and self.header(b"expect") is not None):
            sent.append((b"connection", b"close"))
        self.begun = True
        self.status, self.bytes_out = status, len(body)
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await self._discard()
            await self.end()

    async def cut(self) -> None:
        """End the connection in a way that no client takes for the end of the answer."""
        self.cut_off()
        await self._lost.wait()

    def cut_off(self) -> None:
        """The same without waiting until the connection is closed."""
        self._connection.cut()

    def _headers(self, head: Head) -> list[tuple[bytes, bytes]]:
        """Those that HTTP can carry."""
        headers = [(b"x-request-id", self.request_id.encode())]
        # uvicorn wants as many bytes as announced, and these have none whatever they announce
        dropped = _OURS | {"content-length"} if head.status in _BODYLESS else _OURS
        for name, value in head.headers:
            if name.lower() not in dropped and _HEADER_NAME.fullmatch(name) and not _BAD_VALUE.search(value):
                headers.append((name.encode(), value.encode("latin-1")))
        return headers

    async def _send_part(self, data: bytes) -> None:
        self.bytes_out += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while (message := await self._receive())["type"] != "http.disconnect" and message.get(
                    "more_body"
                ):
                    pass
        except TimeoutError:
            pass


def _is_plain(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return all(name.lower() != b"content-encoding" for name, _ in headers)
