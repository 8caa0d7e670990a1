"""One request tried at one instance after another; its timers and the client's leaving end the open stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from saia_engine.wire import messages
from saia_engine.wire.messages import Head, Open
from saia_engine.wire.mux import MuxClosed, Stream, StreamReset
from saia_engine.wire.sweeper import Sweeper
from saia_proxy.answer import SWITCHING, Answer
from saia_proxy.balancer import Target
from saia_proxy.body import Body
from saia_proxy.config import Timeouts
from saia_proxy.deadlines import Deadlines
from saia_proxy.errors import ApiError, ClientGone
from saia_proxy.exchange import Exchange
from saia_proxy.health import Use
from saia_proxy.upgrade import relay

RETRY_AT_ONCE_S = 1

_LOSSES = {
    messages.INSTANCE_LOST: "The instance was lost before it answered; it may have begun its work.",
    messages.TUNNEL_LOST: "The way to the cluster was lost before the answer; the work may have begun.",
    messages.BAD_RESPONSE: "The service gave an answer that is not HTTP.",
    messages.OVERFLOW: "The cluster's gate is overloaded; the work may have begun.",
}

_FAULTS_OF_INSTANCES = frozenset({messages.INSTANCE_LOST, messages.BAD_RESPONSE, messages.REFUSED})


class Opener(Protocol):
    """Where a request can be started: a tunnel."""

    def open(self, head: Open) -> Stream: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked, and for what there."""

    kind: str
    """`model` or `service`."""
    name: str
    path: str
    """As it is at the instance, without the query."""
    query: str

    @property
    def target(self) -> str:
        """As it goes on the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Attempt:
    """`at` one target at a time; `close` at the end."""

    def __init__(
        self, exchange: Exchange, asked: Asked, body: Body, timeouts: Timeouts, sweeper: Sweeper
    ) -> None:
        self._exchange = exchange
        self._asked = asked
        self._body = body
        self._timeouts = timeouts
        self._stream: Stream | None = None
        self._late = ""
        self._fault: Exception | None = None
        """Why the client's body could not be sent on."""
        self._opened_at = 0.0
        self._answer: Answer | None = None
        self._deadlines = Deadlines(sweeper, timeouts.total_s, self._expire)

    def close(self) -> None:
        self._deadlines.close()
        self._exchange.close()

    def client_gone(self) -> None:
        if self._stream is not None:
            self._stream.reset(messages.CANCELLED, "the client went away")

    async def at(self, target: Target, tunnel: Opener, use: Use) -> StreamReset | None:
        """None once the client has its answer or was cut off; the reset where the instance took nothing.

        Raises ApiError while nothing has been sent, ClientGone.
        """
        exchange = self._exchange
        try:
            stream = self._stream = tunnel.open(self._open(target))
        except MuxClosed as exc:
            return StreamReset(messages.CLOSING, str(exc))
        except StreamReset as reset:
            return self._not_taken(reset)
        exchange.relay = stream.connection
        upload: asyncio.Task[None] | None = None
        answer = self._answer = Answer(exchange, stream, use)
        try:
            self._opened_at = monotonic()
            self._deadlines.enter("to begin", self._left_to_begin_s)
            if exchange.upgradable:
                pass  # it has no body, and its stream stays open for what comes after the answer
            elif self._body.long:
                upload = asyncio.create_task(self._upload(stream))
            else:
                await self._body.send(stream)
            head = await stream.response()
        except StreamReset as reset:
            if self._speaks_against_it(reset):
                use.failed()
            return self._not_taken(reset)
        else:
            if upload is None or upload.done():
                self._body.drop()
            if head.status == SWITCHING:
                use.answered(head.status)
                use.may_be_silent()
                await self._relay(stream, head)
            else:
                await self._pass_on(answer, head, use)
            return None
        finally:
            answer.close()
            self._deadlines.leave()
            self._stream = self._answer = None
            if upload is not None:
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
            stream.reset(messages.CANCELLED)

    async def _upload(self, stream: Stream) -> None:
        try:
            await self._body.send(stream)
        except StreamReset:
            pass  # who waits for the response learns the same
        except Exception as fault:
            self._fault = fault
            stream.reset(messages.CANCELLED, "the body ended early")

    async def _pass_on(self, answer: Answer, head: Head, use: Use) -> None:
        exchange = self._exchange
        self._deadlines.enter("between two parts of its answer", self._left_idle_s)
        try:
            await answer.finish(head)
        except StreamReset as reset:
            exchange.outcome = self._why(reset)
            if self._speaks_against_it(reset):
                use.failed()
            if not exchange.gone:
                await exchange.cut()

    async def _relay(self, stream: Stream, head: Head) -> None:
        """A WebSocket: it may last as long as it is used and its instance serves."""
        exchange = self._exchange
        client = exchange.upgrade(head)
        idle_s = self._timeouts.idle_s
        self._deadlines.endless()
        self._deadlines.enter("while nobody said anything", lambda: client.moved_at + idle_s - monotonic())
        try:
            await relay(stream, client)
        except StreamReset as reset:
            exchange.outcome = self._why(reset)
        except ClientGone:
            exchange.outcome = "timeout" if self._late else "client_gone"
        finally:
            exchange.bytes_out = client.bytes_out
            exchange.hang_up()

    def _not_taken(self, reset: StreamReset) -> StreamReset:
        """The reset itself if the request may go to another target. Raises ApiError or ClientGone if not."""
        if self._exchange.gone:
            raise ClientGone
        if self._fault is not None:
            raise self._fault
        if self._late:
            raise ApiError(504, "timeout", f"The service took too long {self._late}.")
        if reset.code == messages.FORBIDDEN:
            raise ApiError(403, "forbidden", "The cluster does not allow this request.")
        if reset.not_taken and self._body.repeatable:
            return reset
        if reset.code == messages.LIMIT:
            text = "Too many requests are under way; please try again."
            raise ApiError(429, "too_many_requests", text, retry_after_s=RETRY_AT_ONCE_S)
        if reset.not_taken:
            text = "The instance went away before it took the request; please send it again."
            raise ApiError(503, "no_instance", text, retry_after_s=RETRY_AT_ONCE_S)
        code = reset.code if reset.code in _LOSSES else messages.INSTANCE_LOST
        raise ApiError(502, code, _LOSSES[code])

    def _speaks_against_it(self, reset: StreamReset) -> bool:
        """Whether it is the instance that failed: not its client, nor the way to it."""
        if self._exchange.gone or self._fault is not None:
            return False
        return bool(self._late) or reset.code in _FAULTS_OF_INSTANCES

    def _why(self, reset: StreamReset) -> str:
        if self._late:
            return "timeout"
        if self._exchange.gone:
            return "client_gone"
        if isinstance(self._fault, ApiError):
            return self._fault.code
        return reset.code if reset.code in messages.CODES else messages.INSTANCE_LOST

    def _open(self, target: Target) -> Open:
        exchange = self._exchange
        headers = exchange.head.forwarded
        if exchange.held:  # its answer has begun, without any encoding
            headers = [header for header in headers if header[0] != "accept-encoding"]
        if exchange.upgradable:
            headers = [*headers, ("connection", "Upgrade"), ("upgrade", "websocket")]
        return Open(
            target.instance,
            exchange.method,
            self._asked.target,
            headers,
            exchange.request_id,
            content_length=self._body.length,
            chunked=self._body.chunked,
        )

    def _left_to_begin_s(self) -> float:
        """As long as the client's body still comes, the answer is not late."""
        return max(self._opened_at, self._exchange.received_at) + self._timeouts.first_byte_s - monotonic()

    def _left_idle_s(self) -> float:
        """A client that reads slowly is not an idle instance."""
        since = self._answer.waiting_since if self._answer is not None else None
        return self._timeouts.idle_s + (since - monotonic() if since is not None else 0.0)

    def _expire(self, late: str) -> None:
        self._late = late
        if self._stream is not None:
            self._stream.reset(messages.CANCELLED, "timeout")
            if self._exchange.begun and (self._answer is None or self._answer.waiting_since is None):
                self._exchange.cut_off()  # stuck in a write to a client that does not read
