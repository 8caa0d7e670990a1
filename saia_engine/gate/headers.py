"""Which headers pass, and which are our own; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

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
_SOUND = re.compile(rf"(?:{_NAME.pattern[:-1]}{{1,{LARGEST_NAME}}}\0{_VALUE.pattern}\n)*")
"""All of them at once, each name followed by a null and each value by a newline."""
HEADS_KNOWN = 64
"""Requests' heads that were seen before: a client says the same in each. Each may be LARGEST_HEAD long."""


class BadHeaders(ValueError):
    """Malformed or too large; the text says which rule was broken, not by which value."""


def check(headers: Sequence[tuple[str, str]]) -> None:
    """Raises BadHeaders."""
    many = len(headers)
    if many > MOST:
        raise BadHeaders(f"more than {MOST} headers")
    text = "".join([f"{name}\0{value}\n" for name, value in headers])
    if len(text) <= LARGEST_VALUE and text.count("\0") == text.count("\n") == many and _SOUND.fullmatch(text):
        return
    if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
        raise BadHeaders(f"headers of more than {LARGEST_HEAD} bytes")
    for name, value in headers:
        if len(name) > LARGEST_NAME or not _NAME.fullmatch(name):
            raise BadHeaders("a malformed header name")
        if len(value) > LARGEST_VALUE or not _VALUE.fullmatch(value):
            raise BadHeaders("a malformed header value")


@lru_cache(HEADS_KNOWN)
def lines_for_instance(headers: tuple[tuple[str, str], ...]) -> str:
    """What of a request's headers goes on, as it is written there. Raises BadHeaders.

    Servers may read `_` as `-`, so our own are known either way.
    """
    check(headers)
    dropped = OWN | HOP_BY_HOP | PRIVATE | named_by_connection(headers)
    lines: list[str] = []
    for name, value in headers:
        word = name.lower().replace("_", "-")
        if word not in dropped and not word.startswith("x-saia-"):
            passed = value.strip(" \t")
            lines.append(f"{name}: {passed}\r\n")
    return "".join(lines)


def for_proxy(headers: Headers) -> Headers:
    """What of a response's headers goes back."""
    dropped = HOP_BY_HOP | named_by_connection(headers)
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def named_by_connection(headers: Iterable[tuple[str, str]]) -> frozenset[str]:
    return frozenset(words(headers, "connection"))


def words(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    """The comma-separated words of all headers of that name, in lower case."""
    found = [value for key, value in headers if key.lower() == name]
    return [word.strip().lower() for word in ",".join(found).split(",") if word.strip()] if found else []


def values(headers: Iterable[tuple[str, str]], name: str) -> list[str]:
    return [value.strip() for key, value in headers if key.lower() == name]
