"""uvicorn's HTTP connection, taught to end an answer so that the client notices, and to refuse in JSON."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from saia_proxy.errors import ApiError
from saia_proxy.exchange import CUT

CUT_FLUSH_S = 2.0
"""How long what the client has not read yet may take to leave before the connection is reset."""


class Connection(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT: self._cut}  # type: ignore[typeddict-item]

    def _cut(self) -> None:
        # The answer's last chunk or last announced byte is missing, so a plain close is no clean end.
        self.transport.close()
        self.loop.call_later(CUT_FLUSH_S, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        error = ApiError(400, "bad_http", msg)
        body = error.body()
        lines = [name + b": " + value + b"\r\n" for name, value in error.headers()]
        lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join([STATUS_LINE[400], *lines, body]))
        self.transport.close()
