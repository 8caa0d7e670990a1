"""A whole proxy in the test's own loop: real connections on a real port, tunnels to gates of `proxy_gate`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from saia_proxy.config import ApiKey, ProxyConfig, Server, SubprocessUpstream, Timeouts, hash_key
from saia_proxy.server import listen, serve
from saia_proxy.transports import Link, MakeMux, Trouble, Unusable
from tests.unit.proxy_gate import Gate, pair

KEY = "sk-saia-test"
RESTRICTED_KEY = "sk-saia-restricted"
SERVICE_KEY = "sk-saia-service"
TIMEOUTS = Timeouts(connect_s=5, first_byte_s=5, idle_s=5, total_s=20)


class SocketLink(Link):
    async def close(self) -> None:
        self.mux.close("closed by the proxy")
        self.transport.close()  # type: ignore[attr-defined]


def to(gate: Gate) -> Callable[[MakeMux], Any]:
    async def connect(make_mux: MakeMux) -> Link:
        if not gate.accepting:
            raise Unusable(Trouble.UNREACHABLE, "the test says so")
        link = SocketLink(make_mux)

        def make(transport: asyncio.Transport):
            link.start(transport.write)
            return link.mux

        link.transport = await pair(gate, make)  # type: ignore[attr-defined]
        return link

    return connect


def config(
    directory: Path,
    *upstreams: str,
    timeouts: Timeouts = TIMEOUTS,
    max_body: int = 1 << 20,
    max_buffered: int = 64 << 20,
) -> ProxyConfig:
    server = Server(
        host="127.0.0.1",
        port=0,
        max_body_bytes=max_body,
        max_buffered_bytes=max_buffered,
        state_dir=directory,
        trusted_proxies=(),
        tls_certificate=None,
        tls_key=None,
    )
    keys = (
        ApiKey("all", hash_key(KEY), ("*",)),
        ApiKey("restricted", hash_key(RESTRICTED_KEY), ("other",)),
        ApiKey("service", hash_key(SERVICE_KEY), ("service:app",)),
    )
    return ProxyConfig(
        file=directory / "proxy.toml",
        server=server,
        upstreams=tuple(SubprocessUpstream(name, ("unused",)) for name in upstreams),
        timeouts=timeouts,
        keys=keys,
    )


@dataclass
class Running:
    url: str
    client: httpx.AsyncClient
    stop: asyncio.Event
    task: asyncio.Task[None]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    async def chat(self, model: str = "llama", **more: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json={"model": model, "messages": [], **more})

    async def connected(self, count: int = 1) -> None:
        await until_async(lambda: self._connected(count))

    async def _connected(self, count: int) -> bool:
        return (await self.client.get("/healthz")).json()["upstreams"]["connected"] == count


@contextlib.asynccontextmanager
async def running(settings: ProxyConfig, *gates: Gate, wait: bool = True) -> AsyncIterator[Running]:
    listener = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    by_name = {upstream.name: gate for upstream, gate in zip(settings.upstreams, gates, strict=True)}
    task = asyncio.create_task(
        serve(settings, listener, stop, connect=lambda upstream, _: to(by_name[upstream.name]))
    )
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    client = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=10)
    try:
        proxy = Running(url, client, stop, task)
        if wait:
            await proxy.connected(len(gates))
        yield proxy
    finally:
        await client.aclose()
        for gate in gates:
            gate.accepting = False
            await gate.close()
        stop.set()
        await task


async def until(condition: Callable[[], Any], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_async(condition: Callable[[], Any], within_s: float = 5) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def raw_post(port: int, body: bytes, *, version: str = "1.1", path: str = "/v1/chat/completions"):
    """A request written by hand; its reader and writer, to be slow or rude with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {path} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return reader, writer


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's shape, checked."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    return error


BODY = json.dumps({"model": "llama", "messages": []}).encode()
