"""WebSockets through the proxy: a real client, a real server behind the test's gate, raw bytes between them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import struct
import time
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import pytest
import uvloop
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from saia_engine.gate.admission import websocket_accept
from saia_engine.wire import messages
from saia_engine.wire.messages import Head
from saia_engine.wire.mux import Stream, StreamReset
from saia_proxy import upgrade
from saia_proxy.config import ProxyConfig, Timeouts
from tests.unit.proxy_gate import JSON, Gate, instance, refusing, service, silent
from tests.unit.proxy_running import KEY, RESTRICTED_KEY, SERVICE_KEY, config, running, until, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
APP = service("app", ("speech",), methods=("GET",), paths=("/",))


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


class Room:
    """A WebSocket server on a socket of its own, and an answer of the gate that carries a stream there."""

    def __init__(self) -> None:
        self.connections: list[websockets.ServerConnection] = []

    async def __aenter__(self) -> Room:
        self._server = await websockets.serve(self._serve, "127.0.0.1", 0, max_size=None)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, connection: websockets.ServerConnection) -> None:
        self.connections.append(connection)
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass

    async def answer(self, stream: Stream) -> None:
        request = stream.request
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        lines = [f"GET {request.path} HTTP/1.1", "Host: localhost"]
        writer.write("\r\n".join([*lines, *(f"{n}: {v}" for n, v in request.headers), "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        stream.respond(Head(int(head[0].split()[1]), [tuple(line.split(": ", 1)) for line in head[1:-2]]))  # type: ignore[misc]

        async def up() -> None:
            try:
                while data := await stream.receive():
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()
            except (StreamReset, OSError):
                writer.transport.abort()

        upward = asyncio.create_task(up())
        try:
            while data := await reader.read(65536):
                await stream.send(data)
            stream.end()
            await upward
        finally:
            upward.cancel()
            writer.close()


def app_gate(answer) -> Gate:
    gate = Gate([APP, service("chat")], [instance("one", "app")])
    gate.answers["one"] = answer
    return gate


def patient(directory: Path) -> ProxyConfig:
    """A WebSocket that nobody uses is closed: not because a machine is busy."""
    return config(directory, "a", timeouts=Timeouts(connect_s=30, first_byte_s=30, idle_s=60, total_s=120))


def url(proxy, path: str = "/services/app/ws") -> str:
    return f"ws://127.0.0.1:{proxy.port}{path}"


async def in_flight(proxy) -> int:
    return (await proxy.client.get("/healthz")).json()["in_flight"]


@pytest.mark.parametrize("path", ["/services/app/rooms/1?x=%2F", "/v1/realtime?model=speech"])
async def test_messages_pass_both_ways(tmp_path, path):
    async with Room() as room, running(patient(tmp_path), gate := app_gate(room.answer)) as proxy:
        async with connect(url(proxy, path), additional_headers=AUTHORIZED, max_size=None) as socket:
            assert socket.response is not None
            assert socket.response.headers["x-request-id"] == gate.opened[0].request.request_id
            for message in ("text", b"\x00\xff" * 10, random.Random(1).randbytes(700_000), ""):
                await socket.send(message)
                assert await socket.recv() == message
            assert await in_flight(proxy) == 1
            await (await socket.ping())
        assert socket.close_code == 1000
        await until_async(lambda: idle(proxy))
    request = gate.opened[0].request
    assert request.path == path.removeprefix("/services/app")
    assert (request.method, request.chunked, request.content_length) == ("GET", False, 0)
    assert websocket_accept(request), "as the real gate checks it"
    assert "authorization" not in {name for name, _ in request.headers}
    assert not gate.resets


async def idle(proxy) -> bool:
    return await in_flight(proxy) == 0


async def test_many_at_once_each_get_their_own(tmp_path):
    async def talk(proxy, number: int) -> None:
        async with connect(url(proxy), additional_headers=AUTHORIZED) as socket:
            for turn in range(20):
                await socket.send(f"{number}:{turn}" * (1 + number))
                assert await socket.recv() == f"{number}:{turn}" * (1 + number)

    async with Room() as room, running(patient(tmp_path), app_gate(room.answer)) as proxy:
        await asyncio.gather(*(talk(proxy, number) for number in range(25)))
        assert (await proxy.client.get("/v1/models")).status_code == 200


async def test_the_service_may_close(tmp_path):
    async with Room() as room, running(patient(tmp_path), app_gate(room.answer)) as proxy:
        async with connect(url(proxy), additional_headers=AUTHORIZED) as socket:
            await socket.send("hello")
            await socket.recv()
            await room.connections[0].close(4001, "enough")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4001, "enough")
        await until_async(lambda: idle(proxy))


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_a_client_that_vanishes_ends_the_work(tmp_path, how):
    async with Room() as room, running(patient(tmp_path), gate := app_gate(room.answer)) as proxy:
        socket = await connect(url(proxy), additional_headers=AUTHORIZED)
        await socket.send("hello")
        await socket.recv()
        if how == "reset":
            link = socket.transport.get_extra_info("socket")
            link.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        socket.transport.abort()
        await asyncio.wait_for(room.connections[0].wait_closed(), 5)
        assert [reset.code for reset in gate.resets] == ([messages.CANCELLED] if how == "reset" else [])
        await until_async(lambda: idle(proxy))


async def test_a_client_that_ends_its_side_gets_the_last_word(tmp_path, monkeypatch):
    monkeypatch.setattr(upgrade, "HALF_CLOSED_S", 0.3)

    async def last_word(stream: Stream) -> None:
        stream.respond(Head(101, [("Sec-WebSocket-Accept", websocket_accept(stream.request))]))
        said = b""
        while data := await stream.receive():
            said += data
        await stream.send(b"you said " + said)
        if said == b"wait":
            await asyncio.Event().wait()
        stream.end()

    async with running(patient(tmp_path), gate := app_gate(last_word)) as proxy:
        for word in (b"goodbye", b"wait"):
            reader, writer, _ = await shaken(proxy)
            writer.write(word)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 5) == b"you said " + word
            writer.close()
        await until(lambda: gate.resets)
        await until_async(lambda: idle(proxy))


@pytest.mark.parametrize("how", ["instance", "tunnel"])
async def test_what_is_lost_behind_the_proxy_is_a_clean_end_of_the_connection(tmp_path, how):
    async with Room() as room, running(patient(tmp_path), gate := app_gate(room.answer)) as proxy:
        async with connect(url(proxy), additional_headers=AUTHORIZED) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            if how == "instance":
                gate.opened[0].reset(messages.INSTANCE_LOST)
            else:
                gate.cut()
            with pytest.raises(ConnectionClosedError) as caught:
                await socket.recv()
            assert caught.value.rcvd is None
            assert isinstance(caught.value.__cause__, EOFError | None), (
                "the end of the stream, not a reset of it"
            )
        await until_async(lambda: idle(proxy))


async def test_an_open_websocket_lives_on_while_its_instance_drains(tmp_path):
    async with (
        Room() as room,
        running(patient(tmp_path), gate := app_gate(room.answer)) as proxy,
        connect(url(proxy), additional_headers=AUTHORIZED) as socket,
    ):
        gate.tell(messages.Routes(2, [APP], [instance("one", "app", draining=True)]))
        await until(lambda: gate.applied[-1].routes_generation == 2)
        await socket.send("still here")
        assert await socket.recv() == "still here"


async def test_one_that_is_not_taken_goes_to_another_instance(tmp_path):
    async with Room() as room:
        gate = Gate([APP], [instance("one", "app"), instance("two", "app")])
        gate.answers = {"one": refusing(messages.DRAINING), "two": room.answer}
        async with running(patient(tmp_path), gate) as proxy:
            for _ in range(6):
                async with connect(url(proxy), additional_headers=AUTHORIZED) as socket:
                    await socket.send("x")
                    assert await socket.recv() == "x"


async def test_refusals_are_plain_answers_in_openais_shape(tmp_path):
    async def refused(proxy, path: str, key: str = KEY) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(proxy, path), additional_headers={"Authorization": f"Bearer {key}"})
        response = caught.value.response
        assert response.headers["x-request-id"]
        return response.status_code, json.loads(response.body or b"")["error"]["code"]

    async def not_found(stream: Stream) -> None:
        stream.respond(Head(404, JSON))
        await stream.send(b'{"error": {"code": "the services own"}}')
        stream.end()

    async with running(patient(tmp_path), app_gate(not_found)) as proxy:
        assert await refused(proxy, "/services/app/ws", "no") == (401, "invalid_api_key")
        assert await refused(proxy, "/services/app/ws", RESTRICTED_KEY) == (403, "service_not_allowed")
        assert await refused(proxy, "/v1/realtime?model=speech", SERVICE_KEY) == (403, "model_not_allowed")
        assert await refused(proxy, "/v1/realtime") == (400, "model_missing")
        assert await refused(proxy, "/v1/realtime?model=none") == (404, "model_not_found")
        assert await refused(proxy, "/elsewhere") == (404, "unknown_url")
        assert await refused(proxy, "/services/app/ws") == (404, "the services own")
        assert await idle(proxy)


async def test_a_service_that_says_nothing_is_504(tmp_path):
    timeouts = Timeouts(connect_s=5, first_byte_s=0.3, idle_s=5, total_s=20)
    async with running(config(tmp_path, "a", timeouts=timeouts), app_gate(silent)) as proxy:
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(proxy), additional_headers=AUTHORIZED)
        assert caught.value.response.status_code == 504


async def test_one_that_is_used_lasts_longer_than_total_and_one_that_is_not_is_closed(tmp_path):
    timeouts = Timeouts(connect_s=5, first_byte_s=2, idle_s=2, total_s=2)
    async with (
        Room() as room,
        running(config(tmp_path, "a", timeouts=timeouts), app_gate(room.answer)) as proxy,
        connect(url(proxy), additional_headers=AUTHORIZED, ping_interval=None) as socket,
    ):
        began = time.monotonic()
        while time.monotonic() < began + timeouts.total_s + 0.3:
            await socket.send("x")
            assert await socket.recv() == "x"
            await asyncio.sleep(0.05)
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        await until_async(lambda: idle(proxy))


# ---------------------------------------------------------------- by hand


def upgrade_head(nonce: str, path: str = "/services/app/ws", version: str = "1.1", more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: keep-alive, Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n{more}\r\n"
    ).encode()


def nonce() -> str:
    return base64.b64encode(os.urandom(16)).decode()


async def shaken(proxy, early: bytes = b""):
    """A connection after its 101, and that head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    key = nonce()
    writer.write(upgrade_head(key) + early)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    proof = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert f"Sec-WebSocket-Accept: {proof.decode()}\r\n" in head
    assert "connection: upgrade\r\n" in head.lower() and "upgrade: websocket\r\n" in head.lower()
    return reader, writer, head


def echoing(received: list[bytes]):
    async def answer(stream: Stream) -> None:
        stream.respond(Head(101, [("Sec-WebSocket-Accept", websocket_accept(stream.request))]))
        while data := await stream.receive():
            received.append(data)
            await stream.send(data)
        stream.end()

    return answer


async def test_bytes_sent_before_the_101_are_not_lost_nor_taken_for_http(tmp_path):
    received: list[bytes] = []
    early = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with running(patient(tmp_path), gate := app_gate(echoing(received))) as proxy:
        reader, writer, _ = await shaken(proxy, early)
        assert await reader.readexactly(len(early)) == early
        writer.close()
        await until_async(lambda: idle(proxy))
    assert b"".join(received) == early
    assert len(gate.opened) == 1


async def test_what_follows_a_refused_upgrade_is_never_read_as_a_request(tmp_path):
    async with running(patient(tmp_path), gate := app_gate(refusing(messages.FORBIDDEN))) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        follows = f"GET /services/app/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        writer.write(upgrade_head(nonce()) + follows.encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ") and answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer
    assert len(gate.opened) == 1


async def test_an_upgrade_behind_another_request_ends_the_connection(tmp_path):
    async with running(patient(tmp_path), gate := app_gate(silent)) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        plain = f"GET /services/app/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        writer.write(plain.encode() + upgrade_head(nonce()))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await until_async(lambda: idle(proxy))
    assert len(gate.opened) <= 1


@pytest.mark.parametrize(
    ("method", "version", "upgrade_to"),
    [("POST", "1.1", "websocket"), ("GET", "1.0", "websocket"), ("GET", "1.1", "h2c")],
)
async def test_other_upgrades_are_plain_requests_and_a_101_to_them_is_a_fault(
    tmp_path, method, version, upgrade_to
):
    async def switch(stream: Stream) -> None:
        assert not {"upgrade", "connection"} & {name for name, _ in stream.request.headers}
        stream.respond(Head(101, []))
        await asyncio.Event().wait()

    gate = Gate([service("app", (), methods=("GET", "POST"), paths=("/",))], [instance("one", "app")])
    gate.answers["one"] = switch
    async with running(patient(tmp_path), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        head = upgrade_head(nonce(), version=version).replace(b"GET ", method.encode() + b" ", 1)
        writer.write(head.replace(b"Upgrade: websocket", b"Upgrade: " + upgrade_to.encode()))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        await until(lambda: gate.resets)
    assert answer.startswith(b"HTTP/1.1 502 ")


async def test_a_client_that_reads_nothing_slows_its_own_service_only(tmp_path):
    sent = 0

    async def flood(stream: Stream) -> None:
        nonlocal sent
        stream.respond(Head(101, [("Sec-WebSocket-Accept", websocket_accept(stream.request))]))
        while sent < 12_000_000:
            await stream.send(b"x" * 50_000)
            sent += 50_000
        stream.end()

    async with running(patient(tmp_path), app_gate(flood)) as proxy:
        reader, writer, _ = await shaken(proxy)
        before = -1
        while before != sent:  # until it has come to a halt
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 12_000_000, "what nobody reads must not pile up"
        assert (await proxy.client.get("/v1/models")).status_code == 200
        received = 0
        while data := await reader.read(1 << 20):
            received += len(data)
        writer.close()
    assert received == sent


async def test_a_service_that_reads_nothing_slows_its_client(tmp_path):
    reading = asyncio.Event()
    received = 0

    async def slow(stream: Stream) -> None:
        nonlocal received
        stream.respond(Head(101, [("Sec-WebSocket-Accept", websocket_accept(stream.request))]))
        await reading.wait()
        while data := await stream.receive():
            received += len(data)
        stream.end()

    async with running(patient(tmp_path), app_gate(slow)) as proxy:
        reader, writer, _ = await shaken(proxy)
        size = 30_000_000
        writer.write(b"x" * size)
        writer.write_eof()
        before, held = -1, 0
        while before != held:  # until it has come to a halt
            before, held = held, writer.transport.get_write_buffer_size()
            await asyncio.sleep(0.2)
        assert held > size // 2, "the proxy must not read what nobody takes"
        reading.set()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    assert received == size


async def test_a_stop_closes_open_websockets(tmp_path):
    async with Room() as room, running(patient(tmp_path), app_gate(room.answer)) as proxy:
        async with connect(url(proxy), additional_headers=AUTHORIZED) as socket:
            proxy.stop.set()
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
        await asyncio.wait_for(proxy.task, 3)
