"""A relay between a proxy's mux and the agent's own front: requests, resets, drain, routes, limits."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from saia_engine import agent, reports
from saia_engine.gate import exchange, journal, relay, upstream, watch
from saia_engine.model import ProxyLimits
from saia_engine.routes import ServiceEntry
from saia_engine.wire import messages
from saia_engine.wire.frames import Kind
from saia_engine.wire.messages import Applied, KeyOrder, KeyState, Metrics
from saia_engine.wire.mux import WINDOW, StreamReset
from tests.unit.gate_support import Instance, Proxy, Site, eventually, read_all, read_head, relay_of


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
async def instance() -> AsyncIterator[Instance]:
    instance = Instance()
    await instance.start()
    yield instance
    await instance.close()


@pytest.fixture
async def proxy(site: Site, instance: Instance) -> AsyncIterator[Proxy]:
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        yield proxy


@pytest.fixture
async def start(site: Site) -> AsyncIterator:
    """Starts one more instance, with a service of the test's own."""
    started: list[Instance] = []

    async def start(serve, **options) -> Instance:
        instance = Instance(serve=serve, **options)
        await instance.start()
        started.append(instance)
        return instance

    yield start
    for instance in started:
        await instance.close()


async def reset_of(waiting) -> StreamReset:
    with pytest.raises(StreamReset) as caught:
        await waiting
    return caught.value


# ---------------------------------------------------------------- requests


async def test_a_request_reaches_the_service_rebuilt(proxy: Proxy, instance: Instance):
    status, headers, body = await proxy.ask(
        instance.name,
        "/v1/chat?q=%2e%2e",
        b"question",
        headers=[("Accept", "*/*"), ("Authorization", "Bearer secret"), ("Host", "evil"), ("X-Custom", "1")],
        request_id="req_1",
    )
    assert (status, body) == (200, b"hello")
    assert ("Content-Length", "5") in headers
    assert instance.service.heads == [
        "POST /v1/chat?q=%2e%2e HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nX-Custom: 1\r\n"
        "X-Request-Id: req_1\r\nContent-Length: 8\r\n\r\n"
    ]


async def test_the_proxy_is_told_who_waits_in_the_queue_and_until_when(site: Site, proxy: Proxy):
    later = float(int(time.time()) + 900)
    site.publish(services={"chat": ServiceEntry(models=("llama-3",), starting=2, queued=1, eta=later)})
    told = await eventually(lambda: next((s for s in proxy.routes.services if s.queued), None))
    assert (told.name, told.starting, told.queued, told.eta) == ("chat", 2, 1, later)
    assert proxy.routes.site == "k7f3.hpc"


async def test_connections_are_used_again_and_no_process_is_started(proxy: Proxy, instance: Instance):
    before = children()
    for _ in range(1000):
        assert (await proxy.ask(instance.name))[0] == 200
    assert instance.service.connections == 1
    assert children() == before


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_many_at_once_each_get_their_own_answer(site: Site, start):
    async def echo(reader, writer):
        while head := await read_head(reader):
            name = head.split(" ")[1].encode()
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name))

    instance = await start(echo)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        answers = await asyncio.gather(*(proxy.ask(instance.name, f"/v1/{number}") for number in range(200)))
        assert [body for _, _, body in answers] == [b"/v1/%d" % number for number in range(200)]


async def test_a_stream_comes_as_it_is_made(site: Site, start):
    gates = [asyncio.Event() for _ in range(3)]

    async def stream(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number, gate in enumerate(gates):
            await gate.wait()
            writer.write(b"8\r\ndata: %d\n\r\n" % number)
        writer.write(b"0\r\n\r\n")

    instance = await start(stream)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream_ = proxy.open(instance.name)
        stream_.end()
        assert (await stream_.response()).status == 200
        for number, gate in enumerate(gates):
            gate.set()
            assert await asyncio.wait_for(stream_.receive(), 2) == b"data: %d\n" % number
        assert await stream_.receive() == b""


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_pass_both_ways(site: Site, start, chunked):
    body = os.urandom(3_000_000)

    async def echo(reader, writer):
        head = await read_head(reader)
        received = b""
        if chunked:
            assert "Transfer-Encoding: chunked" in head
            while size := int(await reader.readline(), 16):
                received += await reader.readexactly(size)
                await reader.readline()
        else:
            assert f"Content-Length: {len(body)}" in head
            received = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(received) + received)
        await writer.drain()

    instance = await start(echo)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(
            instance.name, method="POST", chunked=chunked, content_length=None if chunked else len(body)
        )
        await stream.send(body)
        stream.end()
        assert await asyncio.wait_for(read_all(stream), 5) == body
        assert proxy.mux.buffered == 0


async def test_a_slow_client_stops_the_service_not_the_others(site: Site, start):
    written = 0

    async def flood(reader, writer):
        nonlocal written
        head = await read_head(reader)
        if "/v1/quick" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()

    instance = await start(flood)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        slow = proxy.open(instance.name)
        slow.end()
        await slow.response()
        await asyncio.sleep(0.3)
        stopped_at = written
        assert (await proxy.ask(instance.name, "/v1/quick"))[2] == b"ok"
        await asyncio.sleep(0.1)
        assert written == stopped_at < 16 * 1024 * 1024
        assert proxy.mux.buffered == WINDOW
        slow.reset(messages.CANCELLED)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_answers_without_a_body_keep_the_connection(proxy: Proxy, instance: Instance, method, answer):
    instance.service.answer = answer
    for _ in range(3):
        status, _, body = await proxy.ask(instance.name, method=method)
        assert (status, body) == (int(answer.split()[1]), b"")
    assert instance.service.connections == 1


async def test_an_early_answer_to_a_long_upload_is_whole(site: Site, start):
    async def refuse(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        await reader.read()

    instance = await start(refuse)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name, method="POST", content_length=5_000_000)
        sender = asyncio.create_task(stream.send(b"x" * 5_000_000))
        assert (await stream.response()).status == 413
        assert await read_all(stream) == b"big"
        await asyncio.wait_for(sender, 2)
        stream.end()
        await eventually(lambda: not instance.front.open, "the end of the spoilt connection")


async def test_a_websocket_passes_and_others_lose_their_upgrade(site: Site, start):
    key = base64.b64encode(os.urandom(16)).decode()

    async def serve(reader, writer):
        head = await read_head(reader)
        if "Upgrade: websocket" not in head:
            assert "pgrade" not in head
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
            return
        proof = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        if "/v1/liar" in head:
            proof = b"x" * 20
        writer.write(
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(proof) + b"\r\n\r\nfirst"
        )
        while data := await reader.read(1000):
            writer.write(data.upper())

    instance = await start(serve)
    site.publish(instance.route())
    wanted = [
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
    ]
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name, headers=wanted)
        assert (await stream.response()).status == 101
        assert await stream.receive() == b"first"
        await stream.send(b"frame")
        assert await stream.receive() == b"FRAME"
        stream.end()
        assert await stream.receive() == b""
        liar = proxy.open(instance.name, "/v1/liar", headers=wanted)
        assert (await reset_of(liar.response())).code == messages.BAD_RESPONSE
        wanted[0] = ("Upgrade", "h2c")
        assert (await proxy.ask(instance.name, headers=wanted))[2] == b"plain"


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", messages.INSTANCE_LOST),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", messages.INSTANCE_LOST),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", messages.INSTANCE_LOST),
        (b"HTTP/1.1 200 OK\r\nContent-", messages.INSTANCE_LOST),
        (b"SSH-2.0-OpenSSH_9.2\r\n", messages.BAD_RESPONSE),
        (b"HTTP/2.0 200 OK\r\n\r\n", messages.BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", messages.BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", messages.BAD_RESPONSE),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            messages.BAD_RESPONSE,
        ),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            messages.BAD_RESPONSE,
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000, messages.BAD_RESPONSE),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", messages.BAD_RESPONSE),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000, messages.BAD_RESPONSE),
    ],
)
async def test_a_broken_answer_is_a_code_without_inner_text(site: Site, start, answer, code):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name)
        stream.end()
        reset = await reset_of(asyncio.wait_for(read_all(stream), 2))
        assert (reset.code, reset.text) == (code, "")
        assert not reset.not_taken


async def test_a_failed_request_is_in_the_journal_by_its_id(site: Site, start, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(relay, "NOTES_PER_SECOND", 3)
    monkeypatch.setattr(journal, "note", lambda text, priority=0: notes.append(text))

    async def serve(reader, writer):
        head = await read_head(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf" if "/half" in head else b"SSH-2.0\r\n"
        )
        await writer.drain()

    instance = await start(serve)
    site.publish(instance.route())
    began = time.monotonic()
    async with relay_of(site) as proxy:
        for path, name in (("/v1/half", "req_1"), ("/v1/x", "forged\n\x1b[31m")):
            stream = proxy.open(instance.name, path, request_id=name)
            stream.end()
            await reset_of(read_all(stream))
        for number in range(100):
            stream = proxy.open(instance.name, request_id=f"req_{number}")
            stream.end()
            await reset_of(read_all(stream))
    assert notes[0] == (
        f"request 'req_1' to '{instance.name}' failed:"
        " 'instance_lost, the connection ended before the response did'"
    )
    assert notes[1].startswith("request 'forged\\n\\x1b[31m' to ") and "bad_response" in notes[1]
    assert len(notes) <= 3 + 3 * (time.monotonic() - began), "a flood of failures is no flood of notes"


async def test_an_answer_that_ends_with_its_connection_is_whole(site: Site, start):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nto the end"
        )

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        assert await proxy.ask(instance.name) == (200, [("X-A", "1")], b"to the end")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSURPLUS",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_no_client_ever_reads_anothers_bytes(proxy: Proxy, instance: Instance, answer):
    instance.service.answer = answer
    for _ in range(3):
        assert (await proxy.ask(instance.name))[2] == b"ok"
    assert instance.service.connections == 3


async def test_surplus_that_comes_late_closes_the_idle_connection(site: Site, start):
    async def serve(reader, writer):
        while await read_head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        assert (await proxy.ask(instance.name))[2] == b"ok"
        await eventually(lambda: not instance.front.open)
        assert (await proxy.ask(instance.name))[2] == b"ok"


async def test_a_client_that_goes_away_ends_the_work_at_once(site: Site, start):
    ended = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nworking")
        await reader.read()
        ended.set_result(time.monotonic())

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name)
        stream.end()
        assert await stream.receive() == b"working"
        began = time.monotonic()
        stream.reset(messages.CANCELLED)
        assert await asyncio.wait_for(ended, 2) - began < 0.1


@pytest.mark.parametrize(("announced", "sent"), [(10, 5), (10, 20), (100_000, 5), (100_000, 200_000)])
async def test_a_body_of_another_length_than_announced_is_refused(
    proxy: Proxy, instance: Instance, announced, sent
):
    stream = proxy.open(instance.name, method="POST", content_length=announced)

    async def send() -> None:
        await stream.send(b"x" * sent)
        stream.end()

    sender = asyncio.create_task(send())
    instance.service.answer = b""
    reset = await reset_of(asyncio.wait_for(stream.response(), 2))
    await asyncio.gather(sender, return_exceptions=True)
    assert reset.code == messages.PROTOCOL


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"instance": "k7f3.hpc.chat.none"}, messages.NO_ROUTE),
        ({"method": "DELETE"}, messages.FORBIDDEN),
        ({"path": "/metrics"}, messages.FORBIDDEN),
        ({"path": "/v1/../metrics"}, messages.FORBIDDEN),
        ({"headers": [("X", "a\r\nY: b")]}, messages.FORBIDDEN),
        ({"content_length": -1}, messages.FORBIDDEN),
        ({"content_length": 2**53}, messages.FORBIDDEN),
    ],
)
async def test_what_is_not_allowed_never_reaches_the_service(proxy: Proxy, instance: Instance, fields, code):
    stream = proxy.open(**{"instance": instance.name} | fields)
    reset = await reset_of(stream.response())
    assert reset.code == code and reset.not_taken
    assert instance.service.connections == 0


async def test_no_request_goes_to_an_instance_close_to_its_end(site: Site, instance: Instance):
    site.publish(instance.route(admit_until=time.time() - 1))
    async with relay_of(site) as proxy:
        assert (await reset_of(proxy.ask(instance.name))).code == messages.TOO_LATE


async def test_admission_is_looked_at_again_when_a_body_took_long(site: Site, instance: Instance):
    site.publish(instance.route(admit_until=time.time() + 0.3))
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name, method="POST", content_length=4)
        await asyncio.sleep(0.4)
        await stream.send(b"late")
        stream.end()
        assert (await reset_of(stream.response())).code == messages.TOO_LATE
        assert instance.service.heads == []


async def test_an_instance_that_does_not_answer_is_provably_not_taken(site: Site, instance: Instance):
    site.publish(instance.route(port=1))
    async with relay_of(site) as proxy:
        reset = await reset_of(proxy.ask(instance.name))
        assert reset.not_taken and reset.code == messages.NO_ROUTE
        await eventually(lambda: not proxy.routes.instances, "its leaving of the offer")


async def test_whoever_lacks_the_secret_gets_nothing(site: Site, instance: Instance):
    site.publish(instance.route(secret="0" * 64))
    async with relay_of(site) as proxy:
        assert (await reset_of(proxy.ask(instance.name))).code == messages.NO_ROUTE
        assert instance.service.connections == 0


# ---------------------------------------------------------------- drain, generations, routes


async def test_a_drain_is_told_at_once_and_idle_connections_close(proxy: Proxy, instance: Instance):
    assert (await proxy.ask(instance.name))[0] == 200
    assert len(instance.front.open) == 1
    instance.front.want(agent.DRAINING)
    await eventually(lambda: proxy.routes.instances[0].draining)
    await eventually(lambda: not instance.front.open)
    reset = await reset_of(proxy.ask(instance.name))
    assert reset.code == messages.DRAINING and reset.not_taken
    instance.front.want(agent.SERVING)
    await eventually(lambda: not proxy.routes.instances[0].draining)
    assert (await proxy.ask(instance.name))[0] == 200


async def test_open_streams_end_whole_through_a_drain_with_frozen_routes(site: Site, start):
    finish = asyncio.Event()

    async def serve(reader, writer):
        while await read_head(reader):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            await finish.wait()
            writer.write(b"half")

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name)
        stream.end()
        assert await stream.receive() == b"half"
        instance.front.want(agent.DRAINING)
        assert (await reset_of(proxy.ask(instance.name))).code == messages.DRAINING
        finish.set()
        assert await read_all(stream) == b"half"
        await eventually(lambda: not instance.front.open, "the end of the drain")


async def test_the_routes_word_of_a_drain_counts_too(site: Site, instance: Instance, proxy: Proxy):
    site.publish(instance.route(draining=True))
    await eventually(lambda: proxy.routes.instances[0].draining)
    assert (await reset_of(proxy.ask(instance.name))).code == messages.DRAINING


async def test_a_refusal_by_the_front_counts_as_a_drain(proxy: Proxy, instance: Instance):
    await eventually(lambda: instance.front.watchers)
    instance.front.state = agent.DRAINING  # said to nobody
    assert (await reset_of(proxy.ask(instance.name))).code == messages.DRAINING
    assert proxy.routes.instances[0].draining


async def test_another_generation_ends_the_open_streams(site: Site, start):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nworking")
        await reader.read()

    old = await start(serve)
    site.publish(old.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(old.name)
        stream.end()
        assert await stream.receive() == b"working"
        new = await start(None, generation=1)
        site.publish(new.route())
        assert (await reset_of(stream.receive())).code == messages.INSTANCE_LOST
        await eventually(lambda: not old.front.watchers and not old.front.open)
        assert (await proxy.ask(new.name))[2] == b"hello"


async def test_a_route_that_leaves_takes_no_request_but_ends_its_streams_whole(site: Site, start):
    finish = asyncio.Event()

    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await finish.wait()
        writer.write(b"half")

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        stream = proxy.open(instance.name)
        stream.end()
        assert await stream.receive() == b"half"
        site.publish()
        await eventually(lambda: not proxy.routes.instances)
        assert (await reset_of(proxy.ask(instance.name))).code == messages.NO_ROUTE
        finish.set()
        assert await read_all(stream) == b"half"


async def test_bad_routes_keep_the_last_good_ones(site: Site, instance: Instance, proxy: Proxy):
    for bad in (b"", b"{", b'{"version":2}', b"\xff" * 100):
        site.path.write_bytes(bad)
        await asyncio.sleep(0.55)
        assert (await proxy.ask(instance.name))[0] == 200
    site.path.unlink()
    await asyncio.sleep(0.55)
    assert (await proxy.ask(instance.name))[0] == 200
    site.publish(instance.route())
    await eventually(lambda: proxy.routes.generation == site.generation)


async def test_a_proxy_learns_neither_address_nor_secret_and_only_its_services(
    site: Site, instance: Instance
):
    site.limits = ProxyLimits(services=("chat",))
    other = instance.route(instance="k7f3.hpc.embed.zz", service="embed")
    site.publish(instance.route(), other)
    async with relay_of(site) as proxy:
        assert [service.name for service in proxy.routes.services] == ["chat"]
        assert [route.id for route in proxy.routes.instances] == [instance.name]
        told = messages.pack(proxy.routes).decode()
        assert instance.front.gate_secret not in told
        assert "127.0.0.1" not in told and str(instance.port) not in told
        assert (await reset_of(proxy.ask("k7f3.hpc.embed.zz"))).code == messages.NO_ROUTE


async def test_a_proxy_that_is_not_named_any_more_loses_its_relay(site: Site, proxy: Proxy):
    site.publish(proxies={})
    await asyncio.wait_for(proxy.mux.wait_closed(), 3)


# ---------------------------------------------------------------- the watch and the pool


async def test_a_watch_that_falls_silent_stops_new_requests(site: Site, instance: Instance, monkeypatch):
    monkeypatch.setattr(agent, "LIVE_S", 0.3)
    monkeypatch.setattr(watch, "FIRST_WORD_S", 0.2)
    monkeypatch.setattr(watch, "RETRY_FIRST_S", 60)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        assert (await proxy.ask(instance.name))[0] == 200
        await eventually(lambda: not proxy.routes.instances, "its leaving of the offer")
        reset = await reset_of(proxy.ask(instance.name))
        assert reset.code == messages.NO_ROUTE and reset.not_taken


async def test_a_lost_watch_is_found_again_and_requests_wait_for_it(proxy: Proxy, instance: Instance):
    for _ in range(3):
        await eventually(lambda: instance.front.watchers)
        for watcher in list(instance.front.watchers):
            watcher._transport.abort()
        await asyncio.sleep(0.02)
        assert (await proxy.ask(instance.name))[0] == 200


async def test_nobody_waits_for_the_watch_of_an_instance_that_died(site: Site, monkeypatch):
    monkeypatch.setattr(watch, "FIRST_WORD_S", 3600)
    instance = Instance()
    await instance.start()
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        await eventually(lambda: instance.front.watchers)
        await instance.close()
        reset = await asyncio.wait_for(reset_of(proxy.ask(instance.name)), 30)
        assert reset.code == messages.NO_ROUTE and reset.not_taken
        await eventually(lambda: not proxy.routes.instances, "its leaving of the offer")


async def test_who_waits_for_a_watch_goes_elsewhere_once_its_instance_leaves_the_routes(
    site: Site, instance: Instance, monkeypatch
):
    monkeypatch.setattr(watch, "FIRST_WORD_S", 3600)
    monkeypatch.setattr(watch, "RETRY_FIRST_S", 3600)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        await eventually(lambda: instance.front.watchers)
        for watcher in list(instance.front.watchers):
            watcher._transport.abort()
        await eventually(lambda: not instance.front.watchers)
        asking = asyncio.create_task(reset_of(proxy.ask(instance.name)))
        await asyncio.sleep(0.2)
        assert not asking.done()
        site.publish()
        assert (await asyncio.wait_for(asking, 30)).code == messages.NO_ROUTE


async def test_a_watch_that_talks_nonsense_is_no_watch(site: Site, instance: Instance, monkeypatch):
    monkeypatch.setattr(watch, "FIRST_WORD_S", 0.3)
    for nonsense in ("nonsense", {"state": 3}, ["x"] * 3000):
        monkeypatch.setattr(instance.front, "summary", lambda said=nonsense: said)
        site.publish(instance.route())
        async with relay_of(site) as proxy:
            assert (await reset_of(proxy.ask(instance.name))).code == messages.NO_ROUTE
    assert instance.service.connections == 0


async def test_idle_connections_close_by_themselves(site: Site, instance: Instance, monkeypatch):
    monkeypatch.setattr(upstream, "IDLE_S", 0.1)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        await asyncio.gather(*(proxy.ask(instance.name) for _ in range(5)))
        await eventually(lambda: not instance.front.open)
        assert (await proxy.ask(instance.name))[0] == 200


async def test_a_server_that_closes_idle_connections_loses_no_request(site: Site, start):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        for _ in range(10):
            assert (await proxy.ask(instance.name))[2] == b"ok"
            await eventually(lambda: not instance.front.open)


# ---------------------------------------------------------------- limits


async def test_streams_and_opens_above_the_limits_are_reset_alone(site: Site, start):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nworking")
        await reader.read()

    instance = await start(serve)
    site.limits = ProxyLimits(streams=3, opens_per_second=5)
    site.publish(instance.route())
    async with relay_of(site) as proxy:
        streams = [proxy.open(instance.name) for _ in range(4)]
        assert (await reset_of(streams[3].response())).code == messages.LIMIT
        for stream in streams[:3]:
            assert await stream.receive() == b"working"
        for stream in streams[:3]:
            stream.reset(messages.CANCELLED)
        await eventually(lambda: not instance.front.open)
        more = [proxy.open(instance.name) for _ in range(3)]
        assert (await reset_of(more[2].response())).code == messages.LIMIT
        await asyncio.sleep(0.45)
        assert await proxy.open(instance.name).receive() == b"working"


# ---------------------------------------------------------------- reports


class Engine:
    """Takes reports at `gate.sock`, and answers with the desired state."""

    def __init__(self, site: Site) -> None:
        self.reports: list[dict] = []
        self.answer: dict = {"revision": 1, "maintenance": False}
        self.holds_back = False
        self.news = asyncio.Event()
        self._site = site
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Engine:
        self._server = await asyncio.start_unix_server(self._serve, self._site.gate_socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._site.gate_socket.unlink()

    async def _serve(self, reader, writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while head := await read_head(reader):
                assert head.startswith("POST /v1/report HTTP/1.1\r\n")
                size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                report = json.loads(await reader.readexactly(size))
                self.reports.append(report)
                if self.holds_back:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.news.wait(), report["wait_s"])
                body = json.dumps(self.answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        finally:
            writer.close()
            self._tasks.discard(task)


async def test_reports_go_to_the_engine_and_its_word_comes_back(site: Site, instance: Instance, proxy: Proxy):
    assert (await proxy.ask(instance.name))[0] == 200
    proxy.mux.control(Metrics("9.9\x1b[31m", {"chat": 4, "unknown": 1}))
    async with Engine(site) as engine:
        await eventually(lambda: engine.reports)
        assert reports.decode(json.dumps(engine.reports[-1]).encode()).requests == {"chat": 1}
        assert engine.reports[-1]["queued"] == {"chat": 4}
        assert engine.reports[-1]["version"] == "9.9\\x1b[31m"
        await eventually(lambda: any(isinstance(message, messages.Admin) for message in proxy.told))
        assert proxy.admin.revision == 1
        engine.answer = {"revision": 2, "maintenance": True}
        await eventually(lambda: proxy.admin.maintenance)
        count = len(engine.reports)
        proxy.mux.control(Applied(routes_generation=site.generation, admin_revision=2))
        began = time.monotonic()
        await eventually(lambda: engine.reports[-1]["admin_revision"] == 2)
        assert time.monotonic() - began < 0.5 and len(engine.reports) <= count + 2
    # The engine is gone: traffic flows on, and its return is found.
    assert (await proxy.ask(instance.name))[0] == 200
    async with Engine(site) as engine:
        await eventually(lambda: engine.reports)
        assert engine.reports[-1]["requests"] == {"chat": 2}


async def test_an_answer_that_the_engine_holds_back_is_waited_for_and_passed_on_at_once(
    site: Site, proxy: Proxy
):
    async with Engine(site) as engine:
        engine.holds_back = True
        await eventually(lambda: any(isinstance(told, messages.Admin) for told in proxy.told))
        assert engine.reports[0]["wait_s"] == 0, "the first answer is wanted at once"
        began, count = time.monotonic(), len(engine.reports)
        await eventually(lambda: len(engine.reports) >= count + 3)
        assert time.monotonic() - began > 1.8, "about one a second at rest"
        engine.answer = {"revision": 2, "keys": {"alice": {"revoked": True}}}
        began = time.monotonic()
        engine.news.set()
        await eventually(lambda: proxy.admin == messages.Admin(2, keys={"alice": KeyOrder(revoked=True)}))
        assert time.monotonic() - began < 0.5


async def test_orders_and_rows_of_as_many_keys_as_there_may_be_pass_both_ways(site: Site, proxy: Proxy):
    names = [f"key-{number:060}" for number in range(messages.MOST_KEYS)]
    states = [KeyState(name, "\U0001f511" * 200, True, *[messages.LARGEST_COUNT] * 5) for name in names]
    order = {"revoked": True, "concurrency": 1_000_000, "per_minute": 10_000_000}
    async with Engine(site) as engine:
        engine.answer = {"revision": 2, "keys": dict.fromkeys(names, order)}
        proxy.mux.control(Metrics(keys=states))
        await eventually(lambda: engine.reports and engine.reports[-1]["keys"])
        heard = reports.decode(json.dumps(engine.reports[-1], ensure_ascii=False).encode())
        assert [row.name for row in heard.keys] == names
        assert {len(row.models) for row in heard.keys} == {100}
        await eventually(lambda: any(isinstance(told, messages.Admin) for told in proxy.told))
        assert len(proxy.admin.keys) == messages.MOST_KEYS


@pytest.mark.parametrize(
    "key", [{"name": "a\x1b[2J"}, {"name": ""}, {"name": "a" * 65}, {"name": "a", "requests": -1}]
)
async def test_a_proxy_that_tells_nonsense_of_its_keys_is_cut_off(proxy: Proxy, key: dict):
    payload = json.dumps({"type": "metrics", "keys": [key]}).encode()
    proxy.mux.send_frame(Kind.CONTROL, 0, payload)
    async with asyncio.timeout(10):
        await proxy.mux.wait_closed()


async def test_losses_and_server_errors_are_counted(site: Site, start):
    async def serve(reader, writer):
        if "/v1/bad" in await read_head(reader):
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")

    instance = await start(serve)
    site.publish(instance.route())
    async with relay_of(site) as proxy, Engine(site) as engine:
        await proxy.ask(instance.name, "/v1/bad")
        await reset_of(proxy.ask(instance.name, "/v1/lost"))
        await eventually(lambda: engine.reports and engine.reports[-1]["errors"] == {"chat": 2})
        assert engine.reports[-1]["in_flight"] == {}


def test_the_whole_body_limit_is_below_the_window():
    # A proxy that sends all of a body before it reads may send this much without an answer.
    assert exchange.WHOLE_BODY <= WINDOW
