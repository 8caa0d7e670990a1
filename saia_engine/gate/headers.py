"""Which headers pass, and which are our own; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

LARGEST_NAME = 256
LARGEST_VALUE = 8 * 1024
LARGEST_HEAD = 32 * 1024
MOST = 100

OWN = frozenset("host content-length transfer-encoding connection expect x-request-id".split())
HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    " transfer-encoding upgrade".split()
)
PRIVATE = frozenset({"authorization"})
"""Holds the client's saia key, which is none of the instance's business."""

Headers = list[tuple[str, str]]
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class BadHeaders(ValueError):
    """Malformed or too large; the text says which rule was broken, not by which value."""


def check(headers: Headers) -> None:
    """Raises BadHeaders."""
    if len(headers) > MOST:
        raise BadHeaders(f"more than {MOST} headers")
    if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
        raise BadHeaders(f"headers of more than {LARGEST_HEAD} bytes")
    for name, value in headers:
        if len(name) > LARGEST_NAME or not _NAME.fullmatch(name):
            raise BadHeaders("a malformed header name")
        if len(value) > LARGEST_VALUE or not _VALUE.fullmatch(value):
            raise BadHeaders("a malformed header value")


def for_instance(headers: Headers) -> Headers:
    """What of a request's headers goes on. Servers may read `_` as `-`, so our own are known either way."""
    dropped = OWN | HOP_BY_HOP | PRIVATE | named_by_connection(headers)
    passed = []
    for name, value in headers:
        word = name.lower().replace("_", "-")
        if word not in dropped and not word.startswith("x-saia-"):
            passed.append((name, value.strip(" \t")))
    return passed


def for_proxy(headers: Headers) -> Headers:
    """What of a response's headers goes back."""
    dropped = HOP_BY_HOP | named_by_connection(headers)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def named_by_connection(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    return frozenset(words(headers, "connection"))


def words(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    """The comma-separated words of all headers of that name, in lower case."""
    found = ",".join(value for key, value in headers if key.lower() == name)
    return [word.strip().lower() for word in found.split(",") if word.strip()]


def values(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value.strip() for key, value in headers if key.lower() == name]
