"""One HTTP/1.1 connection as a client: one exchange at a time, used again only after an exact end.

httptools parses; what it leaves open is decided here: the end by EOF, HEAD, interim responses, upgrades, sizes.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

import httptools

from saia_engine.gate import headers as rules
from saia_engine.wire.stream import Bell

HOLD = 64 * 1024
"""Bytes of a response that wait for their reader before the connection is not read any more."""
LARGEST_OVERHEAD = 64 * 1024
"""Bytes in a row that are no body: a head, trailers, chunk extensions."""
NO_BODY = frozenset({204, 304})


class ConnectionLost(Exception):
    """It ended before the response did."""


class BadResponse(Exception):
    """What came is no response to this request; the connection is of no more use."""


class Connection(asyncio.Protocol):
    """`begin`, `write`, then `head`, then `read` to the end. Whoever stops earlier must `abort`.

    Who does not want to wait sets `on_change`, and then asks `head_now` and `read_now`.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] | None = None
        """Called when something of the response came, or the connection was lost."""
        self._transport: Any = None
        self._poll: select.poll | None = None
        self._response: _Response | None = None
        self._raw = False
        self._lost = False
        self._fault: Exception | None = None
        self._paused = False
        self._holding = False
        self._changed = Bell()
        self._writable = Bell()

    # -- the exchange

    def begin(self, method: str, *, upgrade: bool = False) -> None:
        """A new exchange; the head of its request goes next."""
        self._response = _Response(method, upgrade)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def write_eof(self) -> None:
        if not self._lost:
            self._transport.write_eof()

    async def drain(self) -> None:
        """Waits until the transport takes more. Raises ConnectionLost."""
        while self._paused and not self._lost:
            await self._writable.wait()
        if self._lost:
            raise ConnectionLost

    async def head(self) -> tuple[int, rules.Headers]:
        """Status and headers of the final response, or of a 101. Raises ConnectionLost, BadResponse."""
        while (head := self.head_now()) is None:
            await self._changed.wait()
        return head

    def head_now(self) -> tuple[int, rules.Headers] | None:
        """The same, or None as long as it is not here."""
        response = self._current()
        if response.head_done:
            return response.status, response.headers
        self._check()
        return None

    async def read(self) -> bytes:
        """The next bytes of the body, b"" at its end. Raises ConnectionLost, BadResponse after what came before."""
        while (data := self.read_now()) is None:
            await self._changed.wait()
        return data

    def read_now(self) -> bytes | None:
        """The same, or None while there is nothing."""
        response = self._current()
        if not response.chunks:
            if response.complete:
                return b""
            self._check()
            return None
        data = response.take()
        if self._holding:
            self._holding = False
            if not self._lost:
                self._transport.resume_reading()
        return data

    @property
    def upgraded(self) -> bool:
        """From here on it carries raw bytes."""
        return self._raw

    @property
    def reusable(self) -> bool:
        """The response came to its exact end, nothing after it, and the server goes on."""
        response = self._response
        return (
            response is not None
            and response.complete
            and response.keep_alive
            and not response.surplus
            and not self._raw
            and self._fault is None
            and not self._lost
        )

    def spoil(self) -> None:
        """Never use it again: part of a request was not sent."""
        if self._response is not None:
            self._response.surplus = True

    def quiet(self) -> bool:
        """Whether an idle connection is open and has nothing to say: asked of the kernel, not of the loop."""
        if self._lost or self._transport.is_closing():
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def rest(self) -> None:
        """Idle: whatever comes now is surplus."""
        self._response = None
        self.on_change = None

    def abort(self) -> None:
        """In an exchange with a reset: a plain close is a half-close to the agent, and the work would go on."""
        if self._response is not None and not self._lost:
            link = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it is closed already
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._lost = True
        self.on_change = None
        self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None or (response.complete and not self._raw):
            self.abort()
            return
        if self._raw:
            response.push(data)
        else:
            self._parse(response, data)
        self._tell()
        if response.size > HOLD and not self._holding and not self._lost:
            self._holding = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        response = self._response
        if response is not None and response.head_done and (self._raw or response.until_eof):
            response.complete = True
        self._lost = True
        self._tell()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._tell()
        self._writable.ring()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._writable.ring()

    # -- inside

    def _tell(self) -> None:
        self._changed.ring()
        if self.on_change is not None:
            self.on_change()

    def _current(self) -> _Response:
        assert self._response is not None, "begin() comes first"
        return self._response

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._lost:
            raise ConnectionLost

    def _parse(self, response: _Response, data: bytes) -> None:
        try:
            response.feed(data)
        except httptools.HttpParserUpgrade as exc:
            if response.status == 101 and response.head_done:
                self._raw = True
                response.complete = False
                response.push(data[exc.args[0] :])
            else:
                self._fail("an upgrade that nobody asked for")
        except httptools.HttpParserError:
            if response.complete:
                response.surplus = True
            else:
                self._fail("not HTTP")
        except BadResponse as exc:
            self._fail(str(exc))

    def _fail(self, why: str) -> None:
        self._fault = BadResponse(why)
        self._transport.abort()


class _Response:
    """What the parser says of one response; a parser of its own, so that nothing is carried over."""

    def __init__(self, method: str, upgrade: bool) -> None:
        self.status = 0
        self.headers: rules.Headers = []
        self.head_done = False
        self.complete = False
        self.keep_alive = False
        self.until_eof = False
        self.surplus = False
        self.chunks: list[bytes] = []
        self.size = 0
        self._bodyless = method == "HEAD"
        self._upgrade = upgrade
        self._overhead = 0
        self._fault: BadResponse | None = None
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Raises BadResponse and httptools' errors."""
        before = self.size
        self._parser.feed_data(data)
        if self._fault is not None:
            raise self._fault
        self._overhead = 0 if self.size > before else self._overhead + len(data)
        if self._overhead > LARGEST_OVERHEAD:
            raise BadResponse("a head or trailers beyond all measure")

    def push(self, data: bytes) -> None:
        if data:
            self.chunks.append(data)
            self.size += len(data)

    def take(self) -> bytes:
        data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self.size = 0
        return data

    # -- called by httptools; what these raise would lose its words, so faults are kept

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # later ones are trailers
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self.headers = []
            return
        lengths = rules.values(self.headers, "content-length")
        codings = rules.words(self.headers, "transfer-encoding")
        self._fault = self._head_fault(status, codings)
        self.status = status
        self.head_done = self._fault is None
        self.keep_alive = bool(self._parser.should_keep_alive())
        self.until_eof = not lengths and not codings and status not in NO_BODY and not self.keep_alive
        if self._bodyless:
            self.complete = True
            self.until_eof = False

    def _head_fault(self, status: int, codings: list[str]) -> BadResponse | None:
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            return BadResponse("a version of HTTP that was not asked for")
        if status == 101 and not self._upgrade:
            return BadResponse("an upgrade that nobody asked for")
        if not 101 <= status <= 599:
            return BadResponse("a status that does not exist")
        if codings not in ([], ["chunked"]):
            return BadResponse("a transfer coding that was not asked for")
        try:
            rules.check(self.headers)
        except rules.BadHeaders as exc:
            return BadResponse(str(exc))
        return None

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self.surplus = True
        elif self.head_done:
            self.push(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.complete = True
