"""What is below /services/NAME: any HTTP, byte for byte, its bodies passed on as they come."""

from __future__ import annotations

import asyncio
import hashlib
import random

import httpx
import pytest
import uvloop

from saia_engine.wire import messages
from saia_engine.wire.messages import Head
from saia_engine.wire.mux import WINDOW, Stream
from saia_proxy.config import Timeouts
from tests.unit.proxy_gate import EVENTS, JSON, Gate, echo, instance, read_all, refusing, service, silent
from tests.unit.proxy_running import (
    BODY,
    KEY,
    RESTRICTED_KEY,
    SERVICE_KEY,
    config,
    error_of,
    running,
    until,
    until_async,
)

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
APP = service("app", (), methods=METHODS, paths=("/",))
LONG = random.Random(1).randbytes(900_000)


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


def app_gate(*names: str) -> Gate:
    return Gate(
        [APP, service(models=("llama", "other"))], [instance(name, "app") for name in names or ("one",)]
    )


async def raw(port: int, head: str) -> bytes:
    """The answer to a request written by hand, with the connection's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def in_parts(body: bytes, size: int = 50_000):
    for start in range(0, len(body), size):
        yield body[start : start + size]


# ---------------------------------------------------------------- paths, methods, keys


async def test_the_rest_of_the_path_goes_on_as_it_is_written(tmp_path):
    gate = app_gate()
    async with running(config(tmp_path, "a"), gate) as proxy:
        for path in (
            "/",
            "/a//b/./c",
            "/x%7Ey%2F;v=1?q=%2F&q=a+b&",
            "/services/other/x",
            "/v1/models",
            "/a?",
        ):
            answer = await raw(proxy.port, f"GET /services/app{path} HTTP/1.1")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert gate.opened[-1].request.path == path.removesuffix("?")
    assert gate.opened[-1].request.instance == "one"


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_that_the_service_allows_passes(tmp_path, method):
    gate = app_gate()
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.request(method, "/services/app/x", content=b"\x00body")
        again = await proxy.client.request(method, "/services/app/x")
    assert response.status_code == again.status_code == 200
    assert gate.opened[0].request.method == method
    if method != "HEAD":
        assert (response.json()["body"], again.json()["content_length"]) == ("\x00body", 0)


async def test_other_methods_and_paths_are_refused_and_say_what_is_allowed(tmp_path):
    app = service("app", (), methods=("GET", "PUT"), paths=("/api/", "/health"))
    gate = Gate([app], [instance("one", "app")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        method = await proxy.client.post("/services/app/api/x", content=b"x")
        paths = [await proxy.client.get(f"/services/app/{path}") for path in ("", "api", "healthy", "v1/x")]
    assert (method.status_code, method.headers["allow"]) == (405, "GET, PUT")
    assert error_of(method)["code"] == "method_not_allowed"
    assert {(r.status_code, error_of(r)["code"]) for r in paths} == {(404, "unknown_url")}
    assert not gate.opened


async def test_there_is_nothing_beside_a_services_paths(tmp_path):
    async with running(config(tmp_path, "a"), app_gate()) as proxy:
        for path in ("/services", "/services/", "/services/app", "/services?x=1", "/service/app/x", "/"):
            response = await proxy.client.get(path)
            assert (response.status_code, error_of(response)["code"]) == (404, "unknown_url")
        for path in ("/services//x", "/services/APP/x", "/services/%61pp/x", "/services/nobody/x"):
            answer = await raw(proxy.port, f"GET {path} HTTP/1.1")
            assert answer.startswith(b"HTTP/1.1 404 ") and b'"service_not_found"' in answer


async def test_a_key_reaches_the_services_that_it_names_and_no_other(tmp_path):
    gate = Gate(
        [APP, service("chat", ("llama", "other", "service:app"))], [instance("a", "app"), instance("c")]
    )

    def as_key(key: str) -> dict:
        return {"headers": {"authorization": f"Bearer {key}"}}

    async with running(config(tmp_path, "a"), gate) as proxy:
        allowed = await proxy.client.get("/services/app/x", **as_key(SERVICE_KEY))
        refused = [
            await proxy.client.get("/services/chat/x", **as_key(SERVICE_KEY)),
            await proxy.client.get("/services/nobody/x", **as_key(SERVICE_KEY)),
            # It may use one model of the service, which is not all of the service.
            await proxy.client.post("/services/chat/v1/completions", json={}, **as_key(RESTRICTED_KEY)),
        ]
        model = await proxy.client.post(
            "/v1/completions", json={"model": "service:app"}, **as_key(SERVICE_KEY)
        )
        listed = (await proxy.client.get("/v1/models", **as_key(SERVICE_KEY))).json()["data"]
        everything = await proxy.client.post("/services/chat/v1/completions", json={})
    assert (allowed.status_code, everything.status_code) == (200, 200)
    assert {(r.status_code, error_of(r)["code"]) for r in refused} == {(403, "service_not_allowed")}
    assert refused[0].json() == refused[1].json()
    assert (model.status_code, listed) == (403, [])


async def test_without_a_key_nothing_is_told(tmp_path):
    async with (
        running(config(tmp_path, "a"), app_gate()) as proxy,
        httpx.AsyncClient(base_url=proxy.url) as client,
    ):
        for path in ("/services/app/x", "/services/nobody/x", "/services/app"):
            response = await client.put(path, content=LONG)
            assert (response.status_code, error_of(response)["code"]) == (401, "missing_api_key")


async def test_503_while_nothing_is_connected_and_while_nothing_is_ready(tmp_path):
    gate = Gate([APP], [])
    async with running(config(tmp_path, "a", max_wait_s=0.1), gate) as proxy:
        response = await proxy.client.get("/services/app/x")
        assert (response.status_code, error_of(response)["code"]) == (503, "no_instance")
    away = app_gate()
    away.accepting = False
    async with running(config(tmp_path, "a"), away, wait=False) as proxy:
        response = await proxy.client.get("/services/app/x")
        assert (response.status_code, error_of(response)["code"]) == (503, "upstream_unavailable")
        assert response.headers["retry-after"]


@pytest.mark.parametrize(
    "line",
    [
        "GET http://host HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT host:443 HTTP/1.1",
        "GET /services/app/\x7f HTTP/1.1",
    ],
)
async def test_request_lines_that_name_no_path_are_no_fault_of_ours(tmp_path, line):
    gate = app_gate()
    async with running(config(tmp_path, "a"), gate) as proxy:
        answer = await raw(proxy.port, line)
        assert (await proxy.client.get("/services/app/x")).status_code == 200
    assert answer.split()[1] in (b"400", b"404"), answer
    assert b'"error"' in answer and b"x-request-id" in answer
    assert len(gate.opened) == 1


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize("announced", [True, False])
async def test_a_long_body_goes_on_before_all_of_it_has_come(tmp_path, announced):
    gate = app_gate()
    arrived = asyncio.Event()

    async def answer(stream: Stream) -> None:
        first = await stream.receive()
        arrived.set()
        rest = await read_all(stream)
        stream.respond(Head(200, JSON))
        await stream.send(hashlib.sha256(first + rest).hexdigest().encode())
        stream.end()

    async def body():
        yield LONG[:100_000]
        await arrived.wait()  # the instance has the beginning, though the client has not sent the end
        yield LONG[100_000:]

    gate.answers["one"] = answer
    headers = {"content-length": str(len(LONG))} if announced else {}
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.put("/services/app/x", content=body(), headers=headers)
    assert response.text == hashlib.sha256(LONG).hexdigest()
    request = gate.opened[0].request
    assert (request.content_length, request.chunked) == ((len(LONG), False) if announced else (None, True))


@pytest.mark.parametrize("announced", [True, False])
async def test_a_long_body_that_was_not_taken_goes_whole_to_another_instance(tmp_path, announced):
    gate = app_gate("one", "two", "three")
    begun = asyncio.Event()

    async def refuse_late(stream: Stream) -> None:
        """As a gate does that had to look for a connection first: it has read nothing of the body."""
        await begun.wait()
        stream.reset(messages.DRAINING)

    gate.answers = {"one": refuse_late, "two": refuse_late}

    async def body():
        yield LONG[:300_000]  # more than the gate gives credit for
        begun.set()
        yield LONG[300_000:]

    headers = {"content-length": str(len(LONG))} if announced else {}
    async with running(config(tmp_path, "a"), gate) as proxy:
        for _ in range(8):
            begun.clear()
            response = await proxy.client.put("/services/app/x", content=body(), headers=headers)
            assert response.json()["instance"] == "three"
            assert response.json()["body"].encode("latin-1") == LONG
    assert len(gate.opened) > 8


async def test_a_body_that_was_taken_in_part_is_never_sent_twice(tmp_path):
    gate = app_gate("one", "two")

    async def take_much(stream: Stream) -> None:
        taken = 0
        while taken < WINDOW * 2:
            taken += len(await stream.receive())
        stream.reset(messages.DRAINING)

    gate.answers = dict.fromkeys(("one", "two"), take_much)
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.put("/services/app/x", content=LONG)
    assert (response.status_code, error_of(response)["code"]) == (503, "no_instance")
    assert response.headers["retry-after"]
    assert len(gate.opened) == 1


async def test_a_body_above_the_limit_is_413_announced_or_not(tmp_path):
    gate = app_gate()
    async with running(config(tmp_path, "a", max_body=500_000), gate) as proxy:
        announced = await proxy.client.put("/services/app/x", content=LONG)
        assert not gate.opened
        unannounced = await proxy.client.put("/services/app/x", content=in_parts(LONG))
        await until(lambda: gate.resets)
        assert (await proxy.client.put("/services/app/x", content=LONG[:400_000])).status_code == 200
    for response in (announced, unannounced):
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    assert gate.resets[0].code == messages.CANCELLED


async def test_a_body_that_stops_coming_is_408_and_cancels_the_work(tmp_path):
    gate = app_gate()
    timeouts = Timeouts(connect_s=5, first_byte_s=5, idle_s=0.2, total_s=20)
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"PUT /services/app/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 900000\r\n\r\nbegin".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        await until(lambda: gate.resets)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_an_instance_that_takes_nothing_of_a_body_is_504(tmp_path):
    gate = app_gate()
    gate.answers["one"] = silent
    timeouts = Timeouts(connect_s=5, first_byte_s=0.3, idle_s=5, total_s=20)
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        response = await proxy.client.put("/services/app/x", content=LONG)
    assert (response.status_code, error_of(response)["code"]) == (504, "timeout")
    assert gate.resets[0].code == messages.CANCELLED


@pytest.mark.parametrize("blocked", [True, False])
async def test_a_client_that_goes_away_in_the_middle_of_its_body_cancels_the_work(tmp_path, blocked):
    gate = app_gate()
    gate.answers["one"] = silent if blocked else echo
    async with running(config(tmp_path, "a"), gate) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"PUT /services/app/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 900000\r\n\r\n".encode()
            + LONG[: WINDOW + 1000]
        )
        await until(lambda: gate.opened)
        writer.transport.abort()
        await until(lambda: gate.resets)
        assert gate.resets[0].code == messages.CANCELLED

        async def idle() -> bool:
            return (await proxy.client.get("/healthz")).json()["in_flight"] == 0

        await until_async(idle)


async def test_a_client_that_goes_away_after_its_body_cancels_the_work(tmp_path):
    gate = app_gate()
    read = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await read_all(stream)
        read.set()
        await asyncio.Event().wait()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"PUT /services/app/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 200000\r\n\r\n".encode()
            + LONG[:200_000]
        )
        await asyncio.wait_for(read.wait(), 5)
        writer.close()
        await until(lambda: gate.resets)
    assert gate.resets[0].code == messages.CANCELLED


async def test_an_answer_may_come_before_the_body_ended_and_the_connection_goes_on(tmp_path):
    gate = app_gate()

    async def answer(stream: Stream) -> None:
        await stream.receive()
        stream.respond(Head(403, JSON))
        await stream.send(b"{}")
        stream.end()

    async with running(config(tmp_path, "a"), gate) as proxy:
        gate.answers["one"] = answer
        refused = await proxy.client.put("/services/app/x", content=in_parts(LONG))
        gate.answers.clear()
        after = await proxy.client.put("/services/app/x", content=b"next")
    assert (refused.status_code, refused.content) == (403, b"{}")
    assert after.json()["body"] == "next"


async def test_events_pass_while_the_body_still_goes_up(tmp_path):
    """Both directions at once, as a service may use them."""
    gate = app_gate()

    async def answer(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        while part := await stream.receive():
            await stream.send(part)
        stream.end()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"POST /services/app/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for word in (b"first", b"other"):
            writer.write(b"5\r\n" + word + b"\r\n")
            assert (await asyncio.wait_for(reader.readuntil(word), 5)).endswith(word)
        writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"\r\n0\r\n\r\n")
        writer.close()


async def test_no_clients_bytes_reach_another(tmp_path):
    gate = app_gate("one", "two")
    bodies = [random.Random(seed).randbytes(70_000 + seed * 20_000) for seed in range(20)]

    async def digest(stream: Stream) -> None:
        body = await read_all(stream)
        stream.respond(Head(200, JSON))
        await stream.send(hashlib.sha256(body).hexdigest().encode())
        stream.end()

    async def half_refused(stream: Stream) -> None:
        if stream.id % 2:
            stream.reset(messages.REFUSED)
        else:
            await digest(stream)

    gate.answers = dict.fromkeys(("one", "two"), half_refused)
    timeouts = Timeouts(connect_s=30, first_byte_s=60, idle_s=60, total_s=120)
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        proxy.client.timeout = 60
        calls = [proxy.client.put("/services/app/x", content=in_parts(body, 33_333)) for body in bodies]
        answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == [hashlib.sha256(body).hexdigest() for body in bodies]


# ---------------------------------------------------------------- memory


async def test_bodies_above_the_memory_for_all_are_503_and_free_it_again(tmp_path):
    gate = Gate([service()], [instance("one")])
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 90000\r\n\r\n"
    ).encode()
    settings = config(tmp_path, "a", max_body=100_000, max_buffered=100_000)
    async with running(settings, gate) as proxy:
        big = {"model": "llama", "x": "y" * 60_000}
        _, holding = await asyncio.open_connection("127.0.0.1", proxy.port)
        holding.write(head + b" " * 60_000)

        async def full() -> bool:
            response = await proxy.client.post("/v1/completions", json=big)
            if response.status_code == 503:
                assert error_of(response)["code"] == "overloaded"
                assert response.headers["retry-after"]
                return True
            return False

        await until_async(full)
        assert (await proxy.client.post("/v1/completions", content=BODY)).status_code == 200, (
            "a small one fits"
        )
        holding.close()

        async def free() -> bool:
            return (await proxy.client.post("/v1/completions", json=big)).status_code == 200

        await until_async(free)


async def test_a_body_takes_no_memory_any_more_once_its_answer_begins(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def begin(stream: Stream) -> None:
        await read_all(stream)
        stream.respond(Head(200, EVENTS))
        await stream.send(b"data: 1\n\n")
        await asyncio.Event().wait()

    gate.answers["one"] = begin
    settings = config(tmp_path, "a", max_body=100_000, max_buffered=100_000)
    big = {"model": "llama", "x": "y" * 90_000}
    async with (
        running(settings, gate) as proxy,
        proxy.client.stream("POST", "/v1/completions", json=big) as one,
        proxy.client.stream("POST", "/v1/completions", json=big) as two,
    ):
        assert (one.status_code, two.status_code) == (200, 200)


async def test_a_full_memory_does_not_stop_bodies_that_pass(tmp_path):
    gate = app_gate()
    settings = config(tmp_path, "a", max_body=1 << 20, max_buffered=1024)
    async with running(settings, gate) as proxy:
        response = await proxy.client.put("/services/app/x", content=LONG)
        refused = await proxy.client.put("/services/app/x", content=b"x" * 2000)
    assert response.json()["body"].encode("latin-1") == LONG
    assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")


async def test_who_waits_for_a_go_ahead_gets_the_refusal_and_a_close(tmp_path):
    async with running(config(tmp_path, "a"), app_gate()) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            b"PUT /services/app/x HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer


async def test_the_callers_of_a_service_wait_for_its_replacement(tmp_path):
    gate = app_gate("one", "two")
    gate.answers = {"one": refusing(messages.NO_ROUTE), "two": refusing(messages.NO_ROUTE)}
    async with running(config(tmp_path, "a"), gate) as proxy:
        call = asyncio.create_task(proxy.client.get("/services/app/x"))
        await until(lambda: len(gate.opened) >= 2)
        gate.answers.clear()
        assert (await call).status_code == 200
