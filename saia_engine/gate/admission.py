"""May this request go to this instance, and what exactly is sent there? Pure; nothing is normalised."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from saia_engine.gate import headers as rules
from saia_engine.gate.headers import BadHeaders
from saia_engine.routes import Route
from saia_engine.wire import messages
from saia_engine.wire.messages import Open

LARGEST_TARGET = 8 * 1024
TARGETS_KNOWN = 256
"""Found good before; each may be LARGEST_TARGET long."""
NEVER = frozenset({"CONNECT", "TRACE"})
HOST = "localhost"
"""Not the instance's address, which a service could put into a redirect for the client to see."""

_METHOD = re.compile(r"[A-Z]{1,20}")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"[!-~]*")
_ENCODED_DANGER = re.compile(r"%(?:2f|5c|2e|7f|[01][0-9a-f])", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Refusal(Exception):
    """The instance takes nothing of it; `code` is a reset code."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it goes on the wire to an instance."""

    method: str
    head: bytes
    """All up to and with the empty line."""
    content_length: int | None
    """None: chunked, or no body at all."""
    chunked: bool
    websocket_accept: str = ""
    """The proof that the server of a checked upgrade must give; empty where none was asked for."""


def admit(asked: Open, route: Route, now: float) -> Request:
    """The request to send. Raises Refusal."""
    if now >= route.admit_until:
        raise Refusal(messages.TOO_LATE, "this instance takes no new requests so close to its end")
    check_method(asked.method, route.methods)
    check_target(asked.path, route.paths)
    try:
        lines = rules.lines_for_instance(tuple(asked.headers))
    except BadHeaders as exc:
        raise Refusal(messages.FORBIDDEN, str(exc)) from None
    check_body(asked)
    accept = websocket_accept(asked)
    return Request(
        asked.method, _head(asked, lines, bool(accept)), asked.content_length, asked.chunked, accept
    )


def check_method(method: str, allowed: Sequence[str]) -> None:
    if not _METHOD.fullmatch(method) or method in NEVER or method not in allowed:
        raise Refusal(messages.FORBIDDEN, "this method is not allowed here")


@lru_cache(TARGETS_KNOWN)
def check_target(target: str, allowed: tuple[str, ...]) -> None:
    """A path that means the same to all who read it, within the allow-list; a query of any kind."""
    path, _, query = target.partition("?")
    if len(target) > LARGEST_TARGET:
        raise Refusal(messages.FORBIDDEN, f"a path of more than {LARGEST_TARGET} bytes")
    if not _PATH.fullmatch(path) or _ENCODED_DANGER.search(path) or "//" in path:
        raise Refusal(messages.FORBIDDEN, "a path with characters that are not passed on")
    if any(segment.partition(";")[0] in (".", "..") for segment in path.split("/")):
        raise Refusal(messages.FORBIDDEN, "a path with dot segments")
    if not _QUERY.fullmatch(query) or "#" in query:
        raise Refusal(messages.FORBIDDEN, "a query with characters that are not passed on")
    if not any(path.startswith(rule) if rule.endswith("/") else path == rule for rule in allowed):
        raise Refusal(messages.FORBIDDEN, "this path is not allowed here")


def check_body(asked: Open) -> None:
    length = asked.content_length
    if length is not None and (asked.chunked or not 0 <= length <= messages.LARGEST_COUNT):
        raise Refusal(messages.FORBIDDEN, "a body without one clear length")


def websocket_accept(asked: Open) -> str:
    """What the server must answer to a well-formed WebSocket upgrade; empty for all else, which loses its upgrade."""
    if asked.method != "GET" or asked.content_length or asked.chunked:
        return ""
    keys = rules.values(asked.headers, "sec-websocket-key")
    wanted = (
        rules.words(asked.headers, "upgrade") == ["websocket"]
        and "upgrade" in rules.words(asked.headers, "connection")
        and rules.values(asked.headers, "sec-websocket-version") == ["13"]
        and len(keys) == 1
        and _is_nonce(keys[0])
    )
    if not wanted:
        return ""
    return base64.b64encode(hashlib.sha1(keys[0].encode() + _WEBSOCKET_GUID).digest()).decode()


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _head(asked: Open, lines: str, upgrade: bool) -> bytes:
    own = f"X-Request-Id: {asked.request_id}\r\n" if _REQUEST_ID.fullmatch(asked.request_id) else ""
    if upgrade:
        own += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    elif asked.chunked:
        own += "Transfer-Encoding: chunked\r\n"
    elif asked.content_length or (asked.content_length == 0 and asked.method not in ("GET", "HEAD")):
        own += f"Content-Length: {asked.content_length}\r\n"
    return f"{asked.method} {asked.path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}{own}\r\n".encode("latin-1")
