"""A client's connection by hand: requests behind one another, bodies that wait to be asked for, ends of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream
from saia_proxy import connection
from tests.unit.proxy_gate import Gate, echo, instance, read_all, service
from tests.unit.proxy_running import KEY, Running, config, running, until

GET = ("GET", "HEAD", "POST")


@contextlib.asynccontextmanager
async def proxy(tmp_path, answer=echo, **settings) -> AsyncIterator[tuple[Running, Gate]]:
    gate = Gate([service(methods=GET)], [instance("one")])
    gate.answers["one"] = answer
    async with running(config(tmp_path, "a", **settings), gate) as served:
        yield served, gate


def request(number: int, *, method: str = "POST", more: str = "", body: bytes | None = None) -> bytes:
    if body is None:
        body = json.dumps({"model": "llama", "n": number}).encode()
    head = (
        f"{method} /v1/chat/completions?model=llama HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"X-Request-Id: r{number}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif "transfer-encoding" in headers:
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    return int(first.split()[1]), headers, body


async def test_requests_sent_at_once_are_answered_in_their_order(tmp_path):
    async def slow_first(stream: Stream) -> None:
        if stream.request.request_id == "r0":
            await asyncio.sleep(0.2)
        await echo(stream)

    async with proxy(tmp_path, slow_first) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"".join(request(number) for number in range(5)))
        answers = [await read_answer(reader) for _ in range(5)]
        writer.close()
    assert [headers["x-request-id"] for _, headers, _ in answers] == [f"r{n}" for n in range(5)]
    assert [json.loads(json.loads(body)["body"])["n"] for _, _, body in answers] == [0, 1, 2, 3, 4]
    assert all("date" in headers for _, headers, _ in answers)


async def test_each_request_on_a_connection_has_its_own_head(tmp_path):
    """What follows from a head that is said again is kept; of another head nothing of it may be left."""
    first = request(1, more="X-Colour: red\r\n")
    others = {
        "no key": first.replace(f"Bearer {KEY}".encode(), b"Basic x"),
        "another key": first.replace(KEY.encode(), b"sk-another"),
        "another colour": first.replace(b"red", b"blue"),
    }
    found: dict[str, list[object]] = {name: [] for name in others}
    async with proxy(tmp_path) as (served, _):
        for name, other in others.items():
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(first + first + other + first)
            for _ in range(4):
                status, _, body = await read_answer(reader)
                passed = dict(json.loads(body)["headers"]) if status == 200 else {}
                assert "authorization" not in passed
                found[name].append(passed.get("x-colour", status))
            writer.close()
    assert found == {
        "no key": ["red", "red", 401, "red"],
        "another key": ["red", "red", 401, "red"],
        "another colour": ["red", "red", "blue", "red"],
    }


async def test_a_body_is_asked_for_when_somebody_wants_it(tmp_path):
    async with proxy(tmp_path) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        whole = request(1, more="Expect: 100-continue\r\n")
        head, _, body = whole.partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == connection.CONTINUE
        writer.write(body)
        status, _, _ = await read_answer(reader)
        writer.write(request(2))
        assert (await read_answer(reader))[0] == status == 200, "and the connection goes on"
        writer.close()


async def test_a_refused_request_that_waits_to_be_asked_ends_the_connection(tmp_path):
    async with proxy(tmp_path) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        whole = request(1, more="Expect: 100-continue\r\n").replace(KEY.encode(), b"wrong")
        writer.write(whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (401, "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_refused_request_whose_body_is_here_leaves_the_connection(tmp_path):
    async with proxy(tmp_path) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1).replace(KEY.encode(), b"wrong") + request(2))
        assert (await read_answer(reader))[0] == 401
        assert (await read_answer(reader))[0] == 200
        writer.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_wants_no_more_gets_an_end(tmp_path, version):
    async with proxy(tmp_path) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        more = "Connection: close\r\n" if version == "1.1" else ""
        writer.write(request(1, more=more).replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_an_answer_to_head_has_a_length_and_no_body(tmp_path):
    async def answer(stream: Stream) -> None:
        await read_all(stream)
        stream.respond(Head(200, [("Content-Length", "12345"), ("ETag", "x")]))
        stream.end()

    async with proxy(tmp_path, answer) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1, method="HEAD", body=b"") + request(2, method="HEAD", body=b""))
        for _ in range(2):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            assert "Content-Length: 12345\r\n" in head
        writer.close()


@pytest.mark.parametrize(("announced", "sent"), [("5", b"123"), ("3", b"12345"), ("many", b"12345")])
async def test_an_answer_of_another_length_than_it_says_never_ends_cleanly(tmp_path, announced, sent):
    async def answer(stream: Stream) -> None:
        await read_all(stream)
        stream.respond(Head(200, [("content-length", announced)]))
        await stream.send(sent)
        stream.end()

    async with proxy(tmp_path, answer) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1))
        if announced == "many":
            assert (await read_answer(reader))[0] == 502, "nothing had been sent yet"
        else:
            _, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
            assert len(body) < int(announced)
        writer.close()


async def test_an_idle_connection_is_closed_and_one_with_a_request_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.3)
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await go_on.wait()
        await echo(stream)

    async with proxy(tmp_path, answer) as (served, gate):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1))
        await until(lambda: gate.opened)
        await asyncio.sleep(0.8)
        go_on.set()
        assert (await read_answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_the_end_of_the_server_leaves_nothing_behind(tmp_path):
    async with proxy(tmp_path) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1))
        assert (await read_answer(reader))[0] == 200
        served.stop.set()
        assert await asyncio.wait_for(reader.read(), 5) == b"", "an idle one is closed at once"
        await asyncio.wait_for(served.task, 5)
        writer.close()


async def test_nothing_is_written_into_a_stream_that_is_held_for_a_cold_start(tmp_path):
    gate = Gate([service(methods=GET, ready=0, starting=1)], [])
    settings = config(tmp_path, "a", max_wait_s=60.0, heartbeat_s=0.05)
    async with running(settings, gate) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request(1, body=b'{"model": "llama", "stream": true}'))
        await asyncio.wait_for(reader.readuntil(b": waiting"), 10)
        writer.write(b"\x16\x03 is not HTTP\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert b"HTTP/1.1" not in rest
    assert not rest.endswith(b"0\r\n\r\n"), "and its end is no clean one"
