"""One request at one instance and its answer: between a stream of the proxy and a connection to the front.

What comes is passed on in the callback in which it came. Only a body that is long or late, and the upward half of a
WebSocket, has a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from saia_engine.gate import headers as rules
from saia_engine.gate.admission import Request
from saia_engine.gate.http1 import BadResponse, Connection, ConnectionLost
from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream, StreamReset

WHOLE_BODY = 64 * 1024
"""A body up to this size is collected first, and sent in one piece with its head."""
SWITCHING = 101


class BodyMismatch(Exception):
    """The proxy sent more or less of a body than it had announced."""


def arrived(stream: Stream, request: Request) -> bytes | None:
    """The whole of a short body that is here already. Raises BodyMismatch."""
    if passes(request):
        return None
    if not request.content_length:
        return b""
    body = stream.arrived()
    if body is not None and len(body) != request.content_length:
        raise BodyMismatch
    return body


async def collect(stream: Stream, request: Request) -> bytes | None:
    """The whole of a short body; None for one that is to be passed on as it comes.

    Raises StreamReset, BodyMismatch.
    """
    if passes(request):
        return None
    length = request.content_length
    if not length:
        return b""
    parts, size = [], 0
    while data := await stream.receive():
        parts.append(data)
        size += len(data)
        if size > length:
            raise BodyMismatch
    if size < length:
        raise BodyMismatch
    return b"".join(parts)


def passes(request: Request) -> bool:
    """Its body goes on as it comes."""
    return request.chunked or (request.content_length is not None and request.content_length > WHOLE_BODY)


async def discard(stream: Stream) -> None:
    """Reads what is left of a request that was answered before its end."""
    try:
        while await stream.receive():
            pass
    except StreamReset:
        pass


class Exchange:
    """A request under way, from its first byte at the instance to the last of its answer, or to a `fault`.

    `on_end` is called once, then: the connection may serve again if it is `reusable`; with a fault it was aborted.
    """

    def __init__(
        self,
        stream: Stream,
        request: Request,
        connection: Connection,
        on_end: Callable[[Exchange], None],
    ) -> None:
        self.stream = stream
        self.connection = connection
        self.status = 0
        self.fault: BaseException | None = None
        """ConnectionLost, BadResponse, BodyMismatch, StreamReset, or a fault of ours."""
        self._request = request
        self._on_end = on_end
        self._over = False
        self._rest: memoryview | None = None
        """Of the answer's body: what waits for the proxy to take more."""
        self._upward: asyncio.Task[None] | None = None

    def begin(self, body: bytes | None) -> None:
        """`body` is all of it, or None where it is still to come."""
        stream, connection, request = self.stream, self.connection, self._request
        connection.begin(request.method, upgrade=bool(request.websocket_accept))
        connection.on_change = stream.on_writable = self._move
        stream.on_reset = self.cancel
        stream.taken = True
        connection.write(request.head + body if body else request.head)
        if body is None:
            self._send_up(self._upload())

    def cancel(self, reason: BaseException) -> None:
        """Ends the work at the instance."""
        self._end(reason)

    # -- downward

    def _move(self) -> None:
        """Passes on what there is."""
        if self._over:
            return
        mux = self.stream.mux
        mux.hold()
        try:
            if self._answer():
                self.stream.end()
                self._end(None)
        except Exception as fault:
            self._end(fault)
        finally:
            mux.release()

    def _answer(self) -> bool:
        """Whether all of the answer was passed on. Raises StreamReset, ConnectionLost, BadResponse."""
        connection, stream = self.connection, self.stream
        if not self.status:
            head = connection.head_now()
            if head is None:
                return False
            self._respond(*head)
        while True:
            if self._rest is not None:
                sent = stream.send_some(self._rest)
                if sent < len(self._rest):
                    self._rest = self._rest[sent:]
                    return False
                self._rest = None
            data = connection.read_now()
            if not data:
                return data is not None
            sent = stream.send_some(data)
            if sent < len(data):
                self._rest = memoryview(data)[sent:]
                return False

    def _respond(self, status: int, headers: rules.Headers) -> None:
        if status == SWITCHING:
            self._check_upgrade(headers)
        self.status = status
        self.stream.respond(Head(status, rules.for_proxy(headers)))
        if status == SWITCHING:
            self._send_up(self._pass_up())

    def _check_upgrade(self, headers: rules.Headers) -> None:
        accepted = rules.values(headers, "sec-websocket-accept") == [self._request.websocket_accept]
        if not (accepted and self.connection.upgraded and rules.words(headers, "upgrade") == ["websocket"]):
            raise BadResponse("an upgrade that proves nothing")

    # -- upward

    def _send_up(self, sending: Coroutine[Any, Any, None]) -> None:
        self._upward = asyncio.get_running_loop().create_task(sending)
        self._upward.add_done_callback(self._sent_up)

    def _sent_up(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._end(fault)

    async def _upload(self) -> None:
        """Raises BodyMismatch where the body is not as announced, StreamReset."""
        connection, request, sent = self.connection, self._request, 0
        try:
            while data := await self.stream.receive():
                sent += len(data)
                if request.content_length is not None and sent > request.content_length:
                    raise BodyMismatch
                connection.write(b"%x\r\n%b\r\n" % (len(data), data) if request.chunked else data)
                await connection.drain()
        except ConnectionLost:
            return  # the response may be there all the same
        if request.content_length is not None and sent < request.content_length:
            raise BodyMismatch
        if request.chunked:
            connection.write(b"0\r\n\r\n")

    async def _pass_up(self) -> None:
        try:
            while data := await self.stream.receive():
                self.connection.write(data)
                await self.connection.drain()
            self.connection.write_eof()
        except (ConnectionLost, StreamReset):
            pass  # the other direction ends too, and says so

    # -- the end

    def _end(self, fault: BaseException | None) -> None:
        if self._over:
            return
        self._over = True
        self.fault = fault
        self._rest = None
        self.stream.on_writable = self.stream.on_reset = None
        if self._upward is not None and not self._upward.done():
            self._upward.cancel()
            self.connection.spoil()  # the instance answered without having read all of the request
        if fault is not None:
            self.connection.abort()
        self._on_end(self)
