"""One line for each request, without a byte of its bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from saia_engine.edge.logs import info_lines
from saia_proxy.errors import ApiError
from saia_proxy.exchange import Exchange


def finished(exchanges: Iterable[Exchange]) -> None:
    _write([_row(exchange) for exchange in exchanges])


def refused(request_id: str, client: str, error: ApiError) -> None:
    """The line of what never became an exchange."""
    _write([{"request_id": request_id, "client": client, "status": error.status, "outcome": error.code}])


def _row(exchange: Exchange) -> dict[str, object]:
    return {
        "request_id": exchange.request_id,
        "client": exchange.client,
        "key": exchange.key,
        "method": exchange.method,
        "path": exchange.raw_path,
        "model": exchange.model,
        "service": exchange.service,
        "instance": exchange.instance,
        "relay": exchange.relay,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "ms": round((exchange.ended_at - exchange.began_at) * 1000, 1),
        "bytes": exchange.bytes_out,
    }


def _write(rows: Iterable[Mapping[str, object]]) -> None:
    info_lines("access", "request", rows)
