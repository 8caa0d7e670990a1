"""What a client is told when it gets no answer: OpenAI-shaped errors, each with a stable code."""

from __future__ import annotations

from typing import Any

import msgspec

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def as_event(error: bytes) -> bytes:
    """An error's JSON as a server-sent event: what OpenAI's clients raise in the middle of a stream."""
    return b"data: " + error + b"\n\n"


def of_service(status: int, body: bytes | bytearray) -> bytes:
    """The error that a service answered, as JSON in OpenAI's form on one line."""
    try:
        error = msgspec.json.decode(body, type=_OfService).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ApiError(status, "service_error", f"The service answered with status {status}.").body()
    return msgspec.json.encode({"error": error})


class _OfService(msgspec.Struct):
    error: dict[str, Any]


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class ApiError(Exception):
    """Answered with `status`; `code` is stable, the message is for people.

    `retry_after_s` becomes Retry-After, `allow` the methods of a 405.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.allow = allow

    @property
    def type(self) -> str:
        return _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def body(self) -> bytes:
        error = {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.allow:
            headers.append((b"allow", ", ".join(self.allow).encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers
