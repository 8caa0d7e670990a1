"""An instance's answer on its way to the client: in the callbacks in which it comes, as long as the client takes it."""

from __future__ import annotations

from time import monotonic

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream
from saia_proxy.exchange import Exchange
from saia_proxy.health import Use

SWITCHING = 101


class Answer:
    """`arrived` and `offered` are the stream's to call; the request's task awaits `finish` for all that they left."""

    def __init__(self, exchange: Exchange, stream: Stream, use: Use) -> None:
        self.waiting_since: float | None = None
        """By the monotonic clock; None while the client keeps it waiting, or before it begins."""
        self._exchange = exchange
        self._stream = stream
        self._use = use
        self._begun = self._over = False
        self._fault: Exception | None = None
        stream.on_response = self.arrived

    def arrived(self, head: Head) -> None:
        """The head is here, with all that came with it."""
        if head.status == SWITCHING:
            return
        stream = self._stream
        try:
            self._begin(head)
            while not self._exchange.stuck and (data := stream.receive_now()) is not None:
                if not data:
                    self._end()
                    return
                self._pass(data)
        except Exception as fault:
            self._fault = fault
        else:
            stream.on_data = self.offered

    def offered(self, data: bytes) -> bool:
        if self._fault is not None or self._exchange.stuck:
            return False
        try:
            self._pass(data)
        except Exception as fault:
            self._fault = fault
            return False
        return True

    async def finish(self, head: Head) -> None:
        """Returns once the client has all of it. Raises ApiError (502) for what HTTP can't carry, StreamReset."""
        if not (self._begun or self._fault):
            self.arrived(head)
        while not self._over:
            if self._fault is not None:
                raise self._fault
            if self._exchange.stuck:
                self.waiting_since = None
                await self._exchange.drain()
                self.waiting_since = monotonic()
            data = await self._stream.receive()
            if self._fault is not None:
                raise self._fault
            if data:
                self._pass(data)
            else:
                self._end()

    def close(self) -> None:
        """Nothing more is passed on."""
        self._stream.on_response = self._stream.on_data = None

    def _begin(self, head: Head) -> None:
        self._begun = True
        self._use.answered(head.status)
        self._exchange.start(head)
        self.waiting_since = self._exchange.answered_at

    def _pass(self, data: bytes) -> None:
        self._use.heard()
        self._exchange.write(data)
        self.waiting_since = monotonic()

    def _end(self) -> None:
        self._exchange.end()
        self._over = True
