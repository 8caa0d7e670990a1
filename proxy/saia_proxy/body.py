"""The bodies of requests: kept whole where the model must be found in them, passed on as they come elsewhere."""

from __future__ import annotations

import asyncio

from saia_engine.wire.mux import WINDOW, Stream
from saia_proxy.begun import time_limit
from saia_proxy.errors import ApiError
from saia_proxy.exchange import Exchange

SMALL = 64 * 1024
"""A body up to this size is always kept whole: it may be sent again, and costs no task of its own."""
RETRY_FULL_S = 2


class Buffers:
    """The memory that all kept bodies may take together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def give_back(self, size: int) -> None:
        self.used -= size


class WholeBody:
    """All of a body in memory: it may be sent again as long as it is not dropped."""

    chunked = False
    repeatable = True

    def __init__(self, buffers: Buffers) -> None:
        self.data: bytes | bytearray = b""
        self._buffers = buffers
        self._held = 0

    @property
    def length(self) -> int:
        return len(self.data)

    @property
    def long(self) -> bool:
        """The answer may come before all of it was sent."""
        return len(self.data) > WINDOW

    async def read(self, exchange: Exchange, *, limit: int, timeout_s: float) -> None:
        """Raises ApiError (413, 408, 503) as soon as it is known, ClientGone."""
        if not exchange.announces_body:
            return
        announced = exchange.content_length
        if announced is not None and announced > limit:
            raise exchange.unread(too_large(limit))
        if (whole := exchange.arrived()) is not None:
            self._add(exchange, whole, limit)
            return
        try:
            async with time_limit(timeout_s):
                while part := await exchange.receive():
                    self._add(exchange, part, limit)
        except TimeoutError:
            raise exchange.unread(too_slow()) from None

    def _add(self, exchange: Exchange, part: bytes, limit: int) -> None:
        if len(self.data) + len(part) > limit:
            raise exchange.unread(too_large(limit))
        if not self._buffers.take(len(part)):
            raise exchange.unread(_full())
        self._held += len(part)
        if not self.data:
            self.data = part
            return
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        self.data += part

    async def send(self, stream: Stream) -> None:
        """Raises StreamReset."""
        await stream.send(self.data)  # type: ignore[arg-type]  # any buffer will do
        stream.end()

    def drop(self) -> None:
        """It will not be sent again."""
        self._buffers.give_back(self._held)
        self._held = 0
        self.data = b""


class PassingBody:
    """A body that goes on as it comes, of a known length or in chunks.

    Its beginning is kept as long as an instance may refuse it: no gate takes more than WINDOW bytes before its
    instance took the request. So a refusal always finds all that was sent still here.
    """

    long = True

    def __init__(self, exchange: Exchange, buffers: Buffers, *, limit: int, idle_s: float) -> None:
        """Raises ApiError (413) for a length above the limit."""
        self.length = exchange.content_length
        self.chunked = self.length is None
        self.repeatable = True
        self._exchange = exchange
        self._buffers = buffers
        self._limit = limit
        self._idle_s = idle_s
        self._size = 0
        self._kept: list[bytes] = []
        self._held = 0
        if self.length is not None and self.length > limit:
            raise exchange.unread(too_large(limit))

    async def send(self, stream: Stream) -> None:
        """Raises StreamReset, ApiError (413, 408), ClientGone."""
        for part in self._kept:
            await stream.send(part)
        while part := await self._receive():
            self._size += len(part)
            if self._size > self._limit:
                raise self._exchange.unread(too_large(self._limit))
            self._keep(part)
            await stream.send(part)
        stream.end()

    def drop(self) -> None:
        """It will not be sent again."""
        self.repeatable = False
        self._buffers.give_back(self._held)
        self._held = 0
        self._kept = []

    def _keep(self, part: bytes) -> None:
        if not self.repeatable:
            return
        # One more part than WINDOW: its last bytes wait for credit.
        if self._held > WINDOW or not self._buffers.take(len(part)):
            self.drop()
        else:
            self._held += len(part)
            self._kept.append(part)

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._exchange.receive()
        except TimeoutError:
            raise self._exchange.unread(too_slow()) from None


Body = WholeBody | PassingBody


def too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request's body is larger than {limit} bytes.")


def too_slow() -> ApiError:
    return ApiError(408, "request_timeout", "The request's body did not arrive in time.")


def _full() -> ApiError:
    text = "The proxy holds as many requests as it may; please try again."
    return ApiError(503, "overloaded", text, retry_after_s=RETRY_FULL_S)
