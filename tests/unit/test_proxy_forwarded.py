"""Whose address counts, where a request came through reverse proxies."""

from __future__ import annotations

import pytest

from saia_proxy.forwarded import FORWARDED_FOR, TrustedProxies

TRUSTED = TrustedProxies(("10.0.0.0/8", "2001:db8::1"))


def client(peer: str, *values: str, trusted: TrustedProxies = TRUSTED) -> str:
    return trusted.client(
        peer, [(b"accept", b"*/*"), *((FORWARDED_FOR, v.encode("latin-1")) for v in values)]
    )


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["203.0.113.9, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["203.0.113.9", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("2001:db8::1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "unknown"),
        ("10.0.0.1", [" , ,"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("", ["192.0.2.7"], ""),
        ("192.0.2.200", ["127.0.0.1"], "192.0.2.200"),
    ],
)
def test_the_last_one_that_is_no_proxy_of_ours(peer: str, values: list[str], expected: str):
    assert client(peer, *values) == expected


def test_without_trusted_proxies_the_peer_counts():
    nobody = TrustedProxies(())
    assert not nobody
    assert client("10.0.0.1", "192.0.2.7", trusted=nobody) == "10.0.0.1"
