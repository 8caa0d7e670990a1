"""uvicorn's HTTP connection, with bounds on a request's head, errors in JSON, and an end that clients notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from saia_engine.edge.logs import get_logger
from saia_proxy.errors import ApiError
from saia_proxy.exchange import CONNECTION, request_id

MAX_HEAD = 64 * 1024
HEAD_TIMEOUT_S = 30.0
CUT_FLUSH_S = 2.0
"""How long what the client has not read yet may take to leave before the connection is reset."""

_log = get_logger("access")


class Connection(HttpToolsProtocol):
    """Also the ClientConnection of its exchanges."""

    _head_open = True
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None
    _on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        if self._head_open and self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)
        self._head_size += len(data)
        super().data_received(data)
        if self._head_open and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(ApiError(431, "head_too_large", "The request's headers are too large."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[typeddict-item]

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._stop_head_timer()
        assert self.parser is not None, "it is calling us"
        if self.parser.should_upgrade() and self._body_announced():  # the parser skips such a body
            text = "No upgrade is possible here: send the request without the header 'Upgrade'."
            self._refuse(ApiError(400, "bad_http", text))
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_open = True
        self._head_size = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "bad_http", msg))

    def _unsupported_upgrade_warning(self) -> None:
        pass  # its advice is for programs that take WebSockets

    def _body_announced(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )

    def _refuse(self, error: ApiError) -> None:
        """What never becomes an exchange is answered and logged here."""
        answering = (
            self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        )
        if answering:  # the one before is still being sent: nothing may be written into it
            self.cut()
            return
        made = request_id(None)
        body = error.body()
        lines = [name + b": " + value + b"\r\n" for name, value in error.headers()]
        lines.append(b"x-request-id: %b\r\ncontent-length: %d\r\n" % (made.encode(), len(body)))
        self.transport.write(
            b"".join([STATUS_LINE[error.status], *lines, b"connection: close\r\n\r\n", body])
        )
        self.transport.close()
        client = self.client[0] if self.client else ""
        _log.info("request", request_id=made, client=client, status=error.status, outcome=error.code)

    def watch(self, on_lost: Callable[[], None] | None) -> None:
        self._on_lost = on_lost
        if on_lost is not None:
            self.flow.resume_reading()  # or the end of the connection would not be seen

    def cut(self) -> None:
        # The answer's last chunk or last announced byte is missing, so a plain close is no clean end.
        self.transport.close()
        self.loop.call_later(CUT_FLUSH_S, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
