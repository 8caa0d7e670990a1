"""One stream of a mux: a request one way, its response the other, each with its own credit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from saia_engine.wire import frames, messages
from saia_engine.wire.frames import Kind, WireError
from saia_engine.wire.messages import Head, Open, Reset, pack

if TYPE_CHECKING:
    from saia_engine.wire.mux import Mux

WINDOW = 256 * 1024
"""Bytes a sender may have under way on one stream before the receiver took them."""
SMALL = 1024
"""Pieces below this size are joined while they wait: kept apart, each would cost many times its bytes."""
LONGEST_TEXT = 1000


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


class Bell:
    """Wakes all who wait for it, once each time it rings."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._waiters = [other for other in self._waiters if other is not waiter]

    def ring(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class Stream:
    """One request and its response. Made by `Mux.open` (proxy) or handed to `on_open` (gate).

    One task at a time may send, and one receive.
    """

    def __init__(self, mux: Mux, stream_id: int, head: Open, *, ours: bool) -> None:
        self.id = stream_id
        self.request = head
        self.taken = ours
        """Gate: set before the first byte goes to the instance. Decides what an overflow is called."""
        self._ours = ours
        self._mux = mux
        self._response: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._taken = 0
        self._peer_ended = False
        self._ended = False
        self._answered = ours
        self._failure: StreamReset | None = None
        self._readable = Bell()
        self._credit = WINDOW
        self._writable = Bell()
        self.on_reset: Callable[[StreamReset], None] | None = None
        """Called once if anyone but `reset` ends the stream before both sides did."""
        self.on_writable: Callable[[], None] | None = None
        """Called when more may be sent again, after `send_some` sent less than it was given."""
        self.on_response: Callable[[Head], None] | None = None
        """Proxy: called once all of what came with the response's head is here."""
        self.on_data: Callable[[bytes], bool] | None = None
        """Offered what comes before it waits for `receive`; True where it was taken. Only while nothing waits."""

    @property
    def mux(self) -> Mux:
        return self._mux

    @property
    def connection(self) -> str:
        """Its name, where its owner gave it one."""
        return self._mux.name

    # -- sending

    def respond(self, head: Head) -> None:
        """Gate: send the response's head, once, before any `send`. Raises StreamReset."""
        self._check()
        if self._answered:
            raise RuntimeError("a second head, or one from the side that asks")
        self._answered = True
        self._mux.send_frame(Kind.HEAD, self.id, pack(head))

    async def send(self, data: bytes) -> None:
        """Send bytes of the body; waits for the peer's credit and the transport. Raises StreamReset."""
        sent = self.send_some(data)
        if sent < len(data):
            view = memoryview(data)
            while sent < len(data):
                await self._writable.wait()
                sent += self.send_some(view[sent:])

    def send_some(self, data: bytes | memoryview) -> int:
        """Send as many bytes of the body as the peer's credit and the transport allow now. Raises StreamReset.

        `on_writable` tells when there may be more.
        """
        self._check()
        self._check_may_send()
        size, sent = len(data), 0
        while sent < size:
            if self._credit <= 0 or self._mux.paused:
                self._mux.wake_on_resume(self)
                break
            many = min(size - sent, self._credit, frames.MAX_DATA)
            part = data if many == size else memoryview(data)[sent : sent + many]
            self._credit -= many
            sent += many
            self._mux.send_frame(Kind.DATA, self.id, part)
        return sent

    def end(self) -> None:
        """No more bytes from this side."""
        if self._failure is None and not self._ended:
            self._check_may_send()
            self._ended = True
            self._mux.send_frame(Kind.END, self.id)
            self._writable.ring()  # who is still sending learns that nothing more may be sent
            self._maybe_forget()
            self._mux.settle()

    def reset(self, code: str, text: str = "") -> None:
        """End the stream both ways and drop what was not received; harmless on one that is over."""
        if not self.over:
            self._mux.send_frame(Kind.RESET, self.id, pack(Reset(code, text[:LONGEST_TEXT])))
            self._fail(StreamReset(code, text), told=False)
        self._chunks.clear()
        self._release_buffer()

    # -- receiving

    async def response(self) -> Head:
        """Proxy: the response's head. Raises StreamReset."""
        while self._response is None:
            self._check()
            await self._readable.wait()
        return self._response

    async def receive(self) -> bytes:
        """The next bytes of the peer's body, b"" at its end. Raises StreamReset after what came before it."""
        while (data := self.receive_now()) is None:
            await self._readable.wait()
        return data

    def receive_now(self) -> bytes | None:
        """The same without waiting: None where nothing is here yet."""
        if not self._chunks:
            if self._peer_ended:
                return b""
            if self._failure is not None:
                raise self._failure
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._release_buffer()
        self._took(len(data))
        return data

    def _took(self, size: int) -> None:
        self._taken += size
        if self._taken >= WINDOW // 2 and not self._peer_ended and self._failure is None:
            self._mux.send_frame(Kind.CREDIT, self.id, self._taken.to_bytes(4, "big"))
            self._taken = 0

    def arrived(self) -> bytes | None:
        """All of the peer's body, where it is here to its end: nobody need wait for it."""
        if not self._peer_ended or self._failure is not None:
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._release_buffer()
        return data

    @property
    def over(self) -> bool:
        return self._failure is not None or (self._ended and self._peer_ended)

    def tell_response(self) -> None:
        """Of the mux, at the end of what came in one piece with the head."""
        if self._response is not None and self.on_response is not None:
            self.on_response(self._response)

    def wake(self) -> None:
        """More may be sent again."""
        self._writable.ring()
        if self.on_writable is not None:
            self.on_writable()

    # -- called by the mux

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_may_send(self) -> None:
        if self._failure is None and (self._ended or not self._answered):
            raise RuntimeError("a body before its head, or after its end")

    def _got_head(self, head: Head) -> None:
        if not self._ours or self._response is not None:
            raise WireError("a response's head out of place")
        self._response = head
        if self.on_response is not None:
            self._mux.answered(self)
        self._readable.ring()

    def _got_data(self, data: bytes) -> None:
        self._check_order("data")
        if not data:
            raise WireError("an empty piece of a body")
        if self._buffered + self._taken + len(data) > WINDOW:
            raise WireError("data beyond the stream's credit")
        if self.on_data is not None and not self._chunks and self.on_data(data):
            self._took(len(data))
            return
        self._buffered += len(data)
        self._mux.buffered += len(data)
        if self._chunks and len(data) < SMALL and len(self._chunks[-1]) < SMALL:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        if self._mux.buffered > self._mux.buffer_limit:
            self._overflow()
        else:
            self._readable.ring()

    def _overflow(self) -> None:
        code = messages.OVERFLOW if self.taken else messages.LIMIT
        failure = StreamReset(code, "the connection's buffers are full")
        self._mux.send_frame(Kind.RESET, self.id, pack(Reset(failure.code, failure.text)))
        self._chunks.clear()
        self._fail(failure)

    def _got_end(self) -> None:
        self._check_order("an end")
        self._peer_ended = True
        self._readable.ring()
        self._maybe_forget()

    def _check_order(self, what: str) -> None:
        if self._peer_ended:
            raise WireError(f"{what} after the end of a stream")
        if self._ours and self._response is None:
            raise WireError(f"{what} before the response's head")

    def _got_credit(self, payload: bytes) -> None:
        amount = int.from_bytes(payload, "big")
        if len(payload) != 4 or not amount:
            raise WireError("a credit of another form")
        self._credit += amount
        if self._credit > WINDOW:
            raise WireError("credit beyond the window")
        self.wake()

    def _fail(self, failure: StreamReset, told: bool = True) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._release_buffer()
        self._readable.ring()
        self._writable.ring()
        self._mux.forget(self)
        if told and self.on_reset is not None:
            self.on_reset(failure)

    def _release_buffer(self) -> None:
        self._mux.buffered -= self._buffered
        self._buffered = 0

    def _maybe_forget(self) -> None:
        if self._ended and self._peer_ended:
            self._mux.forget(self)
