"""The way of one request: who may, to which instance, and back; moved on only where it was provably not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Protocol

import msgspec

from saia_engine.wire import messages
from saia_engine.wire.messages import Head, Open
from saia_engine.wire.mux import WINDOW, MuxClosed, Stream, StreamReset
from saia_proxy.admin import Maintenance
from saia_proxy.balancer import Target
from saia_proxy.config import BY_KEY, Balancing, Timeouts
from saia_proxy.errors import ApiError
from saia_proxy.exchange import ClientGone, Exchange
from saia_proxy.health import Use
from saia_proxy.keys import Keyring, may
from saia_proxy.metrics import Metrics
from saia_proxy.quota import Quotas
from saia_proxy.routing import Offer, RoutingTable

PATIENCE_S = 2.0
"""How long a request waits for an instance when none is left."""
LOOK_AGAIN_S = 0.1
RETRY_STARTING_S = 5
RETRY_NONE_S = 15
RETRY_MAINTENANCE_S = 30

_NOT_FORWARDED = frozenset(
    b"authorization connection content-length expect host keep-alive proxy-authorization proxy-connection te"
    b" trailer transfer-encoding upgrade x-request-id".split()
)
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


class _Wanted(msgspec.Struct):
    model: str


_wanted = msgspec.json.Decoder(_Wanted)


def wanted_model(body: bytes) -> str:
    """The model that a JSON body asks for; nothing else in it is looked at. Raises ApiError (400)."""
    try:
        return _wanted.decode(body).model
    except msgspec.ValidationError:
        text = "The body must be a JSON object whose 'model' is a string."
        raise ApiError(400, "model_missing", text, param="model") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ApiError(400, "invalid_json", "The body is not JSON.") from None


class Forwarder:
    def __init__(
        self,
        *,
        keys: Keyring,
        table: RoutingTable,
        tunnels: Mapping[str, Opener],
        maintenance: Maintenance,
        timeouts: Timeouts,
        balancing: Balancing,
        quotas: Quotas,
        metrics: Metrics,
        max_body: int,
    ) -> None:
        self._keys = keys
        self._table = table
        self._tunnels = tunnels
        self._maintenance = maintenance
        self._timeouts = timeouts
        self._balancing = balancing
        self._quotas = quotas
        self._metrics = metrics
        self._max_body = max_body

    async def forward(self, exchange: Exchange) -> None:
        """Answers the exchange. Raises ApiError while nothing has been sent, ClientGone."""
        key = self._keys.admit(exchange.header(b"authorization"))
        exchange.key = key.name
        if self._maintenance.on:
            text = "This proxy is in maintenance."
            raise ApiError(503, "maintenance", text, retry_after_s=RETRY_MAINTENANCE_S)
        body = await exchange.read_body(self._max_body, self._timeouts.total_s)
        model = wanted_model(body)
        exchange.model = model
        if not may(key, model):
            raise ApiError(403, "model_not_allowed", "This API key may not use this model.", param="model")
        with self._quotas.admit(key):
            await self._carry(exchange, body)

    async def _carry(self, exchange: Exchange, body: bytes) -> None:
        attempt = _Attempt(exchange, body, self._timeouts)
        exchange.watch(attempt.client_gone)
        try:
            await self._until_taken(exchange, attempt)
        finally:
            attempt.close()

    async def _until_taken(self, exchange: Exchange, attempt: _Attempt) -> None:
        loop = asyncio.get_running_loop()
        tried: set[Target] = set()
        give_up_at = 0.0
        affinity = self._affinity(exchange)
        while True:
            offer = self._offer(exchange)
            target = self._table.choose(offer, tried, affinity)
            if exchange.gone:
                raise ClientGone
            if target is None:
                give_up_at = give_up_at or loop.time() + PATIENCE_S
                if loop.time() >= give_up_at:
                    retry_s = RETRY_STARTING_S if offer.starting else RETRY_NONE_S
                    text = "No instance of this model is ready; please try again."
                    raise ApiError(503, "no_instance", text, retry_after_s=retry_s)
                with self._table.waiting(offer), self._metrics.queued.labels(offer.name).track_inprogress():
                    await self._table.changed(LOOK_AGAIN_S)
                tried.clear()
                continue
            tried.add(target)
            exchange.instance = target.instance
            exchange.taken_at = monotonic()
            with self._table.use(target) as use:
                reset = await attempt.at(target, self._tunnels[target.upstream], use)
            if reset is None:
                return
            self._table.not_taken(target, reset.code)
            self._metrics.not_taken(reset.code)

    def _affinity(self, exchange: Exchange) -> bytes:
        """What binds a client's requests to one instance."""
        if self._balancing.affinity == BY_KEY:
            return exchange.key.encode()
        if self._balancing.affinity:
            return exchange.header(self._balancing.affinity.encode()) or b""
        return b""

    def _offer(self, exchange: Exchange) -> Offer:
        """Raises ApiError where the model does not exist, or does not take this path."""
        offer = self._table.offers.get(exchange.model)
        if offer is None:
            if self._table.complete:
                text = "This model does not exist."
                raise ApiError(404, "model_not_found", text, param="model")
            text = "The cluster cannot be reached; please try again."
            raise ApiError(503, "upstream_unavailable", text, retry_after_s=RETRY_STARTING_S)
        allowing = offer.allowing(exchange.method, exchange.raw_path)
        if not allowing.services:
            raise ApiError(404, "unknown_url", f"This model does not take {exchange.method} on this path.")
        return allowing


class _Attempt:
    """Tries one request at one target after another; its timers and the client's leaving end the open stream."""

    def __init__(self, exchange: Exchange, body: bytes, timeouts: Timeouts) -> None:
        self._exchange = exchange
        self._body = body
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._late = ""
        self._waiting_since: float | None = None
        self._total = self._loop.call_later(timeouts.total_s, self._expire, "in all")
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        self._total.cancel()
        self._disarm()
        self._exchange.close()

    def client_gone(self) -> None:
        if self._stream is not None:
            self._stream.reset(messages.CANCELLED, "the client went away")

    async def at(self, target: Target, tunnel: Opener, use: Use) -> StreamReset | None:
        """None once the client has its answer or was cut off; the reset where the instance took nothing.

        Raises ApiError while nothing has been sent, ClientGone.
        """
        try:
            stream = self._stream = tunnel.open(self._open(target))
        except MuxClosed as exc:
            return StreamReset(messages.CLOSING, str(exc))
        except StreamReset as reset:
            return self._not_taken(reset)
        upload: asyncio.Task[None] | None = None
        try:
            self._timer = self._loop.call_later(self._timeouts.first_byte_s, self._expire, "to begin")
            if len(self._body) > WINDOW:  # the answer may come before all of it has gone
                upload = asyncio.create_task(_upload(stream, self._body))
            else:
                await stream.send(self._body)
                stream.end()
            head = await stream.response()
        except StreamReset as reset:
            if self._speaks_against_it(reset):
                use.failed()
            return self._not_taken(reset)
        else:
            use.answered(head.status)
            await self._answer(stream, head, use)
            return None
        finally:
            self._disarm()
            self._stream = None
            if upload is not None:
                upload.cancel()
            stream.reset(messages.CANCELLED)

    async def _answer(self, stream: Stream, head: Head, use: Use) -> None:
        exchange, now = self._exchange, self._loop.time
        self._disarm()
        await exchange.start(head)
        self._waiting_since = now()
        self._timer = self._loop.call_later(self._timeouts.idle_s, self._look_at_idle)
        try:
            while data := await stream.receive():
                self._waiting_since = None
                use.heard()
                await exchange.write(data)
                self._waiting_since = now()
        except StreamReset as reset:
            exchange.outcome = self._why(reset)
            if self._speaks_against_it(reset):
                use.failed()
            if not exchange.gone:
                await exchange.cut()
        else:
            await exchange.end()

    def _not_taken(self, reset: StreamReset) -> StreamReset:
        """The reset itself if the request may go to another target. Raises ApiError or ClientGone if not."""
        if self._exchange.gone:
            raise ClientGone
        if self._late:
            raise ApiError(504, "timeout", f"The service took too long {self._late}.")
        if reset.code == messages.LIMIT:
            text = "Too many requests are under way; please try again."
            raise ApiError(429, "too_many_requests", text, retry_after_s=1)
        if reset.code == messages.FORBIDDEN:
            raise ApiError(403, "forbidden", "The cluster does not allow this request.")
        if reset.not_taken:
            return reset
        code = reset.code if reset.code in _LOSSES else messages.INSTANCE_LOST
        raise ApiError(502, code, _LOSSES[code])

    def _speaks_against_it(self, reset: StreamReset) -> bool:
        """Whether it is the instance that failed: not its client, nor the way to it."""
        if self._exchange.gone:
            return False
        return bool(self._late) or reset.code in _FAULTS_OF_INSTANCES

    def _why(self, reset: StreamReset) -> str:
        if self._late:
            return "timeout"
        return "client_gone" if self._exchange.gone else reset.code

    def _open(self, target: Target) -> Open:
        exchange = self._exchange
        # Connection names further headers of this hop (RFC 9110, 7.6.1).
        hop = exchange.header(b"connection") or b""
        dropped = _NOT_FORWARDED.union(hop.lower().replace(b",", b" ").split())
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in exchange.scope["headers"]
            if name not in dropped and not name.startswith(b"x-saia-")
        ]
        return Open(
            target.instance,
            exchange.method,
            exchange.target,
            headers,
            exchange.request_id,
            content_length=len(self._body),
        )

    def _look_at_idle(self) -> None:
        """A client that reads slowly is not an idle instance."""
        idle_s, now = self._timeouts.idle_s, self._loop.time()
        left_s = idle_s if self._waiting_since is None else self._waiting_since + idle_s - now
        if left_s <= 0:
            self._expire("between two parts of its answer")
        else:
            self._timer = self._loop.call_later(left_s, self._look_at_idle)

    def _expire(self, late: str) -> None:
        self._late = late
        if self._stream is not None:
            self._stream.reset(messages.CANCELLED, "timeout")
            if self._exchange.begun and self._waiting_since is None:
                self._exchange.cut_off()  # stuck in a write to a client that does not read

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def _upload(stream: Stream, body: bytes) -> None:
    try:
        await stream.send(body)
        stream.end()
    except StreamReset:
        pass  # who waits for the response learns the same
