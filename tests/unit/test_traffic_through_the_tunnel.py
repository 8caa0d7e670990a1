"""Figures of requests through all of it, as processes: a proxy of two workers, the real gate, the engine's API."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.test_engine import Site, eventually
from tests.unit.test_keys_through_the_tunnel import ALICE, RELAYS, SERVICE, proxy_of, relays, served

STREAMS, TOKENS = 8, 5
REFUSED = 3


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    site.configure(SERVICE)
    yield site
    site.close()


def chat(url: str, key: str = ALICE, **more: Any) -> httpx.Response:
    """On a connection of its own, so that it meets any of the workers."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": TOKENS} | more
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def traffic(site: Site, row: str) -> dict[str, Any]:
    return site.get("state").get("traffic", {}).get(row, {})


def test_all_workers_requests_add_up_in_the_engine_by_service_and_key(site: Site) -> None:
    site.run()
    site.ready(1)
    with proxy_of(site) as (url, _):
        eventually(lambda: served(url) and relays(site) == RELAYS)
        for _ in range(STREAMS):
            assert "[DONE]" in chat(url, stream=True).text
        assert chat(url).status_code == 200
        assert chat(url, max_tokens=-1).status_code == 400
        for _ in range(REFUSED):
            assert chat(url, key="sk-saia-nobodys").status_code == 401

        eventually(lambda: traffic(site, "chat").get("requests") == STREAMS + 2)
        row = traffic(site, "chat")
        assert row["models"] == ["m"] and row["failed"] == {"client": 1}
        assert row["requests_per_s"] > 0 and row["errors_per_s"] == 0
        assert row["tokens_per_s"] > 0
        assert 0 < row["first_token_p50_s"] <= row["first_token_p95_s"] < 20
        assert row["answer_p50_s"] > 0 and row["waited_p95_s"] > 0
        # Those that nobody served: wrong keys, and the questions for models of `served`.
        eventually(lambda: traffic(site, "-").get("failed", {}).get("client") == REFUSED)

        key = eventually(lambda: site.get("state").get("keys", {}).get("cloud/alice"))
        assert key["said_requests"] == STREAMS + 2 and key["said_concurrency"] == 4
        assert not {"hash", "key", "secret"} & set(key) and "sha256" not in str(key)

        links = eventually(lambda: measured(site))
        assert len(links) == RELAYS and all(0 < link["round_trip_s"] < 5 for link in links)
        assert {link["routes_generation"] for link in links} == {
            site.get("state")["engine"]["engine"]["routes_generation"]
        }

        past = eventually(lambda: (h := site.get("history/traffic"))["rows"].get("chat") and h)
        assert past["step_s"] == 10.0
        assert eventually(lambda: any(of(site, "chat")["requests_per_s"]))
        figures = of(site, "chat")
        assert {"tokens_per_s", "first_token_p95_s", "in_flight", "failed:client"} <= set(figures)
        assert site._call("GET", "history/traffic?row=nosuch").status_code == 404
        assert site._call("GET", "history/nosuch").status_code == 404
        assert site.get("history/keys?row=cloud%2Falice")["row"] == "cloud/alice"


def measured(site: Site) -> list[dict[str, Any]]:
    """Its connections, once each has a round trip."""
    links = site.get("state")["proxies"]["cloud"]["links"]
    return links if all("round_trip_s" in link for link in links) else []


def of(site: Site, row: str) -> dict[str, list[float | None]]:
    return site.get(f"history/traffic?row={row}")["figures"]
