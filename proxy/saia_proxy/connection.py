"""One client's HTTP/1.1 connection: its requests one after another, each an exchange, with bounds on all that waits.

httptools parses. A general ASGI server would cost a request more processor time than all that is ours in it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from time import monotonic
from typing import Any

import httptools

from saia_engine.wire.stream import Bell
from saia_engine.wire.sweeper import Sweeper
from saia_proxy import access_log, begun
from saia_proxy.corked import Corked
from saia_proxy.errors import ApiError
from saia_proxy.exchange import Exchange, request_id
from saia_proxy.forwarded import FORWARDED_FOR, TrustedProxies
from saia_proxy.request_head import NOTHING, RequestHead
from saia_proxy.upgrade import RawClient

MAX_HEAD = 64 * 1024
HEAD_TIMEOUT_S = 30.0
KEEP_ALIVE_S = 75.0
"""Longer than clients and load balancers keep an idle connection: who closes first must not be us."""
CUT_FLUSH_S = 2.0
"""How long what the client has not read yet may take to leave before the connection is reset."""
HANG_UP_S = 10.0
"""How long a client may take to read what a WebSocket's end left for it, and to end its own side."""
URLS_KNOWN = 64
"""That were parsed before; each may be MAX_HEAD long."""
HOLD = 64 * 1024
"""Bytes of a body that wait for their reader before the connection is not read any more."""

CONTENT_LENGTH = b"content-length"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


@lru_cache(URLS_KNOWN)
def _parts(url: bytes) -> tuple[str, str]:
    """Path and query. Raises httptools.HttpParserError for what is no URL."""
    parsed = httptools.parse_url(url)
    return parsed.path.decode("latin-1"), (parsed.query or b"").decode("latin-1")


_STATUSES = {int(status) for status in HTTPStatus}
_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class Clients:
    """All connections of one server, and the requests that are under way on them."""

    def __init__(self, app: Callable[[Exchange], Coroutine[Any, Any, None]], trusted: TrustedProxies) -> None:
        self.app = app
        self.trusted = trusted
        self.connections: set[Connection] = set()
        self.sweeper = Sweeper()
        self.requests: set[asyncio.Task[None]] = set()
        self.fewer = Bell()
        """Rings when a connection or a request has ended."""
        self.leaving = False
        self._loop = asyncio.get_running_loop()
        self._date_of, self._date = 0, b""

    def date(self) -> bytes:
        """The header line that every answer has (RFC 9110, 6.6.1)."""
        now = int(time.time())
        if now != self._date_of:
            self._date_of, self._date = now, f"date: {formatdate(now, usegmt=True)}\r\n".encode()
        return self._date

    def begin(self, exchange: Exchange) -> None:
        """At once, up to where it has to wait."""
        task = begun.begin(self.app(exchange), self._loop)
        if task is None:
            self.fewer.ring()
        else:
            self._follow(task)

    def begin_later(self, exchange: Exchange) -> None:
        self._follow(self._loop.create_task(self.app(exchange)))

    def leave(self) -> None:
        """No request after those that are under way."""
        self.leaving = True
        for connection in list(self.connections):
            connection.leave()

    def _follow(self, task: asyncio.Task[None]) -> None:
        self.requests.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.requests.discard(task)
        self.fewer.ring()


class Connection(asyncio.Protocol):
    """Also the ClientConnection of its exchanges."""

    def __init__(self, clients: Clients) -> None:
        self.deadline = monotonic() + HEAD_TIMEOUT_S
        """When the client must have sent the whole head of a request; far away while it waits for us."""
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        # A client may send the next request behind one that says 'Connection: close'; it gets no answer.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._transport: asyncio.Transport
        self._out: Corked
        self._secure = False
        self._peer = ""
        self._lost = False
        self._reading = True
        self._writable = Bell()
        self.write_paused = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._length: bytes | None = None
        self._head = NOTHING
        self._head_open = True
        self._head_size = 0
        self._arriving: Exchange | None = None
        """Whose body comes."""
        self._starting = False
        """What is answered begins once all of what came with its head was looked at."""
        self._answering: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        """Sent behind that one already (pipelining)."""
        self._raw: RawClient | None = None
        """From the head of a WebSocket's request on: what follows it is no HTTP. If the service refuses it, the
        connection ends with that answer."""
        self._taken_over = self._hung_up = False

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._out = Corked(transport, self._loop)
        self._secure = transport.get_extra_info("sslcontext") is not None
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._clients.connections.add(self)
        self._clients.sweeper.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._clients.connections.discard(self)
        self._clients.sweeper.discard(self)
        self._clients.fewer.ring()
        self._writable.ring()
        if self._raw is not None:
            self._raw.lost()
        for exchange in (self._answering, *self._queue):
            if exchange is not None:
                exchange.lost()
        self._queue.clear()

    def eof_received(self) -> bool | None:
        if self._raw is None or not self._taken_over or self._hung_up:
            return None
        self._raw.ended()
        return not self._secure  # may still be written to; TLS has no half of an end

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._head_open:
            if not self._head_size:
                self.deadline = monotonic() + HEAD_TIMEOUT_S
            self._head_size += len(data)
        elif self._answering is None:
            self.deadline = monotonic() + KEEP_ALIVE_S  # the rest of a body that nobody wants any more
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._raw is not None:
                self._raw.feed(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(ApiError(400, "bad_http", "Invalid HTTP request received."))
        if self._starting:
            self._starting = False
            if self._answering is not None and not self._transport.is_closing():
                self._clients.begin(self._answering)
        if self._head_open and self._head_size > MAX_HEAD and not self._transport.is_closing():
            self._refuse(ApiError(431, "head_too_large", "The request's headers are too large."))

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._writable.ring()

    # -- from the parser

    def on_message_begin(self) -> None:
        self._url, self._headers, self._length = b"", [], None

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == CONTENT_LENGTH:
            self._length = value
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._head_size = 0
        if self._headers != self._head.headers:
            self._head = RequestHead(self._headers)
        asks_for_upgrade = self._parser.should_upgrade()
        if asks_for_upgrade and self._body_announced():  # the parser skips such a body
            text = "No upgrade is possible here: send the request without the header 'Upgrade'."
            self._refuse(ApiError(400, "bad_http", text))
            return
        if asks_for_upgrade and self._asks_for_websocket():
            if self._answering is not None:
                self.cut()  # sent behind another request: which bytes are whose could not be told
                return
            self._raw = RawClient(self)
        keeps = self._parser.should_keep_alive() and self._parser.get_http_version() != "1.0"
        self._arriving = self._exchange(keeps and not asks_for_upgrade)
        if self._answering is None:
            self._answer(self._arriving)
            self._starting = True
        else:
            self._queue.append(self._arriving)
            self.pause_reading()

    def on_body(self, data: bytes) -> None:
        if self._arriving is not None and self._arriving.feed(data) > HOLD:
            self.pause_reading()

    def on_message_complete(self) -> None:
        if self._transport.is_closing():
            return  # it was refused
        self._head_open = True
        if self._arriving is not None:
            self._arriving.body_ended()
            self._arriving = None

    # -- for exchanges

    @property
    def upgradable(self) -> bool:
        """The request asks for a WebSocket."""
        return self._raw is not None

    def respond(self, status: int, headers: bytes) -> None:
        """The head of an answer, with its own empty line."""
        if not self._lost:
            self._out.write(b"".join((_STATUS_LINES[status], self._clients.date(), headers)))

    def write(self, data: bytes) -> None:
        if not self._lost:
            self._out.write(data)

    async def drain(self) -> None:
        """Waits while the client reads slowly."""
        while self.write_paused and not self._lost:
            await self._writable.wait()

    def want_body(self) -> None:
        """For a client that waits to be told to send it."""
        self.write(CONTINUE)

    def pause_reading(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Also while nothing is wanted: or the end of the connection would not be seen."""
        if not self._reading and not self._lost:
            self._reading = True
            self._transport.resume_reading()

    def answered(self, exchange: Exchange) -> None:
        """The answer is written; the next one's turn."""
        self._answering = None
        if self._lost:
            return
        self._out.flush()  # no more of it comes in this turn
        if not exchange.keep_alive or self._clients.leaving:
            self._out.close()
            return
        if self._queue:
            following = self._queue.popleft()
            self._answer(following)
            self._clients.begin_later(following)  # this may be called from within another's beginning
        else:
            self.deadline = monotonic() + KEEP_ALIVE_S
        self.resume_reading()

    def cut(self) -> None:
        """Ends it so that the client can't take what it got for a whole answer."""
        # The answer's last chunk or last announced byte is missing, so a plain close is no clean end.
        self._out.close()
        self._loop.call_later(CUT_FLUSH_S, self._out.abort)

    def take_over(self, headers: bytes) -> RawClient:
        """Answers 101; from here on it carries raw bytes."""
        assert self._raw is not None, "only what is upgradable is taken over"
        self._taken_over = True
        self.write(SWITCHING + headers)
        return self._raw

    def hang_up(self) -> None:
        """Ends one that was taken over, after what was written to it."""
        assert self._raw is not None, "only what is upgradable is taken over"
        self._hung_up = True
        self._raw.ended()
        if self._transport.is_closing():
            return
        # Read on a while: closed with bytes unread, the kernel would take back what the client has not read yet.
        self.resume_reading()
        if self._transport.can_write_eof():
            self._out.write_eof()
        else:
            self._out.close()
        self._loop.call_later(HANG_UP_S, self._out.abort)

    # -- for the server

    def close(self) -> None:
        self._out.close()

    def late(self) -> None:
        self.close()

    def leave(self) -> None:
        """No request after the one that is under way."""
        if self._answering is None:
            self.close()

    def abort(self) -> None:
        self._out.abort()

    # -- inside

    def _exchange(self, keep_alive: bool) -> Exchange:
        """Raises httptools.HttpParserError for what is no URL."""
        path, query = _parts(self._url)
        client = self._peer
        if FORWARDED_FOR in self._head.first:
            client = self._clients.trusted.client(client, self._headers)
        return Exchange(
            self,
            method=self._parser.get_method().decode("ascii"),
            raw_path=path,
            query=query,
            head=self._head,
            length=self._length,
            client=client,
            keep_alive=keep_alive,
        )

    def _answer(self, exchange: Exchange) -> None:
        self._answering = exchange
        self.deadline = math.inf

    def _asks_for_websocket(self) -> bool:
        parser = self._parser
        if parser.get_method() != b"GET" or parser.get_http_version() != "1.1":
            return False
        wanted = [word.strip() for word in self._head.first.get(b"connection", b"").lower().split(b",")]
        return b"upgrade" in wanted and self._head.first.get(b"upgrade", b"").lower() == b"websocket"

    def _body_announced(self) -> bool:
        return b"transfer-encoding" in self._head.first or self._length not in (None, b"0")

    def _refuse(self, error: ApiError) -> None:
        """What never becomes an exchange is answered and logged here."""
        if self._answering is not None and (self._answering.begun or self._answering.held):
            self.cut()  # nothing may be written into the answer that is being sent
            return
        made = request_id(None)
        body = error.body()
        lines = [name + b": " + value + b"\r\n" for name, value in error.headers()]
        lines.append(b"x-request-id: %b\r\ncontent-length: %d\r\n" % (made.encode(), len(body)))
        self.respond(error.status, b"".join([*lines, b"connection: close\r\n\r\n", body]))
        self._out.close()
        access_log.refused(made, self._peer, error)
