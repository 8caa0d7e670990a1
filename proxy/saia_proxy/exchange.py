"""One client's request and the answer to it, written straight to ASGI: every byte goes through here."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from saia_engine.wire.messages import Head
from saia_proxy.errors import ApiError

CUT = "saia.cut"
"""ASGI extension: ends the connection so that the client can't take it for a whole answer."""
LINGER_S = 2.0
"""How long a refused body is read and thrown away, so that the client gets to read the refusal."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")
_OURS = frozenset(
    {"x-request-id", "date", "server", "connection", "keep-alive", "transfer-encoding", "upgrade"}
)

_EVENT_STREAM = "text/event-stream"
_BODYLESS = frozenset({204, 304})

Message = dict[str, Any]


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class Exchange:
    """`begun` once a byte of the answer may have gone out; from then on the only other end is `cut`."""

    def __init__(self, scope: Message, receive: Callable[[], Any], send: Callable[[Message], Any]) -> None:
        self.scope = scope
        self.began_at = monotonic()
        self.status = 0
        self.bytes_out = self.events = 0
        self.taken_at: float | None = None
        self.answered_at: float | None = None
        self.begun = False
        self.gone = False
        self.outcome = "ok"
        self.key = self.model = self.instance = ""
        self._receive = receive
        self._send = send
        self._is_events = False
        self._watcher: asyncio.Task[None] | None = None
        given = self.header(b"x-request-id")
        usable = given is not None and _REQUEST_ID.fullmatch(given)
        self.request_id = given.decode() if given and usable else f"req_{secrets.token_hex(12)}"

    @property
    def method(self) -> str:
        return self.scope["method"]

    @property
    def raw_path(self) -> str:
        """As the client wrote it, without the query."""
        return self.scope["raw_path"].decode("latin-1")

    @property
    def target(self) -> str:
        """Path and query as they go on a request line."""
        query = self.scope["query_string"]
        return f"{self.raw_path}?{query.decode('latin-1')}" if query else self.raw_path

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    async def read_body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body. Raises ApiError (413, 408) as soon as it is known, ClientGone."""
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _too_large(limit)
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise ApiError(408, "request_timeout", "The request's body did not arrive in time.") from None

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Once the body is read: call back when the client goes away before its answer is complete."""

        async def wait() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self.gone = True
            on_gone()

        self._watcher = asyncio.create_task(wait())

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def start(self, head: Head) -> None:
        """The instance's status and headers. Raises ApiError (502) for what HTTP can't carry."""
        if not 200 <= head.status <= 599:
            raise ApiError(502, "bad_response", "The service gave an answer that is not HTTP.")
        headers = [(b"x-request-id", self.request_id.encode())]
        # uvicorn wants as many bytes as announced, and these have none whatever they announce
        dropped = _OURS | {"content-length"} if head.status in _BODYLESS else _OURS
        for name, value in head.headers:
            if name.lower() not in dropped and _HEADER_NAME.fullmatch(name) and not _BAD_VALUE.search(value):
                headers.append((name.encode(), value.encode("latin-1")))
                if value.startswith(_EVENT_STREAM) and name.lower() == "content-type":
                    self._is_events = True
        self.begun = True
        self.answered_at = monotonic()
        self.status = head.status
        await self._send({"type": "http.response.start", "status": head.status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Waits while the client reads slowly."""
        self.bytes_out += len(data)
        if self._is_events:
            self.events += data.count(b"\n\n")
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """An answer of our own; nothing may have been sent before."""
        unread = status in (408, 413)
        sent = [*headers, (b"x-request-id", self.request_id.encode()), (b"content-length", b"%d" % len(body))]
        if unread:
            sent.append((b"connection", b"close"))
        self.begun = True
        self.status, self.bytes_out = status, len(body)
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await self._discard()
            await self.end()

    async def cut(self) -> None:
        """End the connection in a way that no client takes for the end of the answer."""
        self.cut_off()
        if self._watcher is not None:
            await self._watcher

    def cut_off(self) -> None:
        """The same without waiting until the connection is closed."""
        self.scope["extensions"][CUT]()

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while (message := await self._receive())["type"] != "http.disconnect" and message.get(
                    "more_body"
                ):
                    pass
        except TimeoutError:
            pass


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request's body is larger than {limit} bytes.")
