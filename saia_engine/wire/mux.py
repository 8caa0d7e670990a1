"""Many streams over one connection: per-stream credit, coalesced writes, pings both ways.

Both ends use the same class over any byte transport: they pass `write` in and call `data_received`,
`pause_writing`, `resume_writing` and `connection_lost`, as an asyncio protocol does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from saia_engine.wire import frames, messages
from saia_engine.wire.frames import HEADER, MAGIC, Decoder, Kind, WireError
from saia_engine.wire.messages import Control, Head, Hello, Open, Reset, pack, unpack

WINDOW = 256 * 1024
"""Bytes a sender may have under way on one stream before the receiver took them."""
PING_INTERVAL_S = 5.0
SILENCE_LIMIT_S = 15.0


class StreamReset(Exception):
    """The peer, the connection or we ended this stream; `code` is one of `messages`' reset codes."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or code)
        self.code = code
        self.text = text

    @property
    def not_taken(self) -> bool:
        """The instance provably did not take the request."""
        return self.code in messages.NOT_TAKEN


class MuxClosed(Exception):
    """The connection is gone; the text says why."""


class Stream:
    """One request and its response. Made by `Mux.open` (proxy) or handed to `on_open` (gate)."""

    def __init__(self, mux: Mux, stream_id: int, head: Open) -> None:
        self.id = stream_id
        self.request = head
        self._mux = mux
        self._response: asyncio.Future[Head] = mux.loop.create_future()
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._taken = 0
        self._peer_ended = False
        self._ended = False
        self._failure: StreamReset | None = None
        self._reader: asyncio.Future[None] | None = None
        self._credit = WINDOW
        self._writer: asyncio.Future[None] | None = None
        self.on_reset: Callable[[StreamReset], None] | None = None
        """Called once if the peer or the connection ends the stream."""

    # -- sending

    def respond(self, head: Head) -> None:
        """Gate: send the response's head, before any `send`."""
        self._check()
        self._mux.send_frame(Kind.HEAD, self.id, pack(head))

    async def send(self, data: bytes) -> None:
        """Send bytes of the body; waits for the peer's credit and the transport. Raises StreamReset."""
        view = memoryview(data)
        while view:
            while self._failure is None and (self._credit <= 0 or self._mux.paused):
                if self._credit > 0:
                    await self._mux.writable()
                    continue
                self._writer = self._mux.loop.create_future()
                await self._writer
            self._check()
            part = view[: min(len(view), self._credit, frames.MAX_DATA)]
            self._credit -= len(part)
            self._mux.send_frame(Kind.DATA, self.id, part)
            view = view[len(part) :]

    def end(self) -> None:
        """No more bytes from this side."""
        if self._failure is None and not self._ended:
            self._ended = True
            self._mux.send_frame(Kind.END, self.id)
            self._maybe_forget()

    def reset(self, code: str, text: str = "") -> None:
        """End the stream both ways; harmless on one that is over."""
        if self._failure is None and not (self._ended and self._peer_ended):
            self._mux.send_frame(Kind.RESET, self.id, pack(Reset(code, text)))
            self._fail(StreamReset(code, text), tell=False)

    # -- receiving

    async def response(self) -> Head:
        """Proxy: the response's head. Raises StreamReset."""
        return await asyncio.shield(self._response)

    async def receive(self) -> bytes:
        """The next bytes of the peer's body, b"" at its end. Raises StreamReset after what came before it."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._peer_ended:
                return b""
            self._reader = self._mux.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._release_buffer()
        self._taken += len(data)
        if self._taken >= WINDOW // 2 and not self._peer_ended and self._failure is None:
            self._mux.send_frame(Kind.CREDIT, self.id, self._taken.to_bytes(4, "big"))
            self._taken = 0
        return data

    @property
    def over(self) -> bool:
        return self._failure is not None or (self._ended and self._peer_ended)

    # -- called by the mux

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _got_head(self, head: Head) -> None:
        if self._response.done():
            raise WireError("a second response head on one stream")
        self._response.set_result(head)

    def _got_data(self, data: bytes) -> None:
        if self._failure is not None:
            return
        if self._peer_ended:
            raise WireError("data after the end of a stream")
        self._buffered += len(data)
        if self._buffered > WINDOW:
            raise WireError("data beyond the stream's credit")
        self._mux.buffered += len(data)
        if self._mux.buffered > self._mux.buffer_limit:
            self.reset(messages.LIMIT, "the connection's buffers are full")
            return
        self._chunks.append(data)
        _wake(self._reader)

    def _got_end(self) -> None:
        self._peer_ended = True
        _wake(self._reader)
        self._maybe_forget()

    def _got_credit(self, amount: int) -> None:
        self._credit += amount
        if self._credit > WINDOW:
            raise WireError("credit beyond the window")
        _wake(self._writer)

    def _fail(self, failure: StreamReset, tell: bool = True) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._release_buffer()
        if not tell:
            self._chunks.clear()
        if not self._response.done():
            self._response.set_exception(failure)
            self._response.exception()  # seen: nobody may be waiting for it
        _wake(self._reader)
        _wake(self._writer)
        self._mux.forget(self.id)
        if tell and self.on_reset is not None:
            self.on_reset(failure)

    def _release_buffer(self) -> None:
        self._mux.buffered -= self._buffered
        self._buffered = 0

    def _maybe_forget(self) -> None:
        if self._ended and self._peer_ended:
            self._mux.forget(self.id)


class Mux:
    """One connection's streams.

    `on_open` is given on the gate's side only; a proxy's mux refuses OPEN. `max_streams` and
    `buffer_limit` (bytes) bound what the peer can make us hold: above them one stream is reset with
    `limit`, nothing else happens.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        program: str,
        on_control: Callable[[Control], None],
        on_open: Callable[[Stream], None] | None = None,
        on_closed: Callable[[str], None] | None = None,
        max_streams: int = 2000,
        buffer_limit: int = 256 * 1024 * 1024,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.streams: dict[int, Stream] = {}
        self.peer: Hello | None = None
        self.buffered = 0
        self.buffer_limit = buffer_limit
        self.paused = False
        self.closed_because = ""
        self._write = write
        self._on_control = on_control
        self._on_open = on_open
        self._on_closed = on_closed
        self._max_streams = max_streams
        self._decoder = Decoder()
        self._out: list[bytes | memoryview] = []
        self._next_id = 1
        self._last_opened = 0
        self._heard_at = self.loop.time()
        self._ready: asyncio.Future[Hello] = self.loop.create_future()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._out.append(MAGIC)
        self.send_frame(Kind.HELLO, 0, pack(Hello(messages.WIRE_VERSION, program)))
        self.loop.call_soon(self._flush)
        self._pinger = self.loop.call_later(PING_INTERVAL_S, self._ping)

    # -- for users

    async def ready(self) -> Hello:
        """The peer's hello. Raises WireError (also NotOurPeer) or MuxClosed."""
        return await asyncio.shield(self._ready)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    @property
    def closed(self) -> bool:
        return self._closed.done()

    def open(self, head: Open) -> Stream:
        """Proxy: start a request. Raises MuxClosed, or StreamReset(limit) at the bound."""
        if self.closed:
            raise MuxClosed(self.closed_because)
        if len(self.streams) >= self._max_streams:
            raise StreamReset(messages.LIMIT, "too many streams on this connection")
        stream = Stream(self, self._next_id, head)
        self._next_id += 1
        self.streams[stream.id] = stream
        self.send_frame(Kind.OPEN, stream.id, pack(head))
        return stream

    def control(self, message: Control) -> None:
        self.send_frame(Kind.CONTROL, 0, pack(message))

    def close(self, why: str) -> None:
        """End all streams and flush; the owner closes the transport (told by `on_closed`)."""
        if self.closed:
            return
        self._flush()
        self._finish(why)

    # -- for the transport

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._heard_at = self.loop.time()
        try:
            for frame in self._decoder.feed(data):
                self._handle(frame)
                if self.closed:
                    return
        except WireError as exc:
            if not self._ready.done():
                self._ready.set_exception(exc)
                self._ready.exception()
            self._finish(str(exc))

    def connection_lost(self, why: str = "the connection was closed") -> None:
        self._finish(why)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            _wake(waiter)

    # -- for streams

    def send_frame(self, kind: Kind, stream: int, payload: bytes | memoryview = b"") -> None:
        if self.closed:
            return
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(HEADER.pack(len(payload), kind, stream))
        if payload:
            self._out.append(payload)

    async def writable(self) -> None:
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._drain_waiters.append(waiter)
        await waiter

    def forget(self, stream_id: int) -> None:
        self.streams.pop(stream_id, None)

    # -- inside

    def _flush(self) -> None:
        if self._out and not self.closed:
            data = b"".join(self._out)
            self._out.clear()
            self._write(data)

    def _ping(self) -> None:
        silent = self.loop.time() - self._heard_at
        if silent > SILENCE_LIMIT_S:
            self._finish(f"the peer was silent for {silent:.0f} s")
            return
        self.send_frame(Kind.PING, 0)
        self._pinger = self.loop.call_later(PING_INTERVAL_S, self._ping)

    def _finish(self, why: str) -> None:
        if self.closed:
            return
        self.closed_because = why
        self._closed.set_result(None)
        self._pinger.cancel()
        if not self._ready.done():
            self._ready.set_exception(MuxClosed(why))
            self._ready.exception()
        for stream in list(self.streams.values()):
            stream._fail(StreamReset(messages.TUNNEL_LOST, why))
        self.resume_writing()
        if self._on_closed is not None:
            self._on_closed(why)

    def _handle(self, frame: frames.Frame) -> None:
        kind, stream_id, payload = frame
        if self.peer is None:
            if kind is not Kind.HELLO:
                raise WireError(f"{kind.name} before HELLO")
            self.peer = unpack(Hello, payload)
            self._ready.set_result(self.peer)
            return
        stream = self.streams.get(stream_id)
        if kind is Kind.DATA:
            if stream is not None:
                stream._got_data(payload)
        elif kind is Kind.CREDIT:
            if stream is not None:
                stream._got_credit(int.from_bytes(payload[:4], "big"))
        elif kind is Kind.HEAD:
            if stream is not None:
                stream._got_head(unpack(Head, payload))
        elif kind is Kind.END:
            if stream is not None:
                stream._got_end()
        elif kind is Kind.RESET:
            if stream is not None:
                reset = unpack(Reset, payload)
                stream._fail(StreamReset(reset.code, reset.text))
        elif kind is Kind.OPEN:
            self._accept(stream_id, payload)
        elif kind is Kind.CONTROL:
            self._on_control(messages.unpack_control(payload))
        elif kind is Kind.PING:
            self.send_frame(Kind.PONG, 0)
        elif kind is Kind.HELLO:
            raise WireError("a second HELLO")

    def _accept(self, stream_id: int, payload: bytes) -> None:
        if self._on_open is None:
            raise WireError("OPEN from the side that serves")
        if stream_id <= self._last_opened:
            raise WireError(f"stream {stream_id} opened out of order")
        self._last_opened = stream_id
        stream = Stream(self, stream_id, unpack(Open, payload))
        self.streams[stream_id] = stream
        if len(self.streams) > self._max_streams:
            stream.reset(messages.LIMIT, "too many streams on this connection")
            return
        self._on_open(stream)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
