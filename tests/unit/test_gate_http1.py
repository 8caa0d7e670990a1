"""The gate's HTTP/1.1 client, byte by byte: the same response whatever the pieces, no crash whatever the bytes."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saia_engine.gate.http1 import BadResponse, Connection, ConnectionLost


class Transport:
    """Takes what a connection does to its transport."""

    def __init__(self) -> None:
        self.aborted = False
        self.reading = True

        self.socket = socket.socket()

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.socket

    def write(self, data: bytes) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True
        self.socket.close()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def connection(method: str = "GET", *, upgrade: bool = False) -> tuple[Connection, Transport]:
    made, transport = Connection(), Transport()
    made.connection_made(transport)
    made.begin(method, upgrade=upgrade)
    return made, transport


async def outcome(made: Connection) -> tuple[object, ...]:
    """Status, body and what may come next; or the fault."""
    try:
        async with asyncio.timeout(1):
            status, _ = await made.head()
            body = b""
            while data := await made.read():
                body += data
    except (ConnectionLost, BadResponse) as exc:
        return (type(exc),)
    return status, body, made.reusable


RESPONSES = [
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", False, (200, b"hello", True)),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", True, (ConnectionLost,)),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, (200, b"", True)),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", False, (200, b"", True)),
    ("GET", b"HTTP/1.1 204 No\r\n\r\n", False, (204, b"", True)),
    ("GET", b"HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", False, (304, b"", True)),
    (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n",
        False,
        (200, b"abcde", True),
    ),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", True, (ConnectionLost,)),
    ("GET", b"HTTP/1.1 200 OK\r\n\r\nto the end", True, (200, b"to the end", False)),
    ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False, (200, b"ok", False)),
    (
        "GET",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        False,
        (200, b"ok", True),
    ),
    (
        "GET",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        False,
        (200, b"ok", False),
    ),
    ("GET", b"HTTP/1.1 200 OK\r\nX: a\x01\r\n\r\n", False, (BadResponse,)),
    ("GET", b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", False, (BadResponse,)),
    ("GET", b"garbage\r\n\r\n", False, (BadResponse,)),
    ("GET", b"", True, (ConnectionLost,)),
]


@settings(deadline=None)
@given(st.sampled_from(RESPONSES), st.lists(st.integers(1, 80), max_size=12))
def test_a_response_is_the_same_whatever_the_pieces(case, cuts):
    method, data, eof, expected = case

    async def run() -> None:
        made, _ = connection(method)
        position = 0
        for cut in [*sorted(cuts), len(data)]:
            if data[position:cut]:
                made.data_received(data[position:cut])
                position = cut
        if eof:
            made.eof_received()
        assert await outcome(made) == expected

    asyncio.run(run())


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([part for _, part, _, _ in RESPONSES]), max_size=8))
def test_no_bytes_crash_it(parts):
    async def run() -> None:
        made, transport = connection()
        for part in parts:
            if not transport.aborted:
                made.data_received(part)
        made.connection_lost(None)
        await outcome(made)

    asyncio.run(run())


@pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_surplus_bytes_spoil_the_connection(surplus: bytes):
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    together, _ = connection()
    together.data_received(good + surplus)
    assert await outcome(together) == (200, b"ok", False)
    later, transport = connection()
    later.data_received(good)
    later.data_received(surplus)
    assert await outcome(later) == (200, b"ok", False)
    idle, transport = connection()
    idle.data_received(good)
    assert await outcome(idle) == (200, b"ok", True)
    idle.rest()
    idle.data_received(surplus)
    assert transport.aborted and not idle.reusable


async def test_a_reader_that_is_slow_stops_the_reading():
    made, transport = connection()
    made.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
    assert not transport.reading
    await made.head()
    assert len(await made.read()) == 100_000
    assert transport.reading


async def test_raw_bytes_flow_after_an_upgrade_that_was_asked_for():
    made, _ = connection(upgrade=True)
    made.data_received(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nHTTP/")
    assert (await made.head())[0] == 101 and made.upgraded
    assert await made.read() == b"HTTP/"
    made.data_received(b"\x00\xff")
    assert await made.read() == b"\x00\xff"
    made.eof_received()
    assert await made.read() == b""
    assert not made.reusable


@pytest.mark.parametrize(("begun", "seen"), [(True, ConnectionResetError), (False, type(None))])
async def test_giving_up_an_exchange_is_no_half_close(begun: bool, seen: type) -> None:
    """A plain close is a half-close to the agent: the service would go on with work that nobody waits for."""
    ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            ended.set_result(None)
        except OSError as exc:
            ended.set_result(exc)
        writer.close()

    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    async with server:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, *server.sockets[0].getsockname())
        if begun:
            made.begin("GET")
        made.abort()
        assert isinstance(await asyncio.wait_for(ended, 5), seen)
