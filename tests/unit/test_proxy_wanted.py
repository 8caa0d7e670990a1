"""Which model a request asks for, however it is written; and that nothing hostile gets further than a 400."""

from __future__ import annotations

import random
import time

import httpx
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from saia_proxy import wanted
from saia_proxy.errors import ApiError
from saia_proxy.wanted import wanted_model
from tests.unit.proxy_gate import Gate, instance, service
from tests.unit.proxy_running import KEY, config, error_of, running

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
AUDIO = random.Random(3).randbytes(400_000)


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--b--\r\n"
FORM = b"multipart/form-data; boundary=b"


async def of(body: bytes, kind: bytes | None = FORM, query: bytes = b"") -> str:
    """The model, or the error's code."""
    try:
        return await wanted_model(kind, body, query)
    except ApiError as error:
        assert error.status == 400
        return f"<{error.code}>"


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (part("model", b"whisper") + END, "whisper"),
        (part("file", AUDIO, '; filename="a.wav"') + part("model", b"org/w-1") + END, "org/w-1"),
        (part("model", b"w") + part("file", b"\r\n--a", '; filename="model"') + END, "w"),
        (b"\r\n" + part("model", b"w") + b"--b--", "w"),
        (
            b"--b\r\ncontent-type: text/plain\r\nCONTENT-DISPOSITION: form-data; name=model\r\n\r\nw\r\n--b--",
            "w",
        ),
        (part("models", b"x") + part("model", "m\u00fc".encode()) + END, "m\u00fc"),
        (part("file", b"x") + END, "<model_missing>"),
        (part("model", b"w") + part("model", b"v") + END, "<model_missing>"),
        (part("model", b"w", '; filename="w"') + END, "<model_missing>"),
        (part("model", b"\xff") + END, "<model_missing>"),
        (part("model", b"w"), "<invalid_form>"),
        (part("model", b"w") + b"--b", "<invalid_form>"),
        (b"--c\r\n\r\n--c--", "<invalid_form>"),
        (b"no form at all", "<invalid_form>"),
        (b'{"model": "w"}', "<invalid_form>"),
        (part("model", b"w" * 1000) + END, "<invalid_form>"),
        (part("x", b"1") * 300 + part("model", b"w") + END, "<invalid_form>"),
        (b"--b\r\n" + b"A: b\r\n" * 50 + b"\r\nx\r\n" + END, "<invalid_form>"),
        (b"--b\r\nA: " + b"b" * 100_000 + b"\r\n\r\nx\r\n" + END, "<invalid_form>"),
    ],
    ids=range(19),
)
async def test_a_form_names_its_model_once(body, model):
    assert await of(body) == model


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 500,
    ],
)
async def test_a_form_without_a_usable_boundary_is_none(kind):
    assert await of(part("model", b"w") + END, kind) == "<invalid_form>"


async def test_the_boundary_may_be_quoted_and_the_type_in_capitals():
    body = (part("model", b"w") + END).replace(b"--b", b"--b c")
    assert await of(body, b'Multipart/Form-Data; charset=utf-8; Boundary="b c"') == "w"


@pytest.mark.parametrize(
    "kind", [None, b"", b"application/json", b"text/plain", b"application/octet-stream", b"\xff"]
)
async def test_all_else_is_json(kind):
    assert await of(b'{"model": "m"}', kind) == "m"


async def test_half_an_emoji_is_no_fault():
    assert await of(b'{"x": "\\ud83d", "\\\\ud83d": "\\uD83D\\uDE00", "model": "m"}', None) == "m"
    assert await of(b'{"x": "\\ud8", "model": "m"}', None) == "<invalid_json>"
    assert await of(b'{"x": "\\ud83d", "model": 1}', None) == "<model_missing>"


async def test_of_a_name_given_twice_the_last_one_counts_as_for_the_services():
    assert await of(b'{"model": "a", "model": "b"}', None) == "b"


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (b"model=m", "m"),
        (b"x=1&model=org%2Fm+1&y", "org/m 1"),
        (b"", "<model_missing>"),
        (b"model=", "<model_missing>"),
        (b"model=a&model=b", "<model_missing>"),
        (b"Model=a", "<model_missing>"),
        (b"&" * 5000 + b"model=a", "<model_missing>"),
        (b"model=%ff%00", "\ufffd\x00"),
    ],
)
async def test_a_request_without_a_body_names_its_model_in_the_query(query, model):
    assert await of(b"", None, query) == model


async def test_a_body_decides_whatever_the_query_says():
    assert await of(b'{"model": "m"}', None, b"model=other") == "m"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"--b", b"--", b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"Content-Disposition:",
                                 b' form-data; name="model"', b"w", b"\x00\xff", b":", b'"', b"; filename=x"]),
                max_size=40))  # fmt: skip
async def test_no_form_is_more_than_a_400(pieces):
    await of(b"".join(pieces))
    await of(b"--b\r\n" + b"".join(pieces) + b"\r\n--b--")


@pytest.mark.parametrize("filling", [b"\r\n", b"\r", b"\r\n--", b"\r\n-", b"\n"])
async def test_a_form_made_to_be_slow_is_not(filling):
    size = 8 << 20
    began = time.process_time()
    assert await of(part("file", filling * (size // len(filling))) + part("model", b"w") + END) == "w"
    assert time.process_time() - began < 5


# ---------------------------------------------------------------- through the proxy


@pytest.mark.parametrize(
    "path", ["audio/transcriptions", "audio/translations", "images/edits", "images/variations"]
)
async def test_an_upload_goes_through_byte_for_byte(tmp_path, path):
    gate = Gate([service(models=("whisper",))], [instance("one")])
    body = part("file", AUDIO, '; filename="s\xfc\xdf.wav"\r\nContent-Type: audio/wav') + part(
        "model", b"whisper"
    )
    body += part("unknown[]", b"kept") + END
    headers = {"content-type": FORM.decode()}
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post(f"/v1/{path}", content=body, headers=headers)
        other = await proxy.client.post(
            f"/v1/{path}", content=body.replace(b"\r\nwhisper\r\n", b"\r\nnone\r\n"), headers=headers
        )
        broken = await proxy.client.post(f"/v1/{path}", content=body[:-9], headers=headers)
    assert response.json()["body"].encode("latin-1") == body
    assert ["content-type", FORM.decode()] in response.json()["headers"]
    assert (other.status_code, error_of(other)["code"]) == (404, "model_not_found")
    assert (broken.status_code, error_of(broken)["code"]) == (400, "invalid_form")
    assert len(gate.opened) == 1


@pytest.mark.parametrize(
    "path",
    ["chat/completions", "completions", "embeddings", "responses", "rerank", "score", "moderations",
     "audio/speech", "images/generations", "a/path/of/the/future"],
)  # fmt: skip
async def test_every_path_takes_json(tmp_path, path):
    gate = Gate([service()], [instance("one")])
    body = b'{"a_field_of_the_future": [1.0, 1e400, "\\ud800"],  "model":"llama" }\n'
    async with running(config(tmp_path, "a"), gate) as proxy:
        response = await proxy.client.post(f"/v1/{path}", content=body)
    assert (response.json()["path"], response.json()["body"].encode()) == (f"/v1/{path}", body)


async def test_stored_responses_are_found_by_the_model_in_the_query(tmp_path):
    gate = Gate([service(methods=("GET", "POST", "DELETE"))], [instance("one")])
    async with running(config(tmp_path, "a"), gate) as proxy:
        for method, path in (
            ("GET", "/v1/responses/resp_1?model=llama&stream=true"),
            ("DELETE", "/v1/responses/resp_1?model=llama"),
            ("POST", "/v1/responses/resp_1/cancel?model=llama"),
        ):
            response = await proxy.client.request(method, path)
            assert (response.json()["method"], response.json()["path"]) == (method, path)
        refused = await proxy.client.put("/v1/responses/resp_1?model=llama")
        foreign = await proxy.client.get("/v1/responses/resp_1?model=none")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, POST")
    assert (foreign.status_code, error_of(foreign)["code"]) == (404, "model_not_found")


async def test_a_form_that_is_looked_through_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(wanted, "SLICE", 1024)
    gate = Gate([service(models=("whisper",))], [instance("one")])
    body = part("file", b"\r\n--" * 200_000) + part("model", b"whisper") + END
    async with (
        running(config(tmp_path, "a"), gate) as proxy,
        httpx.AsyncClient(base_url=proxy.url, headers={"authorization": f"Bearer {KEY}"}) as other,
    ):
        upload = proxy.client.build_request(
            "POST", "/v1/x", content=body, headers={"content-type": FORM.decode()}
        )
        sent = proxy.client.send(upload, stream=True)
        assert (await other.get("/v1/models")).status_code == 200
        assert (await sent).status_code == 200
