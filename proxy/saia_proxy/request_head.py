"""The headers of a client's request, and what follows from them alone."""

from __future__ import annotations

from functools import cached_property

from saia_proxy.config import ApiKey

_NOT_FORWARDED = frozenset(
    b"authorization connection content-length expect host keep-alive proxy-authorization proxy-connection te"
    b" trailer transfer-encoding upgrade x-request-id".split()
)


class RequestHead:
    """Without Content-Length: all else a client says again with each request, so its connection keeps the newest."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        """All names are in lower case."""
        self.headers = headers
        self.first = dict(reversed(headers))
        """Of each header the first value."""
        self.key: ApiKey | None = None
        """Whose API key it presents, once that was found."""

    @cached_property
    def forwarded(self) -> list[tuple[str, str]]:
        """What goes on to the service."""
        # Connection names further headers of this hop (RFC 9110, 7.6.1).
        hop = self.first.get(b"connection", b"")
        dropped = _NOT_FORWARDED.union(hop.lower().replace(b",", b" ").split())
        return [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self.headers
            if name not in dropped and not name.startswith(b"x-saia-")
        ]


NOTHING = RequestHead([])
