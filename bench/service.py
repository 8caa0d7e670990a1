"""The instance that all paths lead to: an OpenAI-shaped service that costs as little as it can.

    python -m bench.service [--port PORT] [--uds PATH]

It listens on a Unix socket, $SAIA_SOCKET if none is named, for the agent's front and on a loopback port for all
others, in one process. A stream's tokens are sent each at its own time, as a model makes them, whatever became of the
one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
from typing import Any, cast

import httptools
import uvloop

from bench import exchange

BACKLOG = 2048
CUTS = "/cuts"
"""When, by the machine's monotonic clock, connections ended before their answers did: a list in JSON."""
_cut_at: list[float] = []
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_TOKEN = _chunk(exchange.TOKEN_EVENT)
_LAST = _chunk(exchange.LAST_EVENTS) + _chunk(b"")


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering:
            _cut_at.append(time.monotonic())
        if self._timer is not None:
            self._timer.cancel()

    # -- from the parser

    def on_message_begin(self) -> None:
        self._path = b""
        self._body: list[bytes] = []
        self._length = 0
        self._received = 0
        self._good = True

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-length":
            self._length = int(value)

    def on_body(self, data: bytes) -> None:
        if self._path == exchange.UPLOAD.encode():
            self._good = self._good and exchange.upload(self._length).startswith(data, self._received)
        else:
            self._body.append(data)
        self._received += len(data)

    def on_message_complete(self) -> None:
        path = self._path.decode("latin-1")
        self._answering = True
        if path == exchange.CHAT:
            self._chat(b"".join(self._body))
        elif path == exchange.UPLOAD:
            self._answer(exchange.receipt(self._received, self._good and self._received == self._length))
        elif path.startswith(exchange.DOWNLOAD) and path.removeprefix(exchange.DOWNLOAD).isdigit():
            self._answer(exchange.download(int(path.removeprefix(exchange.DOWNLOAD))))
        elif path == "/health":
            self._answer(b"{}")
        elif path == CUTS:
            self._answer(json.dumps(_cut_at).encode())
        else:
            self._answering = False
            self._transport.write(_NOT_FOUND)

    # -- answers

    def _chat(self, body: bytes) -> None:
        tokens, rate = exchange.asked(body)
        word, after_s = exchange.mark(body)
        if tokens:
            token = _TOKEN if word == exchange.WORD else _chunk(exchange.token_event(word))
            self._transport.write(_EVENTS)
            self._stream(token, self._loop.time(), 0, tokens, rate)
        elif after_s:
            self._timer = self._loop.call_later(after_s, self._answer, exchange.answer(word))
        else:
            self._answer(exchange.ANSWER if word == exchange.WORD else exchange.answer(word))

    def _answer(self, body: bytes) -> None:
        head = _JSON % len(body)
        if len(body) < 65536:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        self._end()

    def _stream(self, token: bytes, began: float, sent: int, tokens: int, rate: int) -> None:
        self._transport.write(token)
        sent += 1
        if sent < tokens:
            at = began + sent / rate
            self._timer = self._loop.call_at(at, self._stream, token, began, sent, tokens, rate)
        else:
            self._transport.write(_LAST)
            self._end()

    def _end(self) -> None:
        self._answering = False
        if not self._parser.should_keep_alive():
            self._transport.close()


async def serve(port: int, socket: str) -> None:
    """Until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    servers: list[asyncio.AbstractServer] = []
    if port:
        servers.append(await loop.create_server(Connection, "127.0.0.1", port, backlog=BACKLOG))
    if socket:
        servers.append(await loop.create_unix_server(Connection, socket, backlog=BACKLOG))
    await stop.wait()
    for server in servers:
        server.close()


def main() -> None:
    options = argparse.ArgumentParser(prog="bench.service", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--uds", default=os.environ.get("SAIA_SOCKET", ""))
    asked = options.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(asked.port, asked.uds))


if __name__ == "__main__":
    main()
