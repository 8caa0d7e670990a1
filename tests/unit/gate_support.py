"""A relay in this process, between a proxy's mux over a socket pair and instances with the agent's own front."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from saia_engine import agent, routes
from saia_engine.gate.relay import Relay
from saia_engine.gate.routes_file import RoutesFile
from saia_engine.gate.stdio import Stdio
from saia_engine.model import ProxyLimits
from saia_engine.routes import Route, RouteTable, ServiceEntry
from saia_engine.wire.messages import Admin, Control, Open, Routes
from saia_engine.wire.mux import Mux, Stream

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PATIENCE_S = 20.0


async def eventually(look: Callable[[], Any], what: str = "it") -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} never came about"
        await asyncio.sleep(0.005)
    return found


async def read_head(reader: asyncio.StreamReader) -> str:
    """A request's head as it came, or "" at the end of the connection."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return ""


class Service:
    """What runs behind the front: says `answer` to each request, and keeps what it was sent."""

    def __init__(self, serve: Serve | None = None) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        self.heads: list[str] = []
        self.connections = 0
        self.open = 0
        self._serve = serve or self._say_answer
        self._tasks: set[asyncio.Task[None]] = set()
        self._directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="saia-svc-"))
        self.address = str(self._directory / "http")

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.address)

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._directory)

    async def connect(self) -> socket.socket:
        """As the agent's own ways to a service do."""
        link = socket.socket(socket.AF_UNIX)
        link.setblocking(False)
        link.connect(self.address)
        return link

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _say_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            self.heads.append(head)
            writer.write(self.answer)
            await writer.drain()


class Instance:
    """One instance: a service behind the agent's front, in this process."""

    def __init__(
        self, name: str = "k7f3.hpc.chat.ab12", generation: int = 0, serve: Serve | None = None
    ) -> None:
        self.name = name
        self.service = Service(serve)
        self.front = agent.Front(name, generation, self.service, agent.Gpus({}))  # type: ignore[arg-type]
        self.front.ready = True
        sockets = agent.bind_front(21000, 29999)
        self.port = sockets[0].getsockname()[1]
        self._sockets = sockets

    async def start(self) -> None:
        await self.service.start()
        self._door = agent.Door(self.front, self._sockets)
        self._beat = asyncio.create_task(self.front.beat())

    async def close(self) -> None:
        self._beat.cancel()
        self._door.close()
        await self.front.finish(0)
        for half in list(self.front.open):
            half.reset()
        for watcher in list(self.front.watchers):
            watcher._transport.abort()
        await self.service.close()

    def route(self, **changes: Any) -> Route:
        now = time.time()
        fields = {
            "instance": self.name,
            "service": self.name.split(".")[2],
            "generation": self.front.generation,
            "host": "127.0.0.1",
            "port": self.port,
            "secret": self.front.gate_secret,
            "protocol": 1,
            "methods": ("GET", "POST", "HEAD"),
            "paths": ("/v1/", "/health"),
            "admit_until": now + 3000,
            "end": now + 3600,
        }
        return Route(**fields | changes)


class Site:
    """A directory with `routes.json`, and the relays that read it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="saia-gate-"))
        self.path = self.directory / "routes.json"
        self.gate_socket = self.directory / "gate.sock"
        self.generation = 0
        self.limits = ProxyLimits()

    def publish(self, *listed: Route, **changes: Any) -> None:
        self.generation += 1
        table = RouteTable(
            version=1,
            generation=self.generation,
            written_at=time.time(),
            installation="k7f3",
            cluster="hpc",
            gate_socket=str(self.gate_socket),
            proxies={"cloud": self.limits},
            services={
                "chat": ServiceEntry(
                    models=("llama-3",), methods=("GET", "POST"), paths=("/v1/",), replicas=2
                ),
                "embed": ServiceEntry(models=("e5",)),
            },
            routes=listed,
        )
        routes.write(self.path, msgspec.structs.replace(table, **changes))

    def close(self) -> None:
        shutil.rmtree(self.directory)


class Proxy:
    """The proxy's end of one relay."""

    def __init__(self, mux: Mux, told: list[Control]) -> None:
        self.mux = mux
        self.told = told

    @property
    def routes(self) -> Routes:
        return [message for message in self.told if isinstance(message, Routes)][-1]

    @property
    def admin(self) -> Admin:
        return [message for message in self.told if isinstance(message, Admin)][-1]

    def open(self, instance: str, path: str = "/v1/x", method: str = "GET", **fields: Any) -> Stream:
        return self.mux.open(Open(instance, method, path, **fields))

    async def ask(self, instance: str, path: str = "/v1/x", body: bytes | None = None, **fields: Any):
        """(status, headers, body) of one request. Raises StreamReset."""
        method = fields.pop("method", "GET" if body is None else "POST")
        length = None if body is None else len(body)
        stream = self.open(instance, path, method, content_length=length, **fields)
        if body:
            await stream.send(body)
        stream.end()
        async with asyncio.timeout(PATIENCE_S):
            head = await stream.response()
            return head.status, head.headers, await read_all(stream)


async def read_all(stream: Stream) -> bytes:
    received = b""
    while data := await stream.receive():
        received += data
    return received


@asynccontextmanager
async def relay_of(site: Site) -> AsyncIterator[Proxy]:
    """A relay of proxy `cloud` over the site's routes."""
    ours, theirs = socket.socketpair()

    async def run() -> None:
        try:
            stdio = Stdio(theirs.fileno(), theirs.fileno())
            await Relay("cloud", RoutesFile(site.path)).run(stdio, "saia-gate/test")
        finally:
            theirs.close()  # as its process's end would

    relay = asyncio.create_task(run())
    told: list[Control] = []
    transport = Stdio(ours.fileno(), ours.fileno())
    mux = Mux(transport.write, program="proxy", on_control=told.append)
    transport.start(mux)
    try:
        await mux.ready()
        await eventually(lambda: told, "the routes")
        yield Proxy(mux, told)
    finally:
        mux.close("the test is over")
        transport.close()
        ours.close()
        async with asyncio.timeout(PATIENCE_S):
            await relay
