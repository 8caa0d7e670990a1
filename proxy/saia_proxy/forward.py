"""The way of one request: who may, to which instance, and back; moved on only where it was provably not taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

from saia_engine.wire.sweeper import Sweeper
from saia_proxy.admin import Orders
from saia_proxy.attempt import Asked, Attempt, Opener
from saia_proxy.body import SMALL, Body, Buffers, PassingBody, WholeBody
from saia_proxy.config import BY_KEY, ApiKey, Balancing, Timeouts
from saia_proxy.errors import ApiError
from saia_proxy.exchange import Exchange
from saia_proxy.keys import Keyring, may_reach, may_use
from saia_proxy.metrics import Metrics
from saia_proxy.queue import Queue
from saia_proxy.quota import Quotas
from saia_proxy.routing import Offer, RoutingTable
from saia_proxy.visit import RETRY_STARTING_S, Visit
from saia_proxy.wanted import wanted_model, wants_events

RETRY_MAINTENANCE_S = 30

SERVICES = "/services/"


class Forwarder:
    def __init__(
        self,
        *,
        keys: Keyring,
        table: RoutingTable,
        tunnels: Mapping[str, Opener],
        orders: Orders,
        timeouts: Timeouts,
        balancing: Balancing,
        quotas: Quotas,
        queue: Queue,
        metrics: Metrics,
        max_body: int,
        buffers: Buffers,
    ) -> None:
        self._keys = keys
        self._table = table
        self._tunnels = tunnels
        self._orders = orders
        self._timeouts = timeouts
        self._balancing = balancing
        self._quotas = quotas
        self._queue = queue
        self._metrics = metrics
        self._max_body = max_body
        self._buffers = buffers
        self._sweeper = Sweeper()

    async def to_model(self, exchange: Exchange) -> None:
        """Answers a request that names its model. Raises ApiError while nothing has been sent, ClientGone."""
        key = self._admit(exchange)
        body = WholeBody(self._buffers)
        try:
            await body.read(exchange, limit=self._max_body, timeout_s=self._timeouts.total_s)
            content_type = exchange.header(b"content-type")
            model = await wanted_model(content_type, body.data, exchange.query.encode("latin-1"))
            exchange.model = model
            if not may_use(key, model):
                raise ApiError(
                    403, "model_not_allowed", "This API key may not use this model.", param="model"
                )
            with self._quotas.admit(key):
                asked = Asked("model", model, exchange.raw_path, exchange.query)
                await self._send(exchange, asked, body, lambda: wants_events(content_type, body.data))
        finally:
            body.drop()

    async def to_service(self, exchange: Exchange) -> None:
        """Answers a request below /services/NAME. Raises ApiError while nothing has been sent, ClientGone."""
        key = self._admit(exchange)
        name, slash, rest = exchange.raw_path.removeprefix(SERVICES).partition("/")
        if not slash:
            raise ApiError(404, "unknown_url", f"The paths of a service begin with {SERVICES}NAME/.")
        exchange.service = name
        if not may_reach(key, name):
            raise ApiError(403, "service_not_allowed", "This API key may not reach this service.")
        asked = Asked("service", name, f"/{rest}", exchange.query)
        self._offer(exchange, asked)  # known before a long body is asked for
        with self._quotas.admit(key):
            body = await self._passing(exchange)
            try:
                await self._send(exchange, asked, body)
            finally:
                body.drop()

    def _admit(self, exchange: Exchange) -> ApiKey:
        key = self._keys.admit(exchange)
        if self._orders.maintenance:
            text = "This proxy is in maintenance."
            raise ApiError(503, "maintenance", text, retry_after_s=RETRY_MAINTENANCE_S)
        return key

    async def _passing(self, exchange: Exchange) -> Body:
        limit, length = self._max_body, exchange.content_length
        if exchange.announces_body and (length is None or length > SMALL):
            return PassingBody(exchange, self._buffers, limit=limit, idle_s=self._timeouts.idle_s)
        body = WholeBody(self._buffers)
        try:
            await body.read(exchange, limit=limit, timeout_s=self._timeouts.total_s)
        except BaseException:
            body.drop()
            raise
        return body

    async def _send(
        self, exchange: Exchange, asked: Asked, body: Body, events: Callable[[], bool] = lambda: False
    ) -> None:
        """`events`: whether its client asked for an event stream."""
        attempt = Attempt(exchange, asked, body, self._timeouts, self._sweeper)
        visit = Visit(
            self._queue,
            exchange,
            asked.kind,
            find=lambda: self._offer(exchange, asked),
            affinity=self._affinity(exchange),
            events=events,
        )

        def gone() -> None:
            attempt.client_gone()
            visit.wake()

        exchange.watch(gone)
        try:
            await self._until_taken(exchange, attempt, visit)
        finally:
            attempt.close()

    async def _until_taken(self, exchange: Exchange, attempt: Attempt, visit: Visit) -> None:
        while True:
            place = await visit.place()
            target = place.target
            exchange.instance, exchange.service = target.instance, target.service
            exchange.taken_at = monotonic()
            with place as use:
                reset = await attempt.at(target, self._tunnels[target.upstream], use)
                if reset is None:
                    return
                visit.not_taken(target, reset.code)
                self._metrics.not_taken(reset.code)

    def _affinity(self, exchange: Exchange) -> bytes:
        """What binds a client's requests to one instance."""
        if self._balancing.affinity == BY_KEY:
            return exchange.key.encode()
        if self._balancing.affinity:
            return exchange.header(self._balancing.affinity.encode()) or b""
        return b""

    def _offer(self, exchange: Exchange, asked: Asked) -> Offer:
        """Raises ApiError where it does not exist, or does not take this path."""
        offers = self._table.models if asked.kind == "model" else self._table.services
        offer = offers.get(asked.name)
        if offer is None:
            if self._table.complete:
                text, param = f"This {asked.kind} does not exist.", "model" if asked.kind == "model" else None
                raise ApiError(404, f"{asked.kind}_not_found", text, param=param)
            text = "The cluster cannot be reached; please try again."
            raise ApiError(503, "upstream_unavailable", text, retry_after_s=RETRY_STARTING_S)
        allowing = offer.allowing(exchange.method, asked.path)
        if not allowing.services:
            if methods := offer.methods(asked.path):
                text = f"This {asked.kind} takes {' or '.join(methods)} on this path."
                raise ApiError(405, "method_not_allowed", text, allow=methods)
            raise ApiError(404, "unknown_url", f"This {asked.kind} does not take this path.")
        return allowing
