"""uvicorn's HTTP connection, with bounds on a request's head, errors in JSON, and an end that clients notice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from saia_engine.edge.logs import get_logger
from saia_proxy.corked import Corked
from saia_proxy.errors import ApiError
from saia_proxy.exchange import CONNECTION, request_id
from saia_proxy.upgrade import RawClient

MAX_HEAD = 64 * 1024
HEAD_TIMEOUT_S = 30.0
CUT_FLUSH_S = 2.0
"""How long what the client has not read yet may take to leave before the connection is reset."""
HANG_UP_S = 10.0
"""How long a client may take to read what a WebSocket's end left for it, and to end its own side."""

_log = get_logger("access")


class Connection(HttpToolsProtocol):
    """Also the ClientConnection of its exchanges."""

    _head_open = True
    _head_size = 0
    _head_timer: asyncio.TimerHandle | None = None
    _on_lost: Callable[[], None] | None = None
    _taken_over = _hung_up = False
    _raw: RawClient | None = None
    """From the head of a WebSocket's request on: what follows it is no HTTP. If the service refuses it, the
    connection ends with that answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = Corked(transport, self.loop)  # type: ignore[assignment]
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._raw is not None:
            self._raw.lost()
        if self._on_lost is not None:
            self._on_lost()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._raw is None or not self._taken_over or self._hung_up:
            return None
        self._raw.ended()
        return self.scheme == "http"  # may still be written to; TLS has no half of an end

    def data_received(self, data: bytes) -> None:
        if self._raw is not None:
            self._raw.feed(data)
            return
        if self._head_open and self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)
        self._head_size += len(data)
        self._unset_keepalive_if_required()
        assert self.parser is not None, "it is there until the connection is lost"
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._raw is not None:
                self._raw.feed(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._head_open and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(ApiError(431, "head_too_large", "The request's headers are too large."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[typeddict-item]

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._stop_head_timer()
        assert self.parser is not None, "it is calling us"
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self._body_announced():  # the parser skips such a body
            text = "No upgrade is possible here: send the request without the header 'Upgrade'."
            self._refuse(ApiError(400, "bad_http", text))
        elif self._asks_for_websocket():
            if self.cycle is not None and not self.cycle.response_complete:
                self.cut()  # sent behind another request: which bytes are whose could not be told
                return
            self._raw = RawClient(self.transport, self.flow)
            super().on_headers_complete()
            self.cycle.keep_alive = False
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return  # it was refused
        self._head_open = True
        self._head_size = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, "bad_http", msg))

    @property
    def upgradable(self) -> bool:
        return self._raw is not None

    def take_over(self, head: bytes) -> RawClient:
        assert self._raw is not None, "only what is upgradable is taken over"
        # Nothing more of uvicorn's is written.
        self.cycle.response_started = self.cycle.response_complete = True
        self._taken_over = True
        self.transport.write(head)
        return self._raw

    def hang_up(self) -> None:
        assert self._raw is not None, "only what is upgradable is taken over"
        self._hung_up = True
        self._raw.ended()
        if self.transport.is_closing():
            return
        # Read on a while: closed with bytes unread, the kernel would take back what the client has not read yet.
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(HANG_UP_S, self.transport.abort)

    def _asks_for_websocket(self) -> bool:
        assert self.parser is not None, "it is calling us"
        plain = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return plain and self._get_upgrade() == b"websocket"

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
