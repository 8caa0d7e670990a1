"""Whose request it is, where it came through a reverse proxy that we trust."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

FORWARDED_FOR = b"x-forwarded-for"


class TrustedProxies:
    """The addresses and networks whose X-Forwarded-For is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """Raises ValueError for what is neither an address nor a network."""
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(map(ip_network, networks))

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The last address in X-Forwarded-For that is not a trusted proxy's: each proxy adds the one before it.

        `peer` itself where that is none of them; the first address where all are.
        """
        if not self._trusts(peer):
            return peer
        values = b",".join(value for name, value in headers if name == FORWARDED_FOR)
        hops = [_host(hop) for hop in values.decode("latin-1").split(",") if hop.strip()]
        return next((hop for hop in reversed(hops) if not self._trusts(hop)), hops[0] if hops else peer)

    def _trusts(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _host(hop: str) -> str:
    """Without a port: `192.0.2.1:1234` and `[2001:db8::1]:1234` are written, too."""
    hop = hop.strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, colon, _ = hop.partition(":")
    return host if colon and ":" not in hop[len(host) + 1 :] else hop
