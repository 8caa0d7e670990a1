"""The bundled server, as a process, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest


@contextmanager
def running(
    *arguments: str, models: tuple[str, ...] = ("alpha", "beta")
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "saia_engine.demo.llm", *arguments]
    command += [word for model in models for word in ("--model", model)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SAIA_INSTANCE": "inst.a.b.c"}
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().removeprefix("listening on ").strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running("--port", "0", "--rate", "2000") as (address, _):
        yield address


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


def numbers(first: int, last: int) -> str:
    return "".join(f" {i}" for i in range(first, last + 1))


def ask(model: str = "alpha", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "count to ten"}], **fields}


def test_official_client_streams_every_number(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **ask(max_tokens=40, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content for c in chunks if c.choices) == numbers(1, 40)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 40
    assert len({c.id for c in chunks}) == 1


def test_official_client_without_stream(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(**ask())  # type: ignore[call-overload]
    assert chat.choices[0].message.content == numbers(1, 16)
    assert chat.usage.completion_tokens == 16
    plain = client.completions.create(model="beta", prompt="go", max_tokens=3)
    assert plain.choices[0].text == " 1 2 3"
    streamed = client.completions.create(model="beta", prompt="go", max_tokens=3, stream=True)
    assert "".join(c.choices[0].text for c in streamed) == " 1 2 3"
    assert [m.id for m in client.models.list()] == ["alpha", "beta"]


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="alpha", input=["x", "y"])
    plain = client.embeddings.create(model="alpha", input="x", encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert packed.data[0].embedding != packed.data[1].embedding


def test_client_sees_openai_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(**ask(model="nobody"))  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(**ask(max_tokens=0))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", b"", 404),
        ("POST", "/health", b"", 405),
        ("GET", "/v1/completions", b"", 405),
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"[1]", 400),
        ("POST", "/v1/completions", b"[" * 5000, 400),
        ("POST", "/v1/completions", b'{"model":"alpha"}', 400),
        ("POST", "/v1/completions", b'{"model":["alpha"],"prompt":""}', 404),
        ("POST", "/v1/completions", b'{"model":"alpha","prompt":"","max_tokens":true}', 400),
        ("POST", "/v1/completions", b'{"model":"alpha","prompt":"","tokens_per_second":NaN}', 400),
        ("POST", "/v1/completions", b'{"model":"alpha","prompt":"","n":2}', 400),
        ("POST", "/v1/chat/completions", b'{"model":"alpha","messages":[]}', 400),
        ("POST", "/v1/embeddings", b'{"model":"alpha","input":[]}', 400),
        ("POST", "/v1/embeddings", b"x" * (1 << 20) + b"yy", 413),
    ],
)
def test_bad_requests_get_an_error_and_an_instance(
    address: str, method: str, path: str, body: bytes, status: int
) -> None:
    answer = httpx.request(method, f"http://{address}{path}", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert answer.headers["x-saia-instance"] == "inst.a.b.c"


def test_what_is_not_http_gets_a_400(address: str) -> None:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(b"EHLO you\r\n\r\n")
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_one_connection_serves_many_requests_also_chunked_ones(address: str) -> None:
    host, port = address.split(":")
    body = json.dumps({"model": "alpha", "prompt": "", "max_tokens": 2}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    chunked = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (3, body[:3], len(body) - 3, body[3:])
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        file = sock.makefile("rb")
        for request in (
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
            head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        ):
            sock.sendall(request)
            assert file.readline() == b"HTTP/1.1 200 \r\n"
            length = 0
            while (line := file.readline().lower()) != b"\r\n":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert json.loads(file.read(length))["choices"][0]["text"] == " 1 2"


def test_a_request_sets_its_own_rate(address: str) -> None:
    body = {"model": "alpha", "prompt": "", "max_tokens": 10, "tokens_per_second": 40}
    started = time.monotonic()
    httpx.post(f"http://{address}/v1/completions", json=body)
    assert 0.24 < time.monotonic() - started < 2


def test_it_loads_over_a_unix_socket_and_ends_on_sigterm() -> None:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        with running("--uds", str(directory / "s"), "--load-seconds", "0.5") as (address, process):
            assert address == str(directory / "s")
            with httpx.Client(transport=httpx.HTTPTransport(uds=address), base_url="http://x") as client:
                assert client.get("/health").status_code == 503
                assert client.get("/v1/models").status_code == 503
                deadline = time.monotonic() + 5
                while (status := client.get("/health").status_code) == 503 and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
    finally:
        shutil.rmtree(directory)


def test_a_taken_port_is_one_clear_line(address: str) -> None:
    command = [sys.executable, "-m", "saia_engine.demo.llm", "--port", address.split(":")[1]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert ended.returncode == 1
    assert ended.stderr.startswith("saia_engine.demo.llm: cannot listen on")
    assert len(ended.stderr.splitlines()) == 1


async def test_it_stops_generating_when_the_client_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    from saia_engine.demo import llm

    settings = llm.Settings(models=("alpha",), rate=50.0, ready_at=0.0, instance="")
    ended = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await llm.Connection(reader, writer, settings).run()
        ended.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    body = json.dumps(ask(max_tokens=100_000, stream=True)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await reader.readuntil(b'" 3"')
    assert not ended.is_set()
    writer.close()
    await asyncio.wait_for(ended.wait(), 2)
    server.close()
