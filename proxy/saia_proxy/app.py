"""Which path goes where, one way out for every error, one log line for every request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from saia_engine.edge.logs import get_logger
from saia_proxy.admin import Orders
from saia_proxy.errors import ApiError, ClientGone
from saia_proxy.exchange import Exchange
from saia_proxy.forward import SERVICES, Forwarder
from saia_proxy.forwarded import FORWARDED_FOR
from saia_proxy.keys import Keyring, may_use
from saia_proxy.metrics import CONTENT_TYPE, Metrics
from saia_proxy.records import Records
from saia_proxy.routing import Offer, RoutingTable
from saia_proxy.telemetry import Telemetry

CLIENT_GONE_STATUS = 499
_OF_OPERATORS = frozenset({"/healthz", "/metrics"})
_JSON = ((b"content-type", b"application/json"),)


class App:
    def __init__(
        self,
        *,
        forwarder: Forwarder,
        keys: Keyring,
        table: RoutingTable,
        orders: Orders,
        metrics: Metrics,
        telemetry: Telemetry,
        records: Records,
        scrapers: Sequence[str],
        trusts: bool,
        upstreams: int,
    ) -> None:
        self._forwarder = forwarder
        self._keys = keys
        self._table = table
        self._orders = orders
        self._metrics = metrics
        self._telemetry = telemetry
        self._records = records
        self._trusts = trusts
        self._scrapers = tuple(ip_network(network) for network in scrapers)
        self._upstreams = upstreams
        self._log = get_logger("app")

    async def __call__(self, exchange: Exchange) -> None:
        self._telemetry.begin(exchange)
        self._records.began()
        try:
            await self._serve(exchange)
        except ApiError as error:
            await self._refuse(exchange, error)
        except ClientGone:
            exchange.status, exchange.outcome = CLIENT_GONE_STATUS, "client_gone"
        except asyncio.CancelledError:
            exchange.outcome = "shutdown"
            exchange.cut_off()
            raise
        except Exception:
            self._log.exception("a fault of the proxy", request_id=exchange.request_id)
            await self._refuse(
                exchange, ApiError(500, "internal_error", "The proxy failed; its log says why.")
            )
        finally:
            exchange.close()
            self._records.ended(exchange, told=exchange.raw_path not in _OF_OPERATORS)

    async def _serve(self, exchange: Exchange) -> None:
        path, method = exchange.raw_path, exchange.method
        if path == "/healthz":
            _only(method, "GET", "HEAD")
            await self._health(exchange)
        elif path == "/metrics" and self._may_scrape(exchange):
            _only(method, "GET", "HEAD")
            self._records.flush()
            await exchange.answer(200, self._metrics.text(), ((b"content-type", CONTENT_TYPE),))
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            _only(method, "GET", "HEAD")
            await self._models(exchange, exchange.path.removeprefix("/v1/models").removeprefix("/"))
        elif path.startswith("/v1/"):
            await self._forwarder.to_model(exchange)
        elif path.startswith(SERVICES):
            await self._forwarder.to_service(exchange)
        else:
            raise ApiError(404, "unknown_url", "There is nothing at this path.")

    def _may_scrape(self, exchange: Exchange) -> bool:
        """By the client's own address: one that came through a proxy which is not trusted is nobody's."""
        if exchange.header(FORWARDED_FOR) is not None and not self._trusts:
            return False
        try:
            address = ip_address(exchange.client)
        except ValueError:
            return False
        return any(address in network for network in self._scrapers)

    async def _health(self, exchange: Exchange) -> None:
        """For load balancers; unauthenticated, so it holds counts and no names."""
        connected = self._table.connected
        state = {
            "status": "ok" if connected else "no upstream is connected",
            "maintenance": self._orders.maintenance,
            "upstreams": {"connected": connected, "configured": self._upstreams},
            "in_flight": self._table.in_flight,
        }
        await exchange.answer(200 if connected else 503, msgspec.json.encode(state), _JSON)

    async def _models(self, exchange: Exchange, wanted: str) -> None:
        """All models that the key may use, or the one that is wanted."""
        key = self._keys.admit(exchange)
        exchange.model = wanted
        models = [_model(offer) for name, offer in self._table.models.items() if may_use(key, name)]
        answer: Any = {"object": "list", "data": models}
        if wanted:
            answer = next((model for model in models if model["id"] == wanted), None)
        if answer is None:
            raise ApiError(404, "model_not_found", "This model does not exist.", param="model")
        await exchange.answer(200, msgspec.json.encode(answer), _JSON)

    async def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        exchange.outcome = error.code
        if exchange.begun:
            exchange.cut_off()
        else:
            await exchange.answer(error.status, error.body(), error.headers())


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise ApiError(405, "method_not_allowed", f"This path takes {' or '.join(allowed)}.", allow=allowed)


def _model(offer: Offer) -> dict[str, Any]:
    saia = {
        "state": offer.state,
        "ready": offer.ready,
        "starting": offer.starting,
        "queued": offer.queued,
        "replicas": offer.replicas,
        "eta": offer.eta,
    }
    return {"id": offer.name, "object": "model", "created": 0, "owned_by": "saia", "saia": saia}
