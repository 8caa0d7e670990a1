"""Many streams over one connection: per-stream credit, coalesced writes, pings both ways.

Both ends use the same class over any byte transport: they pass `write` in and call `data_received`,
`pause_writing`, `resume_writing` and `connection_lost`, as an asyncio protocol does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from saia_engine.wire import frames, messages
from saia_engine.wire.frames import EMPTY, HEADER, MAGIC, OF_CONNECTION, Decoder, Kind, WireError
from saia_engine.wire.messages import Control, Head, Hello, Open, Reset, pack, unpack
from saia_engine.wire.stream import WINDOW, Bell, Stream, StreamReset

__all__ = ["PING_INTERVAL_S", "SILENCE_LIMIT_S", "WINDOW", "Mux", "MuxClosed", "Stream", "StreamReset"]

FLUSH_AT = 256 * 1024
"""Bytes that wait for the end of the loop's turn at most; so the transport can pause us in time."""
PING_INTERVAL_S = 5.0
SILENCE_LIMIT_S = 15.0
LAST_STREAM_ID = 2**32 - 1


class MuxClosed(Exception):
    """The connection is gone; the text says why."""


class Mux:
    """One connection's streams.

    `on_round_trip` is told how many seconds each ping and its answer took. `alone`: whether nobody else has anything to
    say in this turn of the loop, so that nothing can be gathered by waiting for its end.
    `on_open` is given on the gate's side only, and called once all of what came with the OPEN is in its stream; a
    proxy's mux refuses OPEN. `max_streams` and
    `buffer_limit` (bytes) bound what the peer can make us hold: above them one stream is reset with
    `limit`, nothing else happens. A peer that makes us answer more than `buffer_limit` bytes without reading
    them loses the connection.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        program: str,
        on_control: Callable[[Control], None],
        on_open: Callable[[Stream], None] | None = None,
        on_closed: Callable[[str], None] | None = None,
        on_round_trip: Callable[[float], None] | None = None,
        alone: Callable[[], bool] | None = None,
        max_streams: int = 2000,
        buffer_limit: int = 256 * 1024 * 1024,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.name = ""
        """What its owner calls this connection."""
        self.streams: dict[int, Stream] = {}
        self.peer: Hello | None = None
        self.buffered = 0
        self.buffer_limit = buffer_limit
        self.max_streams = max_streams
        self.paused = False
        self.closed = False
        self.closed_because = ""
        self._write = write
        self._on_control = on_control
        self._on_open = on_open
        self._on_closed = on_closed
        self._on_round_trip = on_round_trip
        self._alone = alone
        self._pinged_at: float | None = None
        self._decoder = Decoder()
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self._written_while_paused = 0
        self._next_id = 1
        self._first_unwritten = 1
        self._last_opened = 0
        self._heard_at = self.loop.time()
        self._hello_due = self._heard_at + SILENCE_LIMIT_S
        self._idle = Bell()
        self._ready: asyncio.Future[Hello] = self.loop.create_future()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._held: dict[Stream, None] = {}
        self._holding = False
        self._opened: list[Stream] = []
        self._answered: list[Stream] = []
        self._out.append(MAGIC)
        self.send_frame(Kind.HELLO, 0, pack(Hello(messages.WIRE_VERSION, program)))
        self.loop.call_soon(self._flush)
        self._schedule_ping()

    # -- for users

    async def ready(self) -> Hello:
        """The peer's hello. Raises WireError (also NotOurPeer) or MuxClosed."""
        return await asyncio.shield(self._ready)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._closed)

    async def wait_idle(self) -> None:
        """Returns once no stream is open, or the connection is gone."""
        while self.streams:
            await self._idle.wait()

    @property
    def gathering(self) -> bool:
        """Frames wait for the end of the loop's turn: one more costs no packet of its own."""
        return bool(self._out)

    def open(self, head: Open) -> Stream:
        """Proxy: start a request. Raises MuxClosed, StreamReset(limit) at the bound, or (forbidden) for what
        no frame can hold."""
        if self.closed:
            raise MuxClosed(self.closed_because)
        if len(self.streams) >= self.max_streams:
            raise StreamReset(messages.LIMIT, "too many streams on this connection")
        if self._next_id > LAST_STREAM_ID:
            self.close("all stream numbers were used")
            raise MuxClosed(self.closed_because)
        payload = pack(head)
        if len(payload) > frames.MAX_PAYLOAD:
            raise StreamReset(messages.FORBIDDEN, "the request's head is too large")
        stream = Stream(self, self._next_id, head, ours=True)
        self._next_id += 1
        self.streams[stream.id] = stream
        self.send_frame(Kind.OPEN, stream.id, payload)
        return stream

    def control(self, message: Control) -> None:
        """One too large for a frame ends the connection: the peer would do it, with less to say."""
        payload = pack(message)
        if len(payload) > frames.MAX_PAYLOAD:
            self.close(f"a control message of {len(payload)} bytes, above {frames.MAX_PAYLOAD}")
        else:
            self.send_frame(Kind.CONTROL, 0, payload)

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
            if self._opened:
                self._tell_opened()
            if self._answered:
                self._tell_answered()
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
        self._written_while_paused = 0
        held, self._held = self._held, {}
        for stream in held:
            stream.wake()

    # -- for streams

    def send_frame(self, kind: Kind, stream: int, payload: bytes | memoryview = b"") -> None:
        if self.closed:
            return
        if not self._out and not self._holding:
            self.loop.call_soon(self._flush)
        self._out.append(HEADER.pack(len(payload), kind, stream))
        if payload:
            self._out.append(payload)
        self._out_size += HEADER.size + len(payload)
        if self._out_size >= FLUSH_AT:
            self._flush()

    def hold(self) -> None:
        """More frames follow, up to `release`. Not nested."""
        self._holding = self._alone is not None and not self._out

    def release(self) -> None:
        """What was held goes at once, where nothing else is to come in this turn."""
        if self._holding:
            self._holding = False
            if self._out and self._alone is not None and self._alone():
                self._flush()
            elif self._out:
                self.loop.call_soon(self._flush)

    def settle(self) -> None:
        """A stream has said all that it had: it goes at once, where nothing else is to come in this turn."""
        if self._out and not self._holding and self._alone is not None and self._alone():
            self._flush()

    def answered(self, stream: Stream) -> None:
        """Its response's head came, and perhaps more with it."""
        self._answered.append(stream)

    def wake_on_resume(self, stream: Stream) -> None:
        if self.paused:
            self._held[stream] = None

    def forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        self._held.pop(stream, None)
        if not self.streams:
            self._idle.ring()

    # -- inside

    def _flush(self) -> None:
        if not self._out or self.closed:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        if self.paused:
            self._written_while_paused += len(data)
            if self._written_while_paused > self.buffer_limit:
                self._finish("the peer does not read what it makes us answer")
                return
        self._first_unwritten = self._next_id
        self._write(data)

    def _ping(self) -> None:
        now = self.loop.time()
        late = now - self._ping_due
        if late > PING_INTERVAL_S:
            self._heard_at += late  # we were stopped: what the peer said meanwhile is not read yet
        silent = now - self._heard_at
        if silent > SILENCE_LIMIT_S:
            self._finish(f"the peer was silent for {silent:.0f} s")
            return
        if self.peer is None and now > self._hello_due + max(late, 0):
            self._finish("the peer did not greet in time")
            return
        self.send_frame(Kind.PING, 0)
        if self._pinged_at is None:
            self._pinged_at = monotonic()
        self._schedule_ping()

    def _ponged(self) -> None:
        """One that nobody asked for tells nothing."""
        if self._pinged_at is not None:
            took_s, self._pinged_at = monotonic() - self._pinged_at, None
            if self._on_round_trip is not None:
                self._on_round_trip(took_s)

    def _schedule_ping(self) -> None:
        self._ping_due = self.loop.time() + PING_INTERVAL_S
        self._pinger = self.loop.call_at(self._ping_due, self._ping)

    def _finish(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.closed_because = why
        self._closed.set_result(None)
        self._pinger.cancel()
        if not self._ready.done():
            self._ready.set_exception(MuxClosed(why))
            self._ready.exception()
        for stream in list(self.streams.values()):
            written = self._on_open is not None or stream.id < self._first_unwritten
            stream._fail(StreamReset(messages.TUNNEL_LOST if written else messages.CLOSING, why))
        self.resume_writing()
        if self._on_closed is not None:
            self._on_closed(why)

    def _handle(self, frame: frames.Frame) -> None:
        kind, stream_id, payload = frame
        if (stream_id == 0) is not (kind in OF_CONNECTION):
            raise WireError(f"{kind.name} with stream number {stream_id}")
        if payload and kind in EMPTY:
            raise WireError(f"{kind.name} with a payload")
        if self.peer is None:
            self._greeted(kind, payload)
        elif kind is Kind.OPEN:
            self._accept(stream_id, payload)
        elif stream_id:
            self._for_stream(kind, stream_id, payload)
        elif kind is Kind.CONTROL:
            message = messages.unpack_control(payload)
            if message is not None:
                self._on_control(message)
        elif kind is Kind.PING:
            self.send_frame(Kind.PONG, 0)
        elif kind is Kind.PONG:
            self._ponged()
        elif kind is Kind.HELLO:
            raise WireError("a second HELLO")

    def _greeted(self, kind: Kind, payload: bytes) -> None:
        if kind is not Kind.HELLO:
            raise WireError(f"{kind.name} before HELLO")
        hello = unpack(Hello, payload)
        if hello.version < messages.WIRE_VERSION:
            raise WireError(f"the peer speaks version {hello.version}, which is none of ours")
        self.peer = hello
        self._ready.set_result(hello)

    def _for_stream(self, kind: Kind, stream_id: int, payload: bytes) -> None:
        if kind is Kind.HEAD and self._on_open is not None:
            raise WireError("HEAD from the side that asks")
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id >= self._next_id and stream_id > self._last_opened:
                raise WireError(f"{kind.name} for stream {stream_id}, which was never opened")
            return  # it is over: the frame may have crossed our END or RESET
        if kind is Kind.DATA:
            stream._got_data(payload)
        elif kind is Kind.CREDIT:
            stream._got_credit(payload)
        elif kind is Kind.HEAD:
            stream._got_head(unpack(Head, payload))
        elif kind is Kind.END:
            stream._got_end()
        elif kind is Kind.RESET:
            reset = unpack(Reset, payload)
            stream._fail(StreamReset(reset.code, reset.text))

    def _accept(self, stream_id: int, payload: bytes) -> None:
        if self._on_open is None:
            raise WireError("OPEN from the side that serves")
        if stream_id <= self._last_opened:
            raise WireError(f"stream {stream_id} opened out of order")
        self._last_opened = stream_id
        stream = Stream(self, stream_id, unpack(Open, payload), ours=False)
        self.streams[stream_id] = stream
        if len(self.streams) > self.max_streams:
            stream.reset(messages.LIMIT, "too many streams on this connection")
            return
        if self.buffered >= self.buffer_limit:
            stream.reset(messages.LIMIT, "the connection's buffers are full")
            return
        self._opened.append(stream)

    def _tell_opened(self) -> None:
        opened, self._opened = self._opened, []
        for stream in opened:
            if not stream.over and self._on_open is not None:
                self._on_open(stream)

    def _tell_answered(self) -> None:
        answered, self._answered = self._answered, []
        for stream in answered:
            stream.tell_response()
