"""What clients see, over real sockets: real httpx and openai clients, a gate on the real mux."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace

import httpx
import openai
import pytest
import uvloop

from saia_engine.wire import messages
from saia_engine.wire.messages import Admin, Head, KeyOrder, KeyState, Routes
from saia_engine.wire.mux import Stream
from saia_proxy import connection, tunnel
from saia_proxy.config import ApiKey, Timeouts, hash_key
from tests.unit.proxy_gate import EVENTS, JSON, Gate, echo, instance, read_all, refusing, service, silent
from tests.unit.proxy_running import (
    BODY,
    KEY,
    RESTRICTED_KEY,
    config,
    error_of,
    raw_post,
    running,
    until,
    until_async,
)

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


# ---------------------------------------------------------------- the plain way


async def test_a_request_goes_through_byte_for_byte_without_the_clients_key(tmp_path):
    gate = Gate([service()], [instance("one")])
    body = b'{ "model":"llama",\t"unknown": {"deep": [1, 2.50, "\xc3\xa9"]} }'
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post(
            "/v1/chat/completions?beta=1",
            content=body,
            headers={
                "x-request-id": "mine-1",
                "x-custom": "kept",
                "x-saia-instance": "forged",
                "connection": "keep-alive, x-hop",
                "x-hop": "1",
            },
        )
    assert response.status_code == 200
    seen = response.json()
    assert seen["body"].encode("latin-1") == body
    assert seen["path"] == "/v1/chat/completions?beta=1"
    assert seen["content_length"] == len(body)
    assert seen["request_id"] == response.headers["x-request-id"] == "mine-1"
    names = {name for name, _ in seen["headers"]}
    assert "x-custom" in names
    assert not names & {"authorization", "host", "content-length", "connection", "x-saia-instance", "x-hop"}
    assert KEY not in response.text


async def test_a_malformed_request_id_is_replaced(tmp_path):
    gate = Gate([service()], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post(
            "/v1/embeddings", content=BODY, headers={"x-request-id": "<script> x"}
        )
    assert response.headers["x-request-id"].startswith("req_")
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_stream_passes_as_it_comes_and_unchanged(tmp_path):
    gate = Gate([service()], [instance("one")])
    go_on = asyncio.Event()
    rest = bytes(range(256)) * 4000

    async def answer(stream: Stream) -> None:
        await read_all(stream)
        stream.respond(Head(200, [*EVENTS, ("x-from", "instance")]))
        await stream.send(b"data: 1\n\n")
        await go_on.wait()
        await stream.send(rest)
        stream.end()

    gate.answers["one"] = answer
    async with (
        running(config(tmp_path, "a"), gate) as proxy,
        proxy.client.stream("POST", "/v1/completions", content=BODY) as response,
    ):
        parts = response.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        assert response.headers["x-from"] == "instance"
        assert response.headers["content-type"] == "text/event-stream"
        go_on.set()
        assert b"".join([part async for part in parts]) == rest


async def test_a_body_larger_than_the_window_arrives_whole(tmp_path):
    gate = Gate([service()], [instance("one")])
    body = json.dumps({"model": "llama", "input": "x" * 900_000}).encode()
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post("/v1/embeddings", content=body)
    assert response.json()["body"].encode() == body


async def test_an_answer_may_come_before_a_large_body_was_read(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def answer(stream: Stream) -> None:
        stream.respond(Head(413, JSON))
        await stream.send(b"{}")
        stream.end()

    gate.answers["one"] = answer
    body = json.dumps({"model": "llama", "input": "x" * 900_000}).encode()
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post("/v1/embeddings", content=body)
    assert (response.status_code, response.content) == (413, b"{}")


async def test_the_openai_client_streams_and_lists_models(tmp_path):
    gate = Gate([service(models=("org/llama",), starting=1)], [instance("one")])

    async def answer(stream: Stream) -> None:
        asked = json.loads(await read_all(stream))
        stream.respond(Head(200, EVENTS))
        for n in range(50):
            choice = {"index": 0, "delta": {"content": f"{n} "}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}
            await stream.send(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n".encode())
        await stream.send(b"data: [DONE]\n\n")
        stream.end()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        client = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0)
        async with client:
            listed = [model async for model in client.models.list()]
            one = await client.models.retrieve("org/llama")
            stream = await client.chat.completions.create(
                model="org/llama", messages=[{"role": "user", "content": "count"}], stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert [model.id for model in listed] == ["org/llama"]
    saia = {"state": "ready", "ready": 1, "starting": 1, "queued": 0, "replicas": 2, "eta": None}
    assert one.model_extra == {"saia": saia}
    assert text == "".join(f"{n} " for n in range(50))


async def test_requests_spread_over_instances(tmp_path):
    gate = Gate([service()], [instance(name) for name in ("one", "two")])
    begun = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await begun.wait()
        await echo(stream)

    gate.answers = dict.fromkeys(("one", "two"), answer)
    async with running(config(tmp_path, "a"), gate) as proxy:
        calls = [asyncio.create_task(proxy.chat()) for _ in range(8)]
        await until(lambda: len(gate.opened) == 8)
        begun.set()
        seen = [(await call).json()["instance"] for call in calls]
    assert {name: seen.count(name) for name in set(seen)} == {"one": 4, "two": 4}


# ---------------------------------------------------------------- who may, and what is refused


async def test_without_a_key_or_with_a_wrong_one_nothing_is_told(tmp_path):
    gate = Gate([service()], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        for header in (
            {},
            {"authorization": "Basic x"},
            {"authorization": "Bearer"},
            {"authorization": "Bearer no"},
        ):
            async with httpx.AsyncClient(base_url=proxy.url, headers=header) as client:
                for response in (
                    await client.post("/v1/chat/completions", content=BODY),
                    await client.get("/v1/models"),
                ):
                    assert response.status_code == 401
                    assert response.headers["www-authenticate"] == "Bearer"
                    assert error_of(response)["type"] == "authentication_error"
                    assert "llama" not in response.text
                assert "llama" not in (await client.get("/healthz")).text
    assert not gate.opened


async def test_a_key_sees_and_reaches_only_its_models(tmp_path):
    gate = Gate([service(models=("llama", "other"))], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        restricted = {"authorization": f"Bearer {RESTRICTED_KEY}"}
        listed = (await proxy.client.get("/v1/models", headers=restricted)).json()["data"]
        refused = await proxy.client.post("/v1/completions", content=BODY, headers=restricted)
        absent = await proxy.client.post("/v1/completions", json={"model": "no such"}, headers=restricted)
        hidden = await proxy.client.get("/v1/models/llama", headers=restricted)
        allowed = await proxy.client.post("/v1/completions", json={"model": "other"}, headers=restricted)
    assert [model["id"] for model in listed] == ["other"]
    assert refused.status_code == absent.status_code == 403
    assert error_of(refused) == error_of(absent)
    assert hidden.status_code == 404
    assert allowed.status_code == 200


async def test_a_keys_own_limits_are_429_with_the_time_to_wait(tmp_path):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = silent
    limited = ApiKey("all", hash_key(KEY), ("*",), concurrency=2, per_minute=3)
    settings = replace(config(tmp_path, "a"), keys=(limited,))
    async with running(settings, gate) as proxy:
        waiting = [asyncio.create_task(proxy.chat()) for _ in range(2)]
        await until(lambda: len(gate.opened) == 2)
        third = await proxy.chat()
        del gate.answers["one"]
        for task in waiting:
            task.cancel()
        await until(lambda: len(gate.resets) == 2)
        answers = [await proxy.chat() for _ in range(2)]
    assert (third.status_code, error_of(third)["code"]) == (429, "too_many_concurrent_requests")
    assert [answer.status_code for answer in answers] == [200, 429]
    assert error_of(answers[1])["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[1].headers["retry-after"]) <= 120


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "model_missing"),
        (b"{", "invalid_json"),
        (b'{"model": "llama", "deep": ' + b"[" * 100_000, "invalid_json"),
        (b"[]", "model_missing"),
        (b'{"model": 3}', "model_missing"),
        (b'{"messages": []}', "model_missing"),
        (b'{"model": "\xff"}', "invalid_json"),
    ],
    ids=range(7),
)
async def test_a_body_that_names_no_model_is_refused(tmp_path, body, code):
    gate = Gate([service()], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post("/v1/completions", content=body)
    assert response.status_code == 400
    assert error_of(response)["code"] == code
    assert not gate.opened


async def test_unknown_models_paths_and_methods_are_404_and_405(tmp_path):
    only_chat = messages.ServiceState("chat", ["llama"], ["POST"], ["/v1/chat/completions"], 1, 1)
    gate = Gate([only_chat], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        model = await proxy.chat("gpt-9")
        path = await proxy.client.post("/v1/embeddings", content=BODY)
        outside = await proxy.client.post("/admin", content=BODY)
        method = await proxy.client.get("/v1/chat/completions?model=llama")
        nameless = await proxy.client.get("/v1/chat/completions")
    assert [error_of(r)["code"] for r in (model, path, outside)] == [
        "model_not_found",
        "unknown_url",
        "unknown_url",
    ]
    assert {r.status_code for r in (model, path, outside)} == {404}
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    assert error_of(method)["code"] == "method_not_allowed"
    assert error_of(nameless)["code"] == "model_missing"


async def test_a_body_above_the_limit_is_413_announced_or_not(tmp_path):
    gate = Gate([service()], [instance("one")])
    body = json.dumps({"model": "llama", "input": "x" * 300_000}).encode()

    async def in_parts():
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    async with running(config(tmp_path, "a", max_body=100_000), gate) as proxy:
        announced = await proxy.client.post("/v1/embeddings", content=body)
        unannounced = await proxy.client.post("/v1/embeddings", content=in_parts())
        assert (await proxy.chat()).status_code == 200
    for response in (announced, unannounced):
        assert response.status_code == 413
        assert error_of(response)["code"] == "request_too_large"
    assert len(gate.opened) == 1


async def test_a_body_that_never_comes_is_408(tmp_path):
    gate = Gate([service()], [instance("one")])
    timeouts = Timeouts(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.2)
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            "Content-Length: 100\r\n\r\n{".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_what_is_not_http_is_refused_in_json(tmp_path):
    gate = Gate([], [])
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "bad_http"
    assert b"\r\nx-request-id: req_" in head


async def test_a_head_without_end_is_refused_and_a_slow_one_dropped(tmp_path, monkeypatch):
    gate = Gate([service()], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nx-long: " + b"a" * 300_000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
        writer.close()
        monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.1)
        for beginning in (b"", b"GET /healthz HTTP/1.1\r\n\r\n", b"GET /heal"):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(beginning)
            if b"\r\n\r\n" in beginning:  # then the second request of a connection is the slow one
                await reader.readuntil(b'"in_flight":0}')
                writer.write(b"GET /heal")
            assert await asyncio.wait_for(reader.read(), 3) == b""
            writer.close()


async def test_a_long_body_on_a_kept_connection_counts_as_no_head(tmp_path):
    gate = Gate([service()], [instance("one")])
    big = {"model": "llama", "input": "x" * 200_000}
    async with running(config(tmp_path, "a"), gate) as proxy:
        assert [(await proxy.client.post("/v1/embeddings", json=big)).status_code for _ in range(3)] == [
            200
        ] * 3


async def test_an_upgrade_with_a_body_is_refused_by_its_name(tmp_path):
    gate = Gate([service()], [instance("one")])
    headers = {"connection": "Upgrade", "upgrade": "h2c"}
    async with running(config(tmp_path, "a"), gate) as proxy:
        refused = await proxy.client.post("/v1/embeddings", json={"model": "llama"}, headers=headers)
        assert (await proxy.client.get("/v1/models", headers=headers)).status_code == 200
    assert refused.status_code == 400
    assert "Upgrade" in refused.json()["error"]["message"]
    assert not gate.opened


# ---------------------------------------------------------------- to another instance, or not


@pytest.mark.parametrize(
    "code", [messages.DRAINING, messages.NO_ROUTE, messages.REFUSED, messages.TOO_LATE, messages.CLOSING]
)
async def test_a_request_not_taken_moves_to_another_instance(tmp_path, code):
    gate = Gate([service()], [instance("one"), instance("two")])
    gate.answers["one"] = refusing(code)
    async with running(config(tmp_path, "a"), gate) as proxy:
        responses = [await proxy.chat() for _ in range(12)]
    assert {r.status_code for r in responses} == {200}
    assert {r.json()["instance"] for r in responses} == {"two"}
    tries = [stream.request.instance for stream in gate.opened].count("one")
    assert tries <= 1, "an instance that just refused is left alone while there is another"


async def test_one_that_drains_is_not_asked_again_until_new_routes_say_so(tmp_path):
    gate = Gate([service()], [instance("one"), instance("two")])
    gate.answers["one"] = refusing(messages.DRAINING)
    async with running(config(tmp_path, "a"), gate) as proxy:
        while not any(stream.request.instance == "one" for stream in gate.opened):
            assert (await proxy.chat()).status_code == 200
        gate.answers["one"] = echo
        gate.opened.clear()
        for _ in range(10):
            await proxy.chat()
        assert {stream.request.instance for stream in gate.opened} == {"two"}
        gate.tell(Routes(2, [service()], [instance("one"), instance("two", draining=True)]))
        await until(lambda: gate.applied[-1].routes_generation == 2)
        assert (await proxy.chat()).json()["instance"] == "one"


async def test_a_request_waits_for_the_replacement_that_is_about_to_come(tmp_path, monkeypatch):
    monkeypatch.setattr(tunnel, "METRICS_INTERVAL_S", 0.1)
    gate = Gate([service()], [instance("old", draining=True)])
    async with running(config(tmp_path, "a", max_wait_s=10.0), gate) as proxy:
        call = asyncio.create_task(proxy.chat())
        await until(lambda: any(m.queued == {"chat": 1} for m in gate.metrics))
        gate.tell(Routes(2, [service()], [instance("old", draining=True), instance("new")]))
        response = await call
        gate.metrics.clear()
        await until(lambda: len(gate.metrics) >= 4)
        assert not any(m.queued for m in gate.metrics[-2:])
    assert response.json()["instance"] == "new"


async def test_a_refusal_while_the_gate_warms_up_is_overcome(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def third_time(stream: Stream) -> None:
        if len(gate.opened) < 3:
            stream.reset(messages.REFUSED)
        else:
            await echo(stream)

    gate.answers["one"] = third_time
    async with running(config(tmp_path, "a"), gate) as proxy:
        assert (await proxy.chat()).status_code == 200
    assert len(gate.opened) == 3


@pytest.mark.parametrize(("starting", "retry"), [(1, "5"), (0, "15")])
async def test_503_with_retry_after_when_no_instance_is_left(tmp_path, starting, retry):
    gate = Gate([service(starting=starting)], [instance("one"), instance("two", draining=True)])
    gate.answers["one"] = refusing(messages.DRAINING)
    async with running(config(tmp_path, "a", max_wait_s=0.2), gate) as proxy:
        response = await proxy.chat()
    assert (response.status_code, response.headers["retry-after"]) == (503, retry)
    assert error_of(response)["code"] == "no_instance"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (messages.INSTANCE_LOST, 502),
        (messages.BAD_RESPONSE, 502),
        (messages.CANCELLED, 502),
        (messages.OVERFLOW, 502),
        ("a code of the future", 502),
        (messages.FORBIDDEN, 403),
    ],
)
async def test_what_may_have_been_taken_or_is_refused_for_good_is_never_repeated(tmp_path, code, status):
    gate = Gate([service()], [instance("one"), instance("two")])
    gate.answers = dict.fromkeys(("one", "two"), refusing(code))
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.chat()
    assert response.status_code == status
    error_of(response)
    assert len(gate.opened) == 1


async def test_a_head_that_http_cannot_carry_is_502(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def answer(stream: Stream) -> None:
        stream.respond(Head(99, []))
        await asyncio.Event().wait()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.chat()
        await until(lambda: gate.resets)
    assert response.status_code == 502
    assert gate.resets[0].code == messages.CANCELLED


async def test_headers_that_http_cannot_carry_are_dropped(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def answer(stream: Stream) -> None:
        stream.respond(
            Head(200, [("x-bad", "a\r\nx-forged: 1"), ("bad name", "1"), ("x-☺", "1"), ("x-ok", "é")])
        )
        stream.end()

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.chat()
    assert response.status_code == 200
    assert not {"x-bad", "x-forged", "bad name"} & set(response.headers)
    assert response.headers["x-ok"] == "é"


async def test_an_answer_without_a_body_keeps_the_connection_whatever_length_it_announces(tmp_path):
    gate = Gate([service()], [instance("one")])
    statuses = iter((204, 304, 204))

    async def answer(stream: Stream) -> None:
        stream.respond(Head(next(statuses), [("content-length", "55"), ("etag", "x")]))
        stream.end()

    gate.answers["one"] = answer
    ports = set()
    async with running(config(tmp_path, "a"), gate) as proxy:
        for status in (204, 304, 204):
            response = await proxy.chat()
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr")[1])
            assert (response.status_code, response.headers["etag"]) == (status, "x")
            assert "content-length" not in response.headers
    assert len(ports) == 1


# ---------------------------------------------------------------- cut off, gone, slow


async def half_an_answer(stream: Stream) -> None:
    await read_all(stream)
    stream.respond(Head(200, EVENTS))
    await stream.send(b"data: 1\n\n")
    await asyncio.Event().wait()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("how", ["instance", "tunnel"])
async def test_an_answer_that_breaks_off_never_ends_cleanly(tmp_path, how, version):
    gate = Gate([service()], [instance("one"), instance("two")])
    gate.answers = dict.fromkeys(("one", "two"), half_an_answer)
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await raw_post(proxy.port, BODY, version=version)
        head = await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"1\n\n\r\n")
        if how == "instance":
            gate.opened[0].reset(messages.INSTANCE_LOST)
        else:
            gate.cut()
        assert await reader.read() == b"", "no last chunk"
        writer.close()
    assert b"transfer-encoding: chunked" in head
    assert len(gate.opened) == 1


async def test_httpx_notices_a_broken_answer(tmp_path):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = half_an_answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        with pytest.raises(httpx.RemoteProtocolError):
            async with proxy.client.stream("POST", "/v1/completions", content=BODY) as response:
                async for _ in response.aiter_raw():
                    gate.opened[0].reset(messages.INSTANCE_LOST)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_goes_away_cancels_the_work_at_once(tmp_path, begun):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = half_an_answer if begun else silent
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await raw_post(proxy.port, BODY)
        await until(lambda: gate.opened)
        if begun:
            await reader.readuntil(b"1\n\n\r\n")
        writer.close()
        await until(lambda: gate.resets, within_s=1)
        assert gate.resets[0].code == messages.CANCELLED
        assert (await proxy.client.get("/healthz")).json()["in_flight"] == 0


async def test_a_slow_reader_slows_only_its_own_stream(tmp_path):
    gate = Gate([service()], [instance("one")])
    sent = 0
    size = 12_000_000

    async def answer(stream: Stream) -> None:
        nonlocal sent
        if stream.request.path != "/v1/slow":
            return await echo(stream)
        stream.respond(Head(200, EVENTS))
        while sent < size:
            await stream.send(b"x" * 50_000)
            sent += 50_000
        stream.end()
        return None

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        reader, writer = await raw_post(proxy.port, BODY, path="/v1/slow")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        before = -1
        while before != sent:  # until it has come to a halt
            before = sent
            await asyncio.sleep(0.1)
        assert sent < size, "what nobody reads must not pile up"
        responses = [await proxy.chat() for _ in range(20)]
        assert {r.status_code for r in responses} == {200}
        received, body = 0, b""
        while not body.endswith(b"0\r\n\r\n"):
            part = await reader.read(1 << 20)
            received += len(part)
            body = (body + part)[-16:]
        writer.close()
    assert sent == size
    assert received > size


@pytest.mark.parametrize(
    ("timeouts", "answer"),
    [
        (Timeouts(5, 0.2, 5, 20), silent),
        (Timeouts(5, 5, 5, 0.2), silent),
    ],
)
async def test_an_instance_that_says_nothing_is_504_and_its_work_is_cancelled(tmp_path, timeouts, answer):
    gate = Gate([service()], [instance("one"), instance("two")])
    gate.answers = dict.fromkeys(("one", "two"), answer)
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        response = await proxy.chat()
        await until(lambda: gate.resets)
    assert response.status_code == 504
    assert error_of(response)["code"] == "timeout"
    assert gate.resets[0].code == messages.CANCELLED
    assert len(gate.opened) == 1


@pytest.mark.parametrize("timeouts", [Timeouts(5, 5, 0.2, 20), Timeouts(5, 5, 5, 0.3)])
async def test_an_answer_that_stalls_is_cut_off(tmp_path, timeouts):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = half_an_answer
    async with running(config(tmp_path, "a", timeouts=timeouts), gate) as proxy:
        with pytest.raises(httpx.RemoteProtocolError):
            await proxy.chat()
        await until(lambda: gate.resets)


async def test_a_client_that_never_reads_is_cut_off_in_the_end(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def endless(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        while True:
            await stream.send(b"x" * 50_000)

    gate.answers["one"] = endless
    async with running(config(tmp_path, "a", timeouts=Timeouts(5, 5, 5, 0.5)), gate) as proxy:
        _, writer = await raw_post(proxy.port, BODY)
        await until(lambda: gate.resets)

        async def idle() -> bool:
            return (await proxy.client.get("/healthz")).json()["in_flight"] == 0

        await until_async(idle)
        writer.close()


# ---------------------------------------------------------------- tunnels


async def test_without_any_upstream_503_and_not_404(tmp_path):
    gate = Gate([service()], [instance("one")])
    gate.accepting = False
    async with running(config(tmp_path, "a"), gate, wait=False) as proxy:
        response = await proxy.chat()
        health = await proxy.client.get("/healthz")
    assert (response.status_code, error_of(response)["code"]) == (503, "upstream_unavailable")
    assert response.headers["retry-after"]
    assert health.status_code == 503
    assert health.json()["upstreams"] == {"connected": 0, "configured": 1}


async def test_a_lost_tunnel_is_502_for_open_requests_and_comes_back_by_itself(tmp_path):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = silent
    async with running(config(tmp_path, "a", max_wait_s=10.0), gate) as proxy:
        call = asyncio.create_task(proxy.chat())
        await until(lambda: gate.opened)
        gate.cut()
        response = await call
        assert (response.status_code, error_of(response)["code"]) == (502, "tunnel_lost")
        gate.answers.clear()
        assert (await proxy.chat()).status_code == 200, "waits for the new tunnel"


async def test_two_upstreams_are_one_offer_and_either_may_fail(tmp_path):
    first = Gate([service()], [instance("one")])
    second = Gate([service(), service("embed", ("e5",))], [instance("two"), instance("three", "embed")])
    async with running(config(tmp_path, "a", "b"), first, second) as proxy:
        listed = {
            model["id"]: model["saia"]["ready"]
            for model in (await proxy.client.get("/v1/models")).json()["data"]
        }
        assert listed == {"llama": 2, "e5": 1}
        seen = {(await proxy.chat()).json()["instance"] for _ in range(30)}
        assert seen == {"one", "two"}
        first.accepting = False
        first.cut()
        await proxy.connected(1)
        assert {(await proxy.chat()).json()["instance"] for _ in range(5)} == {"two"}
        assert (await proxy.chat("e5")).json()["instance"] == "three"


# ---------------------------------------------------------------- maintenance, stop


async def test_maintenance_refuses_new_requests_keeps_streams_and_survives_a_restart(tmp_path):
    gate = Gate([service()], [instance("one")])
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        await stream.send(b"1")
        await go_on.wait()
        await stream.send(b"2")
        stream.end()

    gate.answers["one"] = answer
    settings = config(tmp_path, "a")
    async with running(settings, gate) as proxy:
        async with proxy.client.stream("POST", "/v1/completions", content=BODY) as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"1"
            gate.order(Admin(7, True))
            await until(lambda: gate.applied[-1].admin_revision == 7)
            refused = await proxy.chat()
            assert (refused.status_code, error_of(refused)["code"]) == (503, "maintenance")
            assert refused.headers["retry-after"]
            go_on.set()
            assert [part async for part in parts] == [b"2"]
        assert (await proxy.client.get("/v1/models")).status_code == 200
    again = Gate([service()], [instance("one")])
    again.accepting = False
    async with running(settings, again, wait=False) as proxy:
        assert error_of(await proxy.chat())["code"] == "maintenance", "before any engine says so again"
        again.admin = Admin(8, False)
        again.accepting = True
        await proxy.connected()
        await until(lambda: again.applied and again.applied[-1].admin_revision == 8)
        assert (await proxy.chat()).status_code == 200


async def test_a_revoked_key_is_refused_everywhere_while_its_open_requests_go_on(tmp_path):
    gate = Gate([service()], [instance("one")])
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        stream.respond(Head(200, EVENTS))
        await go_on.wait()
        await stream.send(b"1")
        stream.end()

    gate.answers["one"] = answer
    settings = config(tmp_path, "a")
    revoked = Admin(7, keys={"all": KeyOrder(revoked=True), "nobody": KeyOrder(revoked=True)})
    async with running(settings, gate) as proxy:
        async with proxy.client.stream("POST", "/v1/completions", content=BODY) as response:
            gate.order(revoked)
            await until(lambda: gate.applied and gate.applied[-1].admin_revision == 7)
            for refused in (
                await proxy.chat(),
                await proxy.client.get("/v1/models"),
                await proxy.client.post("/services/chat/v1/x"),
            ):
                error = error_of(refused)
                assert (refused.status_code, error["code"]) == (401, "key_revoked")
                assert error["type"] == "authentication_error"
            other = {"authorization": f"Bearer {RESTRICTED_KEY}"}
            assert (await proxy.client.get("/v1/models", headers=other)).status_code == 200
            go_on.set()
            assert await response.aread() == b"1"
        told = {}

        def all_told() -> bool:
            told.update({row.name: row for said in gate.metrics for row in said.keys})
            return bool(told) and told["all"].refused == 3

        await until(all_told)
        assert told["all"] == KeyState("all", "*", True, requests=1, refused=3)
        assert told["service"] == KeyState("service", "service:app")
        gate.order(Admin(8, keys={"all": KeyOrder(per_minute=1)}))
        await until(lambda: gate.applied[-1].admin_revision == 8)
        limited = await proxy.chat()
        assert (limited.status_code, error_of(limited)["code"]) == (429, "rate_limit_exceeded")
        gate.order(Admin(9, keys=revoked.keys))
        await until(lambda: gate.applied[-1].admin_revision == 9)
    away = Gate([service()], [instance("one")])
    away.accepting = False
    async with running(settings, away, wait=False) as proxy:
        assert error_of(await proxy.chat())["code"] == "key_revoked", "before any engine says so again"


async def test_a_stop_lets_open_requests_end(tmp_path):
    gate = Gate([service()], [instance("one")])
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await go_on.wait()
        await echo(stream)

    gate.answers["one"] = answer
    async with running(config(tmp_path, "a"), gate) as proxy:
        call = asyncio.create_task(proxy.chat())
        await until(lambda: gate.opened)
        proxy.stop.set()
        with pytest.raises(httpx.ConnectError):
            async with asyncio.timeout(3):
                while True:
                    async with httpx.AsyncClient() as other:
                        # One that was accepted just before the stop is closed without an answer.
                        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                            await other.get(f"{proxy.url}/healthz")
        go_on.set()
        assert (await call).status_code == 200
        await asyncio.wait_for(proxy.task, 3)
