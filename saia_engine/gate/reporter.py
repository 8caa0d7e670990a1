"""Tells the engine what this relay does, each second and at each change; its answer is what the proxy should be."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec
from msgspec.structs import replace

from saia_engine.edge.text import clean
from saia_engine.gate.http1 import BadResponse, Connection, ConnectionLost
from saia_engine.wire.messages import REASONS, Admin, Applied, KeyState, Metrics, TrafficCount

INTERVAL_S = 1.0
LEAST_INTERVAL_S = 0.05
WAIT_S = INTERVAL_S - LEAST_INTERVAL_S
"""So long the engine may hold back its answer, to give it at once when it wants something new of the proxy."""
TIMEOUT_S = WAIT_S + 1.0
LARGEST_ANSWER = 256 * 1024
MOST_NAMES = 500
LONGEST_MODELS = 100
LARGEST_COUNT = 2**53 - 1


class Report(msgspec.Struct):
    """The body of `POST /v1/report`; see docs/architecture.md."""

    proxy: str
    relay: str
    pid: int
    peer: str
    connected_since: float
    routes_generation: int = 0
    admin_revision: int = 0
    in_flight: dict[str, int] = {}
    requests: dict[str, int] = {}
    errors: dict[str, int] = {}
    version: str = ""
    queued: dict[str, int] = {}
    keys: list[KeyState] = []
    started_at: float = 0.0
    counter: str = ""
    traffic: list[TrafficCount] = []
    round_trip_s: float | None = None
    wait_s: float = 0.0


class Tally:
    """What the relay counts, and what the proxy said of itself."""

    def __init__(self) -> None:
        self.in_flight: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.applied = Applied()
        self.metrics = Metrics()
        self.round_trip_s: float | None = None

    def round_trip(self, seconds: float) -> None:
        """A ping to the proxy was answered after so long."""
        self.round_trip_s = seconds


class Reporter:
    """Owns the connection to `gate.sock`. While the engine is down it just tries again.

    `services` are those that the proxy may reach, each with its models.
    """

    def __init__(
        self,
        proxy: str,
        tally: Tally,
        *,
        socket: Callable[[], str],
        services: Callable[[], Mapping[str, Collection[str]]],
    ) -> None:
        self.admin: Admin | None = None
        """The newest word of the engine."""
        self.on_admin: Callable[[Admin], None] = lambda _: None
        self._proxy = proxy
        self._tally = tally
        self._socket = socket
        self._services = services
        self._relay = secrets.token_hex(8)
        self._peer = clean(" ".join(os.environ.get("SSH_CONNECTION", "").split(" ")[:2]), 100)
        self._since = time.time()
        self._connection: Connection | None = None
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Something changed that the engine should know now."""
        self._soon.set()

    async def run(self) -> None:
        try:
            time = asyncio.get_running_loop().time
            while True:
                began = time()
                self._soon.clear()
                await self._report()
                await asyncio.sleep(LEAST_INTERVAL_S)
                try:
                    async with asyncio.timeout_at(began + INTERVAL_S):
                        await self._soon.wait()
                except TimeoutError:
                    pass
        finally:
            self._hang_up()

    async def _report(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._post(msgspec.json.encode(self.report()))
            admin = msgspec.json.decode(answer, type=Admin)
        except (OSError, ConnectionLost, BadResponse, msgspec.MsgspecError):
            self._hang_up()
            return
        if admin != self.admin:
            self.admin = admin
            self.on_admin(admin)

    def report(self) -> Report:
        tally, services = self._tally, self._services()
        return Report(
            proxy=self._proxy,
            relay=self._relay,
            pid=os.getpid(),
            peer=self._peer,
            connected_since=self._since,
            routes_generation=_count(tally.applied.routes_generation),
            admin_revision=_count(tally.applied.admin_revision),
            in_flight=dict(tally.in_flight.most_common(MOST_NAMES)),
            requests=dict(tally.requests.most_common(MOST_NAMES)),
            errors=dict(tally.errors.most_common(MOST_NAMES)),
            version=clean(tally.metrics.version, 64),
            queued={
                name: _count(number) for name, number in tally.metrics.queued.items() if name in services
            },
            keys=[replace(row, models=clean(row.models, LONGEST_MODELS)) for row in tally.metrics.keys],
            started_at=tally.metrics.started_at,
            counter=tally.metrics.counter,
            traffic=_traffic(tally.metrics.traffic, services),
            round_trip_s=tally.round_trip_s,
            wait_s=WAIT_S if self.admin else 0.0,
        )

    async def _post(self, body: bytes) -> bytes:
        """The answer's body. Raises OSError, ConnectionLost, BadResponse."""
        connection = self._connection
        if connection is None or not connection.quiet():
            self._hang_up()
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_unix_connection(Connection, self._socket())
            self._connection = connection
        connection.begin("POST")
        head = (
            "POST /v1/report HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.write(head.encode() + body)
        status, _ = await connection.head()
        answer = b""
        while data := await connection.read():
            answer += data
            if len(answer) > LARGEST_ANSWER:
                raise BadResponse("an answer beyond all measure")
        if not connection.reusable:
            self._hang_up()
        if status != 200:
            raise BadResponse(f"status {status}")
        connection.rest()
        return answer

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


def _traffic(rows: Iterable[TrafficCount], services: Mapping[str, Collection[str]]) -> list[TrafficCount]:
    """Those of what there is: a proxy's word, of a size that the engine takes."""
    return [
        replace(row, failed={reason: row.failed[reason] for reason in REASONS if reason in row.failed})
        for row in rows
        if row.model in ("", *services.get(row.service, ())) and (not row.service or row.service in services)
    ]


def _count(number: int) -> int:
    """A proxy's word, within what the engine takes."""
    return min(max(0, number), LARGEST_COUNT)
