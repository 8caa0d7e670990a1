"""The official `openai` client against the proxy's own program, the real gate and a real agent."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.unit.openai_site import CHAT_KEY, KEY, Chain, chain

AUDIO = random.Random(5).randbytes(3_000_000)
DIGEST = hashlib.sha256(AUDIO).hexdigest()
HELLO = [{"role": "user", "content": "gr\u00fc\u00df dich \U0001f600"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def site() -> Iterator[Chain]:
    with chain() as site:
        yield site


@pytest.fixture
def client(site: Chain) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{site.url}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
        yield client


def async_client(site: Chain, **options) -> AsyncOpenAI:
    return AsyncOpenAI(
        **{"base_url": f"{site.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 30} | options
    )


# ---------------------------------------------------------------- what works


def test_chat_and_its_request_id(client: OpenAI):
    answer = client.chat.completions.with_raw_response.create(
        model="llama", messages=HELLO, extra_headers={"X-Request-Id": "mine-7"}
    )
    assert answer.parse().choices[0].message.content == HELLO[0]["content"]
    assert answer.headers["x-request-id"] == answer.headers["x-seen-request-id"] == "mine-7"
    assert client.chat.completions.create(model="llama", messages=HELLO)._request_id.startswith("req_")


def test_streaming(client: OpenAI):
    stream = client.chat.completions.create(model="llama", messages=HELLO, stream=True, max_tokens=300)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == "".join(f"{number} " for number in range(300))


async def test_async_streaming_many_at_once(site: Chain):
    async with async_client(site) as client:

        async def one(tokens: int) -> str:
            stream = await client.chat.completions.create(
                model="llama", messages=HELLO, stream=True, max_tokens=tokens
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        texts = await asyncio.gather(*(one(tokens) for tokens in range(20)))
    assert texts == ["".join(f"{number} " for number in range(tokens)) for tokens in range(20)]


def test_tools_at_once_and_streamed(client: OpenAI):
    answer = client.chat.completions.create(model="llama", messages=HELLO, tools=[WEATHER])
    [call] = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "G\u00f6ttingen"}
    with client.chat.completions.stream(model="llama", messages=HELLO, tools=[WEATHER]) as stream:
        [call] = stream.get_final_completion().choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "G\u00f6ttingen"},
    )


class Person(BaseModel):
    name: str
    age: int


def test_structured_output(client: OpenAI):
    answer = client.chat.completions.parse(model="llama", messages=HELLO, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="json_schema", age=7)
    answer = client.chat.completions.create(
        model="llama", messages=HELLO, response_format={"type": "json_object"}
    )
    assert json.loads(answer.choices[0].message.content) == {"name": "json_object", "age": 7}


def test_embeddings(client: OpenAI):
    answer = client.embeddings.create(model="llama", input=["a", "bcd"])
    assert [item.embedding[0] for item in answer.data] == [1.0, 3.0]


def test_transcription_and_translation_uploads(client: OpenAI):
    for call, path in (
        (client.audio.transcriptions, "transcriptions"),
        (client.audio.translations, "translations"),
    ):
        answer = call.create(model="whisper", file=("speech.wav", io.BytesIO(AUDIO)))
        assert answer.text == f"/v1/audio/{path} whisper speech.wav {DIGEST}"


def test_speech_bytes(client: OpenAI):
    expected = b"".join(bytes([number]) * 1000 for number in range(256))
    answer = client.audio.speech.create(model="llama", voice="alloy", input="x" * 1000)
    assert answer.content == expected
    with client.audio.speech.with_streaming_response.create(
        model="llama", voice="a", input="x" * 1000
    ) as answer:
        assert b"".join(answer.iter_bytes()) == expected


def test_images(client: OpenAI):
    made = client.images.generate(model="llama", prompt="a cat")
    edited = client.images.edit(model="llama", image=("cat.png", AUDIO, "image/png"), prompt="a dog")
    varied = client.images.create_variation(model="llama", image=("cat.png", AUDIO, "image/png"))
    assert made.data[0].revised_prompt == "a cat"
    assert edited.data[0].revised_prompt == varied.data[0].revised_prompt == DIGEST


def test_responses_are_made_found_again_and_deleted(client: OpenAI):
    made = client.responses.create(model="llama", input="remember me")
    assert made.output_text == "remember me"
    there = {"extra_query": {"model": "llama"}}
    assert client.responses.retrieve(made.id, **there).output_text == "remember me"
    client.responses.delete(made.id, **there)
    with pytest.raises(openai.NotFoundError, match="no such response"):
        client.responses.retrieve(made.id, **there)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.retrieve(made.id)
    assert (caught.value.code, caught.value.param) == ("model_missing", "model")


def test_moderations_and_models(client: OpenAI):
    assert client.moderations.create(model="llama", input="x").results[0].flagged
    states = {model.id: model.model_extra["saia"]["state"] for model in client.models.list()}
    assert states == {"llama": "ready", "whisper": "ready", "big": "queued"}
    waiting = client.models.retrieve("big").model_extra["saia"]
    assert (waiting["ready"], waiting["queued"]) == (0, 1)
    assert waiting["eta"] > 1e9


# ---------------------------------------------------------------- what does not


def test_each_error_is_its_own_class_with_a_request_id(site: Chain, client: OpenAI):
    def error_of(
        kind: type[openai.APIStatusError], model: str = "llama", key: str = KEY, **more
    ) -> openai.APIStatusError:
        with pytest.raises(kind) as caught:
            client.with_options(api_key=key).chat.completions.create(
                model=model, messages=HELLO, extra_body=more
            )
        assert caught.value.request_id
        return caught.value

    assert error_of(openai.AuthenticationError, key="no").code == "invalid_api_key"
    assert error_of(openai.PermissionDeniedError, "whisper", CHAT_KEY).code == "model_not_allowed"
    assert error_of(openai.NotFoundError, "none").code == "model_not_found"
    busy = error_of(openai.InternalServerError, "big")
    assert (busy.status_code, busy.code) == (503, "no_instance")
    assert int(busy.response.headers["retry-after"]) > 60, "as long as the queue is expected to take"
    # The service's own errors arrive as they are.
    for status, kind in (
        (429, openai.RateLimitError),
        (422, openai.UnprocessableEntityError),
        (500, openai.InternalServerError),
    ):
        assert error_of(kind, answer_status=status).code == "as_asked"


def test_a_clients_time_out_is_its_own_and_ends_the_work(site: Chain, client: OpenAI):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model="llama", messages=HELLO, extra_body={"wait_s": 60}
        )
    deadline = time.monotonic() + 10
    while httpx.get(f"{site.url}/healthz").json()["in_flight"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_paths_and_sizes_that_are_refused(site: Chain, client: OpenAI):
    with pytest.raises(openai.APIStatusError) as caught:
        client.audio.transcriptions.create(model="whisper", file=("a", b"x" * (21 << 20)))
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    headers = {"authorization": f"Bearer {KEY}"}
    for path in (
        "/services/chat/v1/%2e%2e/x",
        "/services/chat/v1//x",
        "/services/chat/v1/a%2fb",
        "/services/chat/api/.%2e/",
    ):
        with httpx.Client() as http:
            request = http.build_request("GET", site.url, headers=headers)
            request.url = request.url.copy_with(raw_path=path.encode())
            answer = http.send(request)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), path
    assert httpx.get(f"{site.url}/services/chat/metrics", headers=headers).status_code == 404


# ---------------------------------------------------------------- services and WebSockets


@pytest.mark.parametrize("size", [0, 10, 100_000, 15_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_services_bodies_arrive_whole(site: Chain, size: int, chunked: bool):
    body = random.Random(size).randbytes(size)
    content = iter([body[: size // 2], body[size // 2 :]]) if chunked else body
    url = f"{site.url}/services/chat/api/items/1?q=%20a&b"
    answer = httpx.put(
        url, content=content, headers={"authorization": f"Bearer {KEY}", "x-own": "1"}, timeout=60
    )
    seen = answer.json()
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()
    assert (seen["method"], seen["path"], seen["query"]) == ("PUT", "/api/items/1", "q=%20a&b")
    assert seen["headers"]["x-own"] == "1" and "authorization" not in seen["headers"]


def test_vllms_paths_without_a_prefix(site: Chain):
    for path in ("/tokenize", "/rerank"):
        answer = httpx.post(
            f"{site.url}/services/chat{path}",
            json={"model": "llama"},
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert (answer.json()["method"], answer.json()["path"]) == ("POST", path)
    answer = httpx.post(
        f"{site.url}/services/chat/rerank", json={}, headers={"authorization": f"Bearer {CHAT_KEY}"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "service_not_allowed")


@pytest.mark.parametrize("path", ["/v1/realtime?model=llama", "/services/chat/rooms/1?model=llama"])
async def test_websockets(site: Chain, path: str):
    headers = {"Authorization": f"Bearer {KEY}"}
    big = random.Random(9).randbytes(900_000)
    async with connect(f"ws://127.0.0.1:{site.port}{path}", additional_headers=headers) as socket:
        assert json.loads(await socket.recv())["session"] == {"model": "llama"}
        for message in ("hello", big):
            await socket.send(message)
            assert await socket.recv() == message
    assert socket.close_code == 1000
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://127.0.0.1:{site.port}/services/chat/elsewhere", additional_headers=headers)
    assert caught.value.response.status_code == 404


async def test_openais_own_realtime_client(site: Chain):
    async with (
        async_client(site, websocket_base_url=f"ws://127.0.0.1:{site.port}/v1") as client,
        client.realtime.connect(model="llama") as connection,
    ):
        event = await connection.recv()
        assert (event.type, event.session.model) == ("session.created", "llama")


# ---------------------------------------------------------------- other frameworks, where they are installed


def test_langchain(site: Chain):
    langchain = pytest.importorskip("langchain_openai", reason="run `make test-clients`")
    options = {"base_url": f"{site.url}/v1", "api_key": KEY, "model": "llama"}
    assert langchain.ChatOpenAI(**options).invoke("hello").content == "hello"
    streamed = [chunk.content for chunk in langchain.ChatOpenAI(**options, max_tokens=5).stream("count")]
    assert "".join(streamed) == "0 1 2 3 4 "
    embeddings = langchain.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    assert embeddings.embed_documents(["a", "bcd"])[1][0] == 3.0
    structured = langchain.ChatOpenAI(**options).with_structured_output(Person, method="json_schema")
    assert structured.invoke("who?") == Person(name="json_schema", age=7)


def test_llama_index(site: Chain):
    llms = pytest.importorskip("llama_index.llms.openai_like", reason="run `make test-clients`")
    llm = llms.OpenAILike(
        model="llama", api_base=f"{site.url}/v1", api_key=KEY, is_chat_model=True, max_tokens=5
    )
    message = llms.base.ChatMessage if hasattr(llms.base, "ChatMessage") else None
    assert llm.complete("hello").text == "hello"
    assert message is None or llm.chat([message(role="user", content="hi")]).message.content == "hi"
    assert [chunk.delta for chunk in llm.stream_complete("count")][-1] is not None
