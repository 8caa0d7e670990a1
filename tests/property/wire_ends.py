"""Two muxes joined by bytes that move only when a test says so, and both ends of each of their streams."""

from __future__ import annotations

import asyncio
import random
from functools import lru_cache

from saia_engine.wire import messages
from saia_engine.wire.messages import Head, Open
from saia_engine.wire.mux import FLUSH_AT, WINDOW, Mux
from saia_engine.wire.stream import Stream, StreamReset

HIGH_WATER, LOW_WATER = 100_000, 20_000
LATE = frozenset({messages.LIMIT, messages.OVERFLOW})


@lru_cache(maxsize=64)
def _pattern(number: int, side: str) -> bytes:
    return random.Random(f"{number} {side}").randbytes(65521)


def body(number: int, side: str, start: int, size: int) -> bytes:
    """What `side` sends on a stream, from one position on: no two positions or streams look alike."""
    pattern = _pattern(number, side)
    at = start % len(pattern)
    return (pattern * (size // len(pattern) + 2))[at : at + size]


class Way:
    """Bytes one way. Its source is paused while too many wait, as by a transport."""

    def __init__(self) -> None:
        self.source: Mux
        self.sink: Mux
        self.held = bytearray()
        self.ends = False
        """The source is gone: after what is held comes the end."""

    def write(self, data: bytes) -> None:
        self.held += data
        if len(self.held) > HIGH_WATER:
            self.source.pause_writing()

    def deliver(self, size: int) -> None:
        if self.held:
            part = bytes(self.held[:size])
            del self.held[:size]
            self.sink.data_received(part)
        if self.source.paused and len(self.held) <= LOW_WATER:
            self.source.resume_writing()
        if self.ends and not self.held:
            self.sink.connection_lost("torn")


class End:
    """One side of one stream, driven by hand, and what it has seen."""

    def __init__(self, side: str, stream: Stream) -> None:
        self.side = side
        self.stream = stream
        self.given = 0
        self.received = 0
        self.answered = side == "proxy"
        self.ended = self.saw_end = False
        self.failure: StreamReset | None = None
        self.sending: asyncio.Task[None] | None = None
        self.reading: asyncio.Task[None] | None = None
        self.response = asyncio.ensure_future(self._response()) if self.answered else None
        stream.on_reset = self._failed

    @property
    def live(self) -> bool:
        return self.failure is None

    @property
    def may_send(self) -> bool:
        return self.live and self.answered and not self.ended and self.sending is None

    @property
    def may_read(self) -> bool:
        return not self.saw_end and self.reading is None

    def respond(self) -> None:
        self.answered = True
        self.stream.respond(Head(200))

    def send(self, size: int, pieces: int = 1) -> None:
        data = body(self.stream.id, self.side, self.given, size)
        self.given += size
        self.sending = asyncio.ensure_future(self._send(data, max(1, size // pieces)))

    def read(self) -> None:
        self.reading = asyncio.ensure_future(self._read())

    def end(self) -> None:
        self.ended = True
        self.stream.end()

    def reset(self, code: str) -> None:
        self.failure = StreamReset(code)
        self.stream.reset(code)

    def _failed(self, reset: StreamReset) -> None:
        assert self.failure is None, "told twice"
        self.failure = reset

    async def _response(self) -> None:
        try:
            await self.stream.response()
        except StreamReset:
            pass

    async def _send(self, data: bytes, piece: int) -> None:
        try:
            for start in range(0, len(data), piece):
                await self.stream.send(data[start : start + piece])
        except StreamReset:
            assert self.failure is not None
        finally:
            self.sending = None

    async def _read(self) -> None:
        try:
            data = await self.stream.receive()
        except StreamReset:
            assert self.failure is not None
            self.saw_end = True
        else:
            self.saw_end = not data
            other = "gate" if self.side == "proxy" else "proxy"
            assert data == body(self.stream.id, other, self.received, len(data)), "other bytes than were sent"
            self.received += len(data)
        finally:
            self.reading = None


class World:
    """A proxy's and a gate's mux, the ways between them, and all that was ever opened."""

    def __init__(self, buffer_limit: int, max_streams: int) -> None:
        self.up, self.down = Way(), Way()
        self.ends: dict[str, dict[int, End]] = {"proxy": {}, "gate": {}}
        self.torn = False
        self.proxy = Mux(self.up.write, program="proxy", on_control=lambda _: None)
        self.gate = Mux(
            self.down.write,
            program="gate",
            on_control=lambda _: None,
            on_open=self._opened,
            buffer_limit=buffer_limit,
            max_streams=max_streams,
        )
        self.up.source = self.down.sink = self.proxy
        self.up.sink = self.down.source = self.gate

    def all(self) -> list[End]:
        return [*self.ends["proxy"].values(), *self.ends["gate"].values()]

    def other(self, end: End) -> End | None:
        return self.ends["gate" if end.side == "proxy" else "proxy"].get(end.stream.id)

    def open(self) -> None:
        stream = self.proxy.open(Open("i", "POST", "/"))
        self.ends["proxy"][stream.id] = End("proxy", stream)

    def _opened(self, stream: Stream) -> None:
        assert stream.id in self.ends["proxy"] and stream.id not in self.ends["gate"]
        self.ends["gate"][stream.id] = End("gate", stream)

    def tear(self) -> None:
        """Both sides lose the connection, and what is under way with it."""
        self.torn = True
        self.proxy.connection_lost("torn")
        self.gate.connection_lost("torn")

    def close(self, side: str) -> None:
        """One side closes: what it said before still arrives, and then the end."""
        self.torn = True
        closing, way, back = (
            (self.proxy, self.up, self.down) if side == "proxy" else (self.gate, self.down, self.up)
        )
        closing.close("enough")
        way.ends = True
        back.held.clear()

    async def pump(self) -> None:
        """Delivers until nothing is under way any more."""
        for _ in range(10_000):
            await settle()
            if not (self.up.held or self.down.held):
                return
            self.up.deliver(1 << 30)
            self.down.deliver(1 << 30)
        raise AssertionError("the two never stop talking")

    def check(self) -> None:
        """What holds at every moment."""
        for mux, side in ((self.proxy, "proxy"), (self.gate, "gate")):
            waiting = [end.stream._buffered for end in self.ends[side].values()]
            assert mux.buffered == sum(waiting) <= mux.buffer_limit
            assert max(waiting, default=0) <= WINDOW
            assert all(not stream.over for stream in mux.streams.values())
        for way in (self.up, self.down):
            assert len(way.held) < HIGH_WATER + 2 * FLUSH_AT
        for end in self.ends["gate"].values():
            assert end.received <= self.ends["proxy"][end.stream.id].given

    async def finish(self) -> None:
        """Everybody reads, ends and goes; then nothing may be left."""
        for _ in range(200):
            for end in self.all():
                if end.side == "gate" and end.live and not end.answered:
                    end.respond()
                if end.may_send:
                    end.end()
                if end.may_read:
                    end.read()
            await self.pump()
            if self.torn:
                self.up.deliver(1 << 30)
                self.down.deliver(1 << 30)
            if all(end.saw_end and not end.sending for end in self.all()):
                break
        else:
            raise AssertionError("a reader or a sender never came to its end")
        await settle()
        assert not self.proxy.streams and not self.gate.streams
        assert self.proxy.buffered == self.gate.buffered == 0
        assert not self.proxy._held and not self.gate._held
        for end in self.all():
            assert end.stream.over
            assert end.reading is None and end.sending is None
            assert end.response is None or end.response.done()
            assert not end.stream._readable._waiters and not end.stream._writable._waiters
            other = self.other(end)
            if not self.torn and end.live and other is not None and other.live:
                assert end.received == other.given, "a body that ended was not whole"


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)
