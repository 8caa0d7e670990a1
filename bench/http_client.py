"""An HTTP/1.1 client that costs little: one connection, one request at a time, the answer's pieces as they come."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, Protocol, cast

import httptools

from bench.job import Target

CONNECT_S = 10.0


class Answer(Protocol):
    def take(self, data: bytes) -> None: ...
    def fault(self) -> str: ...


def request(target: Target, path: str, body: bytes, *headers: str) -> bytes:
    """A whole POST; `headers` are further lines."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {target.host}:{target.port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    if target.key:
        lines.append(f"Authorization: Bearer {target.key}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client(asyncio.Protocol):
    """Connects when it is asked something and has no connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[str] | None = None
        self._answer: Answer
        self._parser: Any = None
        self.began_at = self.ended_at = 0.0
        self.status = 0
        """Of the answer that came last; 0 until its head is there."""
        self.port = 0
        """Our end of the connection; 0 if there could be none."""
        self.connected_at = 0.0

    async def connect(self) -> None:
        """Raises OSError, TimeoutError."""
        self.close()
        async with asyncio.timeout(CONNECT_S):
            await self._loop.create_connection(lambda: self, self._target.host, self._target.port)

    async def ask(self, request: bytes, answer: Answer) -> str:
        """What was wrong, or ""."""
        if self._transport is None:
            try:
                await self.connect()
            except (OSError, TimeoutError):
                self.port, self.connected_at = 0, perf_counter()
                return "no connection"
        assert self._transport is not None
        self._answer = answer
        self.status = 0
        self._ended = self._loop.create_future()
        self.began_at = perf_counter()
        self._transport.write(request)
        return await self._ended

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.port, self.connected_at = transport.get_extra_info("sockname")[1], perf_counter()
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("no HTTP")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end("the connection ended before the answer")

    # -- from the parser

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self._answer.take(data)

    def on_message_complete(self) -> None:
        self._end(self._answer.fault() if self.status == 200 else f"status {self.status}")
        if not self._parser.should_keep_alive():
            self.close()

    def _end(self, fault: str) -> None:
        if self._ended is not None and not self._ended.done():
            self.ended_at = perf_counter()
            self._ended.set_result(fault)
