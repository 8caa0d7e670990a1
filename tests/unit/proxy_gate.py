"""A gate for the proxy's tests: the real mux on real sockets, answering by rules that a test sets.

Run as a program (`python -m tests.unit.proxy_gate`) it speaks on stdin and stdout, as behind sshd.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from saia_engine.wire.messages import (
    Admin,
    Applied,
    Control,
    Head,
    InstanceState,
    Metrics,
    Routes,
    ServiceState,
)
from saia_engine.wire.mux import Mux, Stream, StreamReset

Answer = Callable[[Stream], Awaitable[None]]
JSON = [("content-type", "application/json")]
EVENTS = [("content-type", "text/event-stream")]


def service(
    name: str = "chat",
    models: tuple[str, ...] = ("llama",),
    *,
    methods: tuple[str, ...] = ("POST",),
    paths: tuple[str, ...] = ("/v1/",),
    **counts: Any,
) -> ServiceState:
    return ServiceState(
        name, list(models), list(methods), list(paths), **({"replicas": 2, "ready": 2} | counts)
    )


def instance(name: str, of: str = "chat", *, draining: bool = False, left_s: float = 3600) -> InstanceState:
    now = time.time()
    return InstanceState(name, of, 0, now + left_s, now + left_s + 600, draining)


async def read_all(stream: Stream) -> bytes:
    parts = []
    while part := await stream.receive():
        parts.append(part)
    return b"".join(parts)


async def echo(stream: Stream) -> None:
    """What came, as JSON; the body as text."""
    body = (await read_all(stream)).decode("latin-1")
    request = stream.request
    document = {
        "instance": request.instance,
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "request_id": request.request_id,
        "content_length": request.content_length,
        "chunked": request.chunked,
        "body": body,
    }
    stream.respond(Head(200, JSON))
    await stream.send(json.dumps(document).encode())
    stream.end()


def refusing(code: str) -> Answer:
    async def answer(stream: Stream) -> None:
        stream.reset(code)

    return answer


async def silent(stream: Stream) -> None:
    await asyncio.Event().wait()


class Gate:
    """Listens on a socket of its own; each connection to it is one tunnel."""

    def __init__(self, services: list[ServiceState], instances: list[InstanceState]) -> None:
        self.routes = Routes(1, services, instances)
        self.admin: Admin | None = None
        self.answers: dict[str, Answer] = {}
        """By instance; `echo` where there is none."""
        self.opened: list[Stream] = []
        self.resets: list[StreamReset] = []
        self.applied: list[Applied] = []
        self.metrics: list[Metrics] = []
        self.muxes: list[Mux] = []
        """Of all tunnels since the last cut, in the order in which they came."""
        self.accepting = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.Transport] = []

    def tell(self, routes: Routes) -> None:
        """New routes, also to who is connected."""
        self.routes = routes
        for mux in self.muxes:
            mux.control(routes)

    def order(self, admin: Admin) -> None:
        self.admin = admin
        for mux in self.muxes:
            mux.control(admin)

    def cut_one(self, mux: Mux) -> None:
        """The tunnel of this mux breaks."""
        self._transports[self.muxes.index(mux)].abort()

    def cut(self) -> None:
        """All tunnels break."""
        for transport in self._transports:
            transport.abort()
        self.muxes.clear()
        self._transports.clear()

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def serve(self, write: Callable[[bytes], None]) -> Mux:
        mux = Mux(write, program="test-gate/1", on_control=self._on_control, on_open=self._on_open)
        self.muxes.append(mux)
        mux.control(self.routes)
        if self.admin is not None:
            mux.control(self.admin)
        return mux

    def accept(self, transport: asyncio.Transport) -> Mux:
        self._transports.append(transport)
        return self.serve(transport.write)

    def _on_control(self, message: Control) -> None:
        if isinstance(message, Applied):
            self.applied.append(message)
        elif isinstance(message, Metrics):
            self.metrics.append(message)

    def _on_open(self, stream: Stream) -> None:
        self.opened.append(stream)
        stream.on_reset = self.resets.append
        task = asyncio.ensure_future(self._answer(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, stream: Stream) -> None:
        try:
            await self.answers.get(stream.request.instance, echo)(stream)
        except StreamReset:
            pass


class MuxProtocol(asyncio.Protocol):
    """A mux on any byte transport."""

    def __init__(self, make: Callable[[asyncio.Transport], Mux]) -> None:
        self._make = make
        self.mux: Mux

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.mux = self._make(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.mux.data_received(data)

    def pause_writing(self) -> None:
        self.mux.pause_writing()

    def resume_writing(self) -> None:
        self.mux.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.mux.connection_lost()


async def pair(gate: Gate, make: Callable[[asyncio.Transport], Mux]) -> asyncio.Transport:
    """Joins a gate with a mux that `make` makes, over a socket pair; our end's transport."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    await loop.create_connection(lambda: MuxProtocol(gate.accept), sock=theirs)
    transport, _ = await loop.create_connection(lambda: MuxProtocol(make), sock=ours)
    return transport


async def _echo_when_asked(stream: Stream) -> None:
    body = await read_all(stream)
    await asyncio.sleep(json.loads(body).get("answer_after_s", 0))
    stream.respond(Head(200, JSON))
    await stream.send(json.dumps({"body": body.decode()}).encode())
    stream.end()


async def _on_stdio() -> None:
    loop = asyncio.get_running_loop()
    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = _echo_when_asked
    writer = cast(
        asyncio.WriteTransport, (await loop.connect_write_pipe(asyncio.Protocol, sys.stdout.buffer))[0]
    )
    mux = gate.serve(writer.write)
    await loop.connect_read_pipe(lambda: MuxProtocol(lambda _: mux), sys.stdin.buffer)
    await mux.wait_closed()


if __name__ == "__main__":
    asyncio.run(_on_stdio())
