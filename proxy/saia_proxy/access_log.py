"""One line for each request; those of requests that end in one turn of the event loop are written at once."""

from __future__ import annotations

import asyncio
from time import monotonic

from saia_engine.edge.logs import info_line, write_lines
from saia_proxy.errors import ApiError
from saia_proxy.exchange import Exchange

_waiting: list[bytes] = []


def finished(exchange: Exchange) -> None:
    """Its line, without a byte of its bodies."""
    _add(
        request_id=exchange.request_id,
        client=exchange.client,
        key=exchange.key,
        method=exchange.method,
        path=exchange.raw_path,
        model=exchange.model,
        service=exchange.service,
        instance=exchange.instance,
        relay=exchange.relay,
        status=exchange.status,
        outcome=exchange.outcome,
        ms=round((monotonic() - exchange.began_at) * 1000, 1),
        bytes=exchange.bytes_out,
    )


def refused(request_id: str, client: str, error: ApiError) -> None:
    """The line of what never became an exchange."""
    _add(request_id=request_id, client=client, status=error.status, outcome=error.code)


def flush() -> None:
    """At the end of the process: no turn of the loop may follow."""
    write_lines(b"".join(_waiting))
    _waiting.clear()


def _add(**fields: object) -> None:
    if not _waiting:
        asyncio.get_running_loop().call_soon(flush)
    _waiting.append(info_line("access", "request", **fields))
