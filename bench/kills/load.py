"""The load, in a process of its own until SIGTERM: plain requests and streams, each answer compared byte by byte.

What to do is one JSON object on the command line; each finished request is one JSON line on stdout. All times are of
the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from time import perf_counter

import msgspec
import uvloop

from bench import exchange
from bench.answers import Whole
from bench.http_client import Client, request
from bench.job import Target

PLAIN, STREAM = "plain", "stream"
PATIENCE_S = 30.0
"""For one plain answer, and between two parts of a stream's."""
PAUSE_S = 0.05
"""After a failure."""
TOO_LATE = f"no answer in {PATIENCE_S:.0f} s"
KEPT = 4096
"""Bytes of a body that is none of the expected."""
ANSWERED_AFTER_MS = 40
"""So that at each moment some plain requests are with their instance."""
ASKED_AT_ONE = 25
"""Plain requests on one connection: the next one may meet another worker."""
RATE = 20
"""Tokens a second of each stream."""


@dataclass(frozen=True, slots=True)
class Job:
    plain: int
    """Clients, each of which asks again when it has its answer."""
    streams: int
    stream_s: tuple[float, float]
    """How long one lasts."""


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request and what became of it."""

    id: str
    kind: str
    began_at: float
    ended_at: float
    port: int
    """The client's end of its connection."""
    connected_at: float = 0.0
    fault: str = ""
    """Empty: a whole and right answer."""
    status: int = 0
    """0 until a head came."""
    body: str = ""
    """The beginning of what came, of one that failed."""
    prefix: bool = True
    """All that came was right, as far as it went."""
    gap_s: float = 0.0
    """The longest time without a byte from it; of a plain one, until its answer."""
    gap_ended_at: float = 0.0


class Heard(Whole):
    """Notes also when bytes came."""

    def __init__(self, expected: bytes) -> None:
        super().__init__(expected, exact=True)
        self.body = b""
        self.gap_s = self.gap_ended_at = 0.0
        self._last = perf_counter()

    @property
    def prefix(self) -> bool:
        return self._good

    def take(self, data: bytes) -> None:
        super().take(data)
        self.body = (self.body + data)[:KEPT]
        self.moved()

    def moved(self) -> None:
        now = perf_counter()
        if now - self._last > self.gap_s:
            self.gap_s, self.gap_ended_at = now - self._last, now
        self._last = now


class Clients:
    def __init__(self, job: Job, target: Target) -> None:
        self._job = job
        self._target = target
        self._stopping = asyncio.Event()
        self._numbers = iter(range(1, sys.maxsize))

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._job.plain):
                group.create_task(self._keep_asking())
            for _ in range(self._job.streams):
                group.create_task(self._keep_streaming())

    async def _keep_asking(self) -> None:
        async with self._client() as client:
            while not self._stopping.is_set():
                for _ in range(ASKED_AT_ONE):
                    await self._ask(client, PLAIN, 0)
                client.close()

    async def _keep_streaming(self) -> None:
        async with self._client() as client:
            while not self._stopping.is_set():
                await self._ask(client, STREAM, round(random.uniform(*self._job.stream_s) * RATE))
                client.close()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = Client(self._target)
        try:
            yield client
        finally:
            client.close()

    async def _ask(self, client: Client, kind: str, tokens: int) -> None:
        name = f"{kind}{next(self._numbers)}"
        question = exchange.marked(name, ANSWERED_AFTER_MS, tokens, RATE)
        if tokens:
            expected = exchange.token_event(f" {name}") * tokens + exchange.LAST_EVENTS
        else:
            expected = exchange.answer(f" {name}")
        asked = request(self._target, exchange.CHAT, question, f"X-Request-Id: {name}")
        heard, began_at = Heard(expected), perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_S + tokens / RATE):
                fault = await client.ask(asked, heard)
        except TimeoutError:
            fault = TOO_LATE
            client.close()
        heard.moved()
        told = Request(name, kind, began_at, perf_counter(), client.port, client.connected_at)
        if fault:
            body = heard.body.decode("latin-1")
            told = msgspec.structs.replace(
                told, fault=fault, status=client.status, body=body, prefix=heard.prefix
            )
        self._say(msgspec.structs.replace(told, gap_s=heard.gap_s, gap_ended_at=heard.gap_ended_at))
        if fault:
            await asyncio.sleep(PAUSE_S)

    def _say(self, told: Request) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")


def arguments(job: Job, target: Target) -> list[str]:
    """Of a command line."""
    return ["-m", "bench.kills.load", json.dumps({"job": asdict(job), "target": asdict(target)})]


async def serve(job: Job, target: Target) -> None:
    clients = Clients(job, target)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, clients.stop)
    await clients.run()


def main() -> None:
    asked = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Job(**asked["job"]), Target(**asked["target"])))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
