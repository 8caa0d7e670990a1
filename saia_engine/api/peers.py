"""Who is at the other end of a Unix socket: the kernel's word, in each request's scope."""

from __future__ import annotations

import asyncio
import socket
import struct

from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from saia_engine.api.port import Refused

_CREDENTIALS = struct.Struct("iII")
_NOBODY = 0xFFFFFFFF
"""What the kernel says where it knows no uid."""


class PeerProtocol(H11Protocol):
    """uvicorn's HTTP with the peer's uid in `request.state`. No uid, no request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        uid = _peer_uid(transport)
        if uid is None:
            transport.abort()
            return
        self.app_state = {**self.app_state, "uid": uid}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.transport is not None:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            super().connection_lost(exc)


def caller(request: Request) -> int:
    """The uid of the request's process. Raises Refused without one."""
    uid = getattr(request.state, "uid", None)
    if not isinstance(uid, int):
        raise Refused("not_allowed", "the kernel did not say who you are", 403)
    return uid


def _peer_uid(transport: asyncio.BaseTransport) -> int | None:
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return None
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return None if uid == _NOBODY else uid
