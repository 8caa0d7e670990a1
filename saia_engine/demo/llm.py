"""A small OpenAI-compatible server without a model: what the demo and the tests run as their service.

    python -m saia_engine.demo.llm (--uds PATH | --port N) [--model NAME ...] [--load-seconds S] [--rate R]

Its tokens are numbers, so that a client can check each one: token i of an answer, from 1, is the text ` {i}`, and
an answer has exactly `max_tokens` (default 16) of them, at R tokens a second or as the request's own field
`tokens_per_second` says. Every response carries `x-saia-instance`, from $SAIA_INSTANCE. Prints
`listening on ADDRESS` when it can be reached; `/health` says 503 while it "loads" for S seconds.
SIGTERM ends it at once, open answers included.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import h11

MAX_BODY = 1 << 20
MAX_TOKENS = 100_000
DEFAULT_TOKENS = 16
EMBEDDING_SIZE = 8
KEEP_ALIVE_S = 5.0
"""As uvicorn's, and so vLLM's: a client must cope with it."""
CLIENT_CHECK_S = 0.25
"""How long a slow answer may go on after its client has gone."""


@dataclass(frozen=True, slots=True)
class Settings:
    models: tuple[str, ...]
    rate: float
    """Tokens a second where the request does not say."""
    ready_at: float
    """On the monotonic clock."""
    instance: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One request for tokens, checked."""

    chat: bool
    model: str
    tokens: int
    rate: float
    stream: bool
    include_usage: bool
    prompt_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": total,
        }


class Refused(Exception):
    """Answered with this status and an error as OpenAI writes it."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def document(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}


class ClientGone(Exception):
    """Nobody reads the answer any more."""


# ---------------------------------------------------------------- what is asked


def parse_generation(body: Mapping[str, Any], *, chat: bool, settings: Settings) -> Generation:
    """Raises Refused."""
    model = known_model(body, settings)
    key = "messages" if chat else "prompt"
    if chat and not (isinstance(body.get(key), list) and body[key]):
        raise Refused(400, "'messages' must be a list with at least one message")
    if not chat and not isinstance(body.get(key), str | list):
        raise Refused(400, "'prompt' must be a string or a list")
    if body.get("n", 1) not in (1, None):
        raise Refused(400, "'n' other than 1 is not supported")
    limit = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    options = body.get("stream_options")
    return Generation(
        chat=chat,
        model=model,
        tokens=int(number(body, limit, DEFAULT_TOKENS, 1, MAX_TOKENS)),
        rate=number(body, "tokens_per_second", settings.rate, 0.01, 1e6),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_tokens=len(json.dumps(body[key]).split()),
    )


def known_model(body: Mapping[str, Any], settings: Settings) -> str:
    model = body.get("model")
    if model not in settings.models:
        raise Refused(404, f"the model {model!r} does not exist", "model_not_found")
    return str(model)


def number(body: Mapping[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refused(400, f"'{key}' must be a number from {least} to {most}")
    return value


# ---------------------------------------------------------------- what is answered


def embeddings(body: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The same vector for the same input, always. Raises Refused."""
    model = known_model(body, settings)
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refused(400, "'input' must be a string or a list")
    several = isinstance(given, list) and not all(isinstance(item, int) for item in given)
    inputs = given if several else [given]
    data = []
    for index, item in enumerate(inputs):
        digest = hashlib.sha256(json.dumps(item).encode()).digest()
        vector = [byte / 255 for byte in digest[:EMBEDDING_SIZE]]
        packed = base64.b64encode(struct.pack(f"<{EMBEDDING_SIZE}f", *vector)).decode()
        wanted = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": wanted})
    tokens = sum(len(json.dumps(item).split()) for item in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def model_list(settings: Settings) -> dict[str, Any]:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "saia"} for name in settings.models]
    return {"object": "list", "data": data}


def answer(asked: Generation, ident: str) -> dict[str, Any]:
    """The whole answer of a request without `stream`."""
    text = "".join(f" {i}" for i in range(1, asked.tokens + 1))
    said = {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
    kind = "chat.completion" if asked.chat else "text_completion"
    return {**_head(asked, ident, kind), "choices": [choice], "usage": asked.usage}


def chunk(asked: Generation, ident: str, i: int) -> dict[str, Any]:
    """Token i, from 1, of a stream."""
    delta = {"role": "assistant", "content": f" {i}"} if i == 1 else {"content": f" {i}"}
    said = {"delta": delta} if asked.chat else {"text": f" {i}"}
    finish = "length" if i == asked.tokens else None
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
    return {**_head(asked, ident, _stream_kind(asked)), "choices": [choice]}


def usage_chunk(asked: Generation, ident: str) -> dict[str, Any]:
    return {**_head(asked, ident, _stream_kind(asked)), "choices": [], "usage": asked.usage}


def _stream_kind(asked: Generation) -> str:
    return "chat.completion.chunk" if asked.chat else "text_completion"


def _head(asked: Generation, ident: str, kind: str) -> dict[str, Any]:
    return {"id": ident, "object": kind, "created": int(time.time()), "model": asked.model}


# ---------------------------------------------------------------- HTTP


class Connection:
    """One client's keep-alive connection; answers its requests one after the other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: Settings
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._http = h11.Connection(h11.SERVER)
        self._served = 0

    async def run(self) -> None:
        try:
            while True:
                await self._serve_one()
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except (ClientGone, ConnectionError, TimeoutError):
            pass
        except h11.RemoteProtocolError as exc:
            await self._refuse_bytes(exc)
        finally:
            self._writer.close()

    async def _serve_one(self) -> None:
        async with asyncio.timeout(KEEP_ALIVE_S):
            request = await self._event()
        if not isinstance(request, h11.Request):
            raise ClientGone
        try:
            body = await self._body()
            await self._route(request.method.decode(), request.target.decode().partition("?")[0], body)
        except Refused as refused:
            await self._send_json(refused.status, refused.document)

    async def _event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(1 << 16))
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise ClientGone
        return event  # type: ignore[return-value]

    async def _body(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size > MAX_BODY:
                raise Refused(413, f"the body is larger than {MAX_BODY} bytes")
            parts.append(bytes(event.data))
        return b"".join(parts)

    async def _route(self, method: str, path: str, body: bytes) -> None:
        wanted = {"/health": "GET", "/v1/models": "GET"}.get(path, "POST")
        known = ("/health", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
        if path not in known:
            raise Refused(404, "no such path")
        if method != wanted:
            raise Refused(405, f"{path} takes {wanted}")
        if time.monotonic() < self._settings.ready_at:
            raise Refused(503, "loading", "loading")
        if path == "/health":
            return await self._send_json(200, {"status": "ok"})
        if path == "/v1/models":
            return await self._send_json(200, model_list(self._settings))
        asked = _json_object(body)
        if path == "/v1/embeddings":
            return await self._send_json(200, embeddings(asked, self._settings))
        chat = path == "/v1/chat/completions"
        return await self._generate(parse_generation(asked, chat=chat, settings=self._settings))

    async def _generate(self, asked: Generation) -> None:
        self._served += 1
        ident = f"{'chatcmpl' if asked.chat else 'cmpl'}-{os.getpid()}-{id(self):x}-{self._served}"
        if not asked.stream:
            async for _ in self._tokens(asked):
                pass
            return await self._send_json(200, answer(asked, ident))
        headers = self._headers("text/event-stream")
        await self._send(h11.Response(status_code=200, headers=[*headers, ("cache-control", "no-cache")]))
        async for i in self._tokens(asked):
            await self._send_event(json.dumps(chunk(asked, ident, i)))
        if asked.include_usage:
            await self._send_event(json.dumps(usage_chunk(asked, ident)))
        await self._send_event("[DONE]")
        return await self._send(h11.EndOfMessage())

    async def _tokens(self, asked: Generation) -> AsyncIterator[int]:
        """Numbers from 1 to the last, each when it is due. Raises ClientGone."""
        started = time.monotonic()
        for i in range(1, asked.tokens + 1):
            due = started + i / asked.rate
            while True:
                await asyncio.sleep(min(max(due - time.monotonic(), 0), CLIENT_CHECK_S))
                if self._reader.at_eof() or self._writer.is_closing():
                    raise ClientGone
                if time.monotonic() >= due:
                    break
            yield i

    async def _send_event(self, text: str) -> None:
        await self._send(h11.Data(data=f"data: {text}\n\n".encode()))

    async def _send_json(self, status: int, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode()
        headers = [*self._headers("application/json"), ("content-length", str(len(data)))]
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.Data(data=data))
        await self._send(h11.EndOfMessage())

    def _headers(self, content_type: str) -> list[tuple[str, str]]:
        headers = [("content-type", content_type)]
        if self._settings.instance:
            headers.append(("x-saia-instance", self._settings.instance))
        return headers

    async def _send(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)
            await self._writer.drain()

    async def _refuse_bytes(self, exc: h11.RemoteProtocolError) -> None:
        """Answers what was not HTTP, where an answer can still be given."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                await self._send_json(exc.error_status_hint, Refused(400, str(exc)).document)
            except (ConnectionError, h11.LocalProtocolError):
                pass


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"the body is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    return value


# ---------------------------------------------------------------- the program


async def serve(settings: Settings, *, uds: str | None, port: int) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError when it can't listen."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer, settings).run()

    stop = asyncio.Event()
    for number_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number_, stop.set)
    if uds is not None:
        server = await asyncio.start_unix_server(connected, uds, backlog=1024)
        address = uds
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
        address = "{}:{}".format(*server.sockets[0].getsockname())
    print(f"listening on {address}", flush=True)  # noqa: T201
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="saia_engine.demo.llm", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", metavar="PATH", help="listen on this Unix socket")
    where.add_argument("--port", type=int, metavar="N", help="listen on 127.0.0.1; 0 takes a free port")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be given several times")
    parser.add_argument("--load-seconds", type=float, default=0.0, metavar="S")
    parser.add_argument("--rate", type=float, default=20.0, metavar="R", help="tokens a second")
    given = parser.parse_args(arguments)
    if not 0.01 <= given.rate <= 1e6:
        parser.error("--rate must be from 0.01 to 1e6")
    settings = Settings(
        models=tuple(given.model or ["demo"]),
        rate=given.rate,
        ready_at=time.monotonic() + given.load_seconds,
        instance=os.environ.get("SAIA_INSTANCE", ""),
    )
    try:
        asyncio.run(serve(settings, uds=given.uds, port=given.port or 0))
    except (OSError, OverflowError) as exc:
        _fail(f"cannot listen on {given.uds or given.port}: {exc}")


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"saia_engine.demo.llm: {text}\n")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
