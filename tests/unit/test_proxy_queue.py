"""Cold starts and overload over real sockets: who waits, in which order, what clients see meanwhile and at the end."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import cast

import httpx
import openai
import pytest

from saia_engine.wire import messages
from saia_engine.wire.messages import Head, Routes
from saia_engine.wire.mux import Stream
from saia_proxy import tunnel
from saia_proxy.config import QueueRule, Queues
from saia_proxy.errors import ClientGone
from saia_proxy.exchange import Exchange
from saia_proxy.metrics import Metrics
from saia_proxy.queue import Place, Queue
from saia_proxy.routing import RoutingTable
from saia_proxy.visit import Visit
from tests.unit.proxy_gate import EVENTS, JSON, Gate, echo, instance, read_all, refusing, service
from tests.unit.proxy_running import (
    BODY,
    KEY,
    Running,
    config,
    error_of,
    raw_post,
    running,
    until_async,
)
from tests.unit.proxy_running import until as until_within

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")

STREAMED = json.dumps({"model": "llama", "messages": [], "stream": True}).encode()
STARTING = service(ready=0, starting=1)
LONG_S = 60.0
"""Longer than any test."""
until = partial(until_within, within_s=LONG_S)


class Valve:
    """An answer that each request waits for until it is let go, one by one and in the order of their coming."""

    def __init__(self) -> None:
        self.held: list[tuple[Stream, asyncio.Event]] = []

    async def __call__(self, stream: Stream) -> None:
        go = asyncio.Event()
        self.held.append((stream, go))
        await go.wait()
        await echo(stream)

    def release(self) -> str:
        """The first one goes; its request's id."""
        stream, go = self.held.pop(0)
        go.set()
        return stream.request.request_id


def ask(proxy: Running, name: str, path: str = "/v1/chat/completions") -> asyncio.Task[httpx.Response]:
    call = proxy.client.post(path, json={"model": "llama"}, headers={"x-request-id": name})
    return asyncio.create_task(call)


async def metric(proxy: Running, start: str) -> dict[str, float]:
    lines = (await proxy.client.get("/metrics")).text.splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines)
        if name.startswith(start)
    }


async def waiting(proxy: Running, number: int, of: str = "chat") -> None:
    name = f'saia_proxy_queued{{service="{of}"}}'

    async def so_many() -> bool:
        return (await metric(proxy, name)).get(name, 0.0) == number

    await until_async(so_many, within_s=LONG_S)


# ---------------------------------------------------------------- order and bounds


async def test_first_in_first_out_and_no_more_at_an_instance_than_it_may_have(tmp_path):
    valve = Valve()
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = valve
    async with running(config(tmp_path, "a", max_in_flight=2, max_wait_s=LONG_S), gate) as proxy:
        names, calls = [f"r{n}" for n in range(8)], []
        for number, name in enumerate(names):
            path = "/services/chat/v1/embeddings" if number % 3 == 2 else "/v1/chat/completions"
            calls.append(ask(proxy, name, path))
            await (
                until(lambda n=number: len(gate.opened) == n + 1)
                if number < 2
                else waiting(proxy, number - 1)
            )
        served = []
        while len(served) < len(names):
            await until(lambda: len(valve.held) == min(2, len(names) - len(served)))
            assert len(gate.opened) == min(len(names), len(served) + 2), "as many as may, and no more"
            served.append(valve.release())
        assert {(await call).status_code for call in calls} == {200}
        waited = await metric(proxy, "saia_proxy_waited_seconds_count")
    assert served == names
    assert list(waited.values()) == [6.0]


async def test_a_full_queue_is_429_and_who_leaves_makes_room_at_once(tmp_path):
    valve = Valve()
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = valve
    settings = config(tmp_path, "a", max_in_flight=1, max_waiting=2, max_wait_s=LONG_S)
    async with running(settings, gate) as proxy:
        calls = [ask(proxy, "r0")]
        await until(lambda: valve.held)
        _, leaver = await raw_post(proxy.port, BODY)
        await waiting(proxy, 1)
        calls.append(ask(proxy, "r1"))
        await waiting(proxy, 2)
        refused = await ask(proxy, "r2")
        assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
        assert refused.headers["retry-after"] == "5", "nobody has gone yet"
        leaver.close()
        await waiting(proxy, 1)
        calls.append(ask(proxy, "r3"))
        await waiting(proxy, 2)
        served = []
        for _ in calls:
            await until(lambda: valve.held)
            served.append(valve.release())
        assert [(await call).status_code for call in calls] == [200] * 3
        refusals = await metric(proxy, "saia_proxy_queue_refusals_total")
        assert (await proxy.client.get("/healthz")).json()["in_flight"] == 0
    assert served == ["r0", "r1", "r3"]
    assert refusals == {'saia_proxy_queue_refusals_total{reason="full",service="chat"}': 1.0}


async def test_an_instance_that_comes_takes_all_that_wait_and_each_just_once(tmp_path):
    gate = Gate([STARTING], [])
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy:
        calls = [ask(proxy, f"r{n}") for n in range(50)]
        await waiting(proxy, 50)
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert {(await call).status_code for call in calls} == {200}
    assert Counter(stream.request.request_id for stream in gate.opened) == Counter(f"r{n}" for n in range(50))


async def test_who_was_refused_goes_again_before_those_that_came_later(tmp_path):
    gate = Gate([service()], [instance("one")])
    valve = Valve()
    gate.answers["one"] = valve
    async with running(config(tmp_path, "a", max_in_flight=1, max_wait_s=LONG_S), gate) as proxy:
        calls = [ask(proxy, "first")]
        await until(lambda: valve.held)
        calls.append(ask(proxy, "second"))
        await waiting(proxy, 1)
        valve.held.pop(0)[0].reset(messages.REFUSED)
        served = []
        for _ in calls:
            await until(lambda: valve.held)
            served.append(valve.release())
        assert [(await call).status_code for call in calls] == [200, 200]
    assert served == ["first", "second"]


async def test_a_service_without_replicas_is_refused_at_once_and_told_of_as_demand(tmp_path, monkeypatch):
    monkeypatch.setattr(tunnel, "METRICS_INTERVAL_S", 0.05)
    gate = Gate([service(replicas=0, ready=0)], [])
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy:
        response = await proxy.chat()
        await until(lambda: any(said.queued == {"chat": 1} for said in gate.metrics))
    assert (response.status_code, error_of(response)["code"]) == (503, "no_instance")
    assert response.headers["retry-after"] == "15"


async def test_who_would_wait_in_vain_is_refused_at_once(tmp_path):
    in_an_hour = service(ready=0, starting=1, queued=1, eta=time.time() + 3600)
    gate = Gate([in_an_hour], [])
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy:
        response = await proxy.chat()
        refusals = await metric(proxy, "saia_proxy_queue_refusals_total")
    assert (response.status_code, response.headers["retry-after"]) == (503, "600")
    assert list(refusals) == ['saia_proxy_queue_refusals_total{reason="not_soon",service="chat"}']


async def test_a_service_may_have_a_rule_of_its_own(tmp_path):
    gate = Gate([STARTING, service("embed", ("e5",), ready=0, starting=1)], [])
    queues = Queues(QueueRule(max_wait_s=LONG_S), {"embed": QueueRule(max_wait_s=0)})
    async with running(replace(config(tmp_path, "a"), queues=queues), gate) as proxy:
        call = ask(proxy, "r0")
        await waiting(proxy, 1)
        assert (await proxy.chat("e5")).status_code == 503
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert (await call).status_code == 200


async def test_a_model_that_goes_while_one_waits_for_it_is_404(tmp_path):
    gate = Gate([STARTING], [])
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy:
        call = ask(proxy, "r0")
        await waiting(proxy, 1)
        gate.tell(Routes(2, [], []))
        assert (await call).status_code == 404
        await waiting(proxy, 0)


async def test_a_stop_turns_away_who_waits_so_that_it_asks_the_next_process(tmp_path):
    gate = Gate([STARTING], [])
    settings = config(tmp_path, "a", max_wait_s=LONG_S, heartbeat_s=0.05)
    async with running(settings, gate) as proxy:
        reader, writer = await raw_post(proxy.port, STREAMED)
        await reader.readuntil(b": waiting")
        call = ask(proxy, "r0")
        await waiting(proxy, 2)
        proxy.stop.set()
        response = await call
        told = await reader.read()
        writer.close()
    assert (response.status_code, error_of(response)["code"]) == (503, "shutdown")
    assert b'"code":"shutdown"' in told
    assert told.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("how", ["gone", "cancelled"])
async def test_a_place_given_to_one_that_just_left_goes_to_the_next(how):
    table = RoutingTable(("a",), most_at=lambda service: 1)
    queue = Queue(table, Queues(QueueRule(max_wait_s=LONG_S)), Metrics())
    table.update("a", Routes(1, [STARTING], []))

    def visit() -> tuple[SimpleNamespace, asyncio.Task[Place]]:
        client = SimpleNamespace(gone=False)
        waits = Visit(
            queue,
            cast(Exchange, client),
            "model",
            find=lambda: table.models["llama"],
            affinity=b"",
            events=lambda: False,
        )
        return client, asyncio.create_task(waits.place())

    (client, leaver), (_, follower) = visit(), visit()
    await until(lambda: queue.waiting("chat") == 2)
    table.update("a", Routes(2, [service()], [instance("one")]))
    assert (queue.waiting("chat"), table.in_flight) == (1, 1)
    if how == "gone":
        client.gone = True
    else:
        leaver.cancel()
    place = await follower
    assert table.in_flight == 1
    place.leave()
    assert (table.in_flight, table.ways["a"].in_flight) == (0, 0)
    with pytest.raises(ClientGone if how == "gone" else asyncio.CancelledError):
        await leaver


# ---------------------------------------------------------------- the gate's limits, and floods


async def test_at_the_gates_limit_a_request_waits_and_goes_again(tmp_path):
    gate = Gate([service()], [instance("one")])

    async def third_time(stream: Stream) -> None:
        if len(gate.opened) < 3:
            stream.reset(messages.LIMIT)
        else:
            await echo(stream)

    gate.answers["one"] = third_time
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy:
        assert (await proxy.chat()).status_code == 200
    assert len(gate.opened) == 3


async def test_at_a_limit_that_lasts_it_is_429(tmp_path):
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = refusing(messages.LIMIT)
    async with running(config(tmp_path, "a", max_wait_s=0.5), gate) as proxy:
        response = await proxy.chat()
    assert (response.status_code, error_of(response)["code"]) == (429, "too_many_requests")
    assert response.headers["retry-after"] == "1"


@asynccontextmanager
async def for_many(proxy: Running) -> AsyncIterator[None]:
    """Its client has as many connections as it likes."""
    own = proxy.client
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=own.base_url, headers=own.headers, limits=limits, timeout=LONG_S
    ) as proxy.client:
        yield
    proxy.client = own


def two_services() -> Gate:
    return Gate([service(), service("other", ("small",))], [instance("one"), instance("two", "other")])


async def test_a_flood_on_one_service_leaves_another_alone(tmp_path):
    gate, valve = two_services(), Valve()
    gate.answers["one"] = valve
    settings = config(tmp_path, "a", max_in_flight=4, max_waiting=100, max_wait_s=LONG_S)
    async with running(settings, gate) as proxy, for_many(proxy):
        flood = [ask(proxy, f"r{n}") for n in range(200)]
        await waiting(proxy, 100)
        await until(lambda: sum(call.done() for call in flood) == 96)
        before = len(gate.opened)
        answers = [await proxy.chat("small") for _ in range(20)]
        assert {answer.json()["instance"] for answer in answers} == {"two"}
        assert len(gate.opened) == before + 20, "nobody of the flood has gone meanwhile"
        assert not (await metric(proxy, 'saia_proxy_waited_seconds_count{service="other"}'))
        gate.answers["one"] = echo
        while valve.held:
            valve.release()
        assert Counter([(await call).status_code for call in flood]) == {200: 104, 429: 96}


async def test_while_a_flood_fills_the_gate_another_service_has_its_turn(tmp_path):
    """The gate carries 4 streams in all."""
    gate, valve = two_services(), Valve()
    under_way = 0

    async def of_four(stream: Stream) -> None:
        nonlocal under_way
        if under_way == 4:
            stream.reset(messages.LIMIT)
            return
        under_way += 1
        try:
            await valve(stream)
        finally:
            under_way -= 1

    gate.answers = dict.fromkeys(("one", "two"), of_four)
    async with running(config(tmp_path, "a", max_wait_s=LONG_S), gate) as proxy, for_many(proxy):
        flood = [ask(proxy, f"r{n}") for n in range(50)]
        await waiting(proxy, 46)
        small = asyncio.create_task(proxy.chat("small"))
        await waiting(proxy, 1, "other")
        released = 0
        while not any(stream.request.instance == "two" for stream, _ in valve.held):
            valve.release()
            released += 1
            await until(lambda: len(valve.held) == 4)
        assert released <= 3, "it waits for its turn, not for the 46 before it"
        gate.answers = {}
        while valve.held:
            valve.release()
        assert (await small).status_code == 200
        assert {(await call).status_code for call in flood} == {200}


# ---------------------------------------------------------------- what streaming clients see


async def events(stream: Stream) -> None:
    asked = json.loads(await read_all(stream))
    stream.respond(Head(200, [*EVENTS, ("x-from", "instance")]))
    for number in range(5):
        choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": asked["model"]}
        await stream.send(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n".encode())
    await stream.send(b"data: [DONE]\n\n")
    stream.end()


def client_of(proxy: Running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0)


async def text_of(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(model="llama", messages=[], stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def test_a_stream_that_waits_gets_comments_and_then_its_events(tmp_path):
    gate = Gate([STARTING], [])
    gate.answers["one"] = events
    async with running(config(tmp_path, "a", heartbeat_s=0.05, max_wait_s=LONG_S), gate) as proxy:
        reader, writer = await raw_post(proxy.port, STREAMED)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        for _ in range(3):
            assert await reader.readuntil(b"\n\n\r\n") == b"b\r\n: waiting\n\n\r\n"
        gate.tell(Routes(2, [service()], [instance("one")]))
        rest = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    assert head.startswith(b"http/1.1 200 ")
    for line in (
        b"content-type: text/event-stream",
        b"cache-control: no-cache",
        b"x-accel-buffering: no",
        b"x-request-id: req_",
    ):
        assert b"\r\n" + line in head
    assert b'"content": "4 "' in rest
    assert b"data: [DONE]\n\n" in rest
    assert rest.rfind(b": waiting") < rest.find(b"data: "), "nothing of ours within the answer"


async def test_the_openai_client_gets_all_tokens_after_comments(tmp_path):
    gate = Gate([STARTING], [])
    gate.answers["one"] = events
    settings = config(tmp_path, "a", heartbeat_s=0.05, max_wait_s=LONG_S)
    async with running(settings, gate) as proxy, client_of(proxy) as client:
        call = asyncio.create_task(text_of(client))
        await asyncio.sleep(0.3)
        assert not call.done()
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert await call == "0 1 2 3 4 "


@pytest.mark.parametrize(
    "body", [BODY, b'{"model": "llama", "stream": false}', b'{"model": "llama", "stream": "true"}']
)
async def test_who_asked_for_no_stream_gets_its_answer_as_it_is(tmp_path, body):
    gate = Gate([STARTING], [])

    async def teapot(stream: Stream) -> None:
        stream.respond(Head(418, JSON))
        stream.end()

    gate.answers["one"] = teapot
    async with running(config(tmp_path, "a", heartbeat_s=0.01, max_wait_s=LONG_S), gate) as proxy:
        call = asyncio.create_task(proxy.client.post("/v1/completions", content=body))
        await waiting(proxy, 1)
        await asyncio.sleep(0.1)
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert (await call).status_code == 418


def answering(status: int, headers: list[tuple[str, str]], body: bytes):
    async def answer(stream: Stream) -> None:
        stream.respond(Head(status, headers))
        await stream.send(body)
        stream.end()

    return answer


THEIRS = {"message": "the prompt is too long", "type": "BadRequest", "param": None, "code": 400}
FAILED = "The service answered with status 500."
NO_STREAM = "The service answered with something else than a stream."
LOST = "The instance was lost before it answered; it may have begun its work."
PACKED = gzip.compress(b"data: x\n\n")


@pytest.mark.parametrize(
    ("answer", "message", "logged"),
    [
        (answering(400, JSON, json.dumps({"error": THEIRS}, indent=2).encode()), THEIRS["message"], ("400", "ok")),
        (answering(500, [], b"Traceback"), FAILED, ("500", "ok")),
        (answering(500, JSON, b"[" * 200_000), FAILED, ("500", "ok")),
        (answering(200, JSON, b"{}"), NO_STREAM, ("502", "bad_response")),
        (answering(200, [*EVENTS, ("content-encoding", "gzip")], PACKED), NO_STREAM, ("502", "bad_response")),
        (refusing(messages.INSTANCE_LOST), LOST, ("502", "instance_lost")),
        (None, "No instance of this model is ready; please try again.", ("503", "no_instance")),
    ],
    ids=["theirs", "no json", "too deep", "no stream", "packed", "lost", "nobody"],
)  # fmt: skip
async def test_after_comments_every_error_is_an_event_that_the_openai_client_raises(
    tmp_path, answer, message, logged
):
    gate = Gate([STARTING], [])
    settings = config(tmp_path, "a", heartbeat_s=0.02, max_wait_s=LONG_S if answer else 0.3)
    async with running(settings, gate) as proxy:
        if answer:
            gate.answers["one"] = answer

        async def raw() -> bytes:
            return (await proxy.client.post("/v1/chat/completions", content=STREAMED)).content

        async with client_of(proxy) as client:
            typed, plain = asyncio.create_task(text_of(client)), asyncio.create_task(raw())
            await waiting(proxy, 2)
            await asyncio.sleep(0.1)
            if answer:
                gate.tell(Routes(2, [service()], [instance("one")]))
            with pytest.raises(openai.APIError) as caught:
                await typed
        requests = await metric(proxy, "saia_proxy_requests_total")
    assert caught.value.message == message
    comments, _, event = (await plain).partition(b"data: ")
    assert set(comments.split(b"\n\n")) == {b": waiting", b""}
    assert event.endswith(b"}\n\n")
    assert json.loads(event)["error"]["message"] == message
    status, outcome = logged
    assert requests[f'saia_proxy_requests_total{{model="llama",outcome="{outcome}",status="{status}"}}'] >= 1


async def test_what_is_answered_into_a_stream_of_ours_is_asked_for_unpacked(tmp_path):
    gate = Gate([STARTING], [])
    gate.answers["one"] = events
    async with running(config(tmp_path, "a", heartbeat_s=0.02, max_wait_s=LONG_S), gate) as proxy:
        call = asyncio.create_task(proxy.client.post("/v1/chat/completions", content=STREAMED))
        await waiting(proxy, 1)
        await asyncio.sleep(0.1)
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert (await call).status_code == 200
        assert (await proxy.client.post("/v1/chat/completions", content=STREAMED)).headers[
            "x-from"
        ] == "instance"
    names = [{name for name, _ in stream.request.headers} for stream in gate.opened]
    assert ["accept-encoding" in headers for headers in names] == [False, True]


async def test_a_client_that_leaves_while_it_gets_comments_is_gone_at_once(tmp_path):
    gate = Gate([STARTING], [])
    async with running(config(tmp_path, "a", heartbeat_s=0.02, max_wait_s=LONG_S), gate) as proxy:
        reader, writer = await raw_post(proxy.port, STREAMED)
        await reader.readuntil(b": waiting")
        writer.close()
        await waiting(proxy, 0)
        requests = await metric(proxy, "saia_proxy_requests_total")
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert (await proxy.chat()).status_code == 200
    assert requests == {'saia_proxy_requests_total{model="llama",outcome="client_gone",status="499"}': 1.0}
    assert len(gate.opened) == 1
