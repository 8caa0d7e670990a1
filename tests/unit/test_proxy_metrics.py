"""What /metrics tells, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from saia_engine.wire import messages
from saia_engine.wire.messages import Head
from saia_engine.wire.mux import Stream
from tests.unit.proxy_gate import EVENTS, Gate, instance, service
from tests.unit.proxy_running import KEY, Running, config, running, until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(proxy: Running) -> Samples:
    answer = await proxy.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"saia_proxy_{name}", tuple(sorted(labels.items()))), 0.0)


async def test_requests_are_counted_by_model_status_outcome_and_key(tmp_path: Path):
    gate = Gate([service()], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        for _ in range(3):
            await proxy.chat()
        await proxy.chat("no-such-model")
        samples = await scrape(proxy)
    assert of(samples, "requests_total", model="llama", status="200", outcome="ok") == 3
    assert of(samples, "requests_total", model="", status="404", outcome="model_not_found") == 1
    assert of(samples, "key_requests_total", key="all", status="200") == 3
    assert of(samples, "first_byte_seconds_count", model="llama") == 3
    assert of(samples, "queue_seconds_count", model="llama") == 3
    assert of(samples, "request_seconds_count", model="llama") == 3
    assert of(samples, "response_bytes_total", model="llama") > 300
    assert "no-such-model" not in str(samples), "a client's text is no label"


async def test_streams_tell_their_events_and_what_is_under_way(tmp_path: Path):
    gate = Gate([service()], [instance("one")])
    goes_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        for number in range(10):
            await stream.send(b"data: %d\n\n" % number)
        await goes_on.wait()
        stream.end()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        call = asyncio.create_task(proxy.chat(stream=True))
        await until(lambda: gate.opened)
        before = await scrape(proxy)
        goes_on.set()
        await call
        after = await scrape(proxy)
    # The one that asks is under way, too.
    assert (of(before, "in_flight"), of(after, "in_flight")) == (2, 1)
    assert of(after, "stream_events_total", model="llama") == 10


async def test_upstreams_and_tries_that_were_not_taken_are_told(tmp_path: Path):
    gate = Gate([service()], [instance("one"), instance("two")])

    async def refuse(stream: Stream) -> None:
        stream.reset(messages.REFUSED)

    gate.answers["one"] = refuse
    async with running(config(tmp_path, "a"), gate) as proxy:
        for _ in range(6):
            assert (await proxy.chat()).status_code == 200
        up = await scrape(proxy)
        gate.accepting = False
        gate.cut()
        await proxy.connected(0)
        down = await scrape(proxy)
    assert of(up, "not_taken_total", reason="refused") >= 1
    assert (of(up, "upstream_connections", upstream="a"), of(down, "upstream_connections", upstream="a")) == (
        2,
        0,
    )


@pytest.mark.parametrize(
    ("metrics_from", "trusted", "forwarded", "status"),
    [
        (("127.0.0.0/8",), (), None, 200),
        (("192.0.2.0/24",), (), None, 404),
        (("127.0.0.0/8",), (), "127.0.0.1", 404),
        (("127.0.0.0/8",), ("127.0.0.1",), "192.0.2.9", 404),
        (("192.0.2.0/24",), ("127.0.0.1",), "192.0.2.9", 200),
    ],
)
async def test_only_those_who_may_read_it_know_of_it(
    tmp_path: Path,
    metrics_from: tuple[str, ...],
    trusted: tuple[str, ...],
    forwarded: str | None,
    status: int,
):
    gate = Gate([service()], [instance("one")])
    settings = config(tmp_path, "a")
    server = replace(settings.server, metrics_from=metrics_from, trusted_proxies=trusted)
    headers = {"authorization": f"Bearer {KEY}"} | ({"x-forwarded-for": forwarded} if forwarded else {})
    async with (
        running(replace(settings, server=server), gate) as proxy,
        httpx.AsyncClient(base_url=proxy.url, headers=headers) as client,
    ):
        assert (await client.get("/metrics")).status_code == status
