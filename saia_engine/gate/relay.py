"""One relay: a proxy's many requests over one SSH channel, to the instances that its routes name."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from saia_engine.gate import exchange
from saia_engine.gate.admission import Refusal, Request, admit
from saia_engine.gate.exchange import BodyMismatch, Exchange
from saia_engine.gate.http1 import BadResponse, Connection, ConnectionLost
from saia_engine.gate.journal import note_failure, note_fault
from saia_engine.gate.limits import Bucket
from saia_engine.gate.reporter import Reporter, Tally
from saia_engine.gate.routes_file import RoutesFile
from saia_engine.gate.stdio import Stdio
from saia_engine.gate.upstream import Replaced, Upstream, Upstreams
from saia_engine.model import ProxyLimits
from saia_engine.routes import RouteTable
from saia_engine.wire import messages
from saia_engine.wire.messages import Applied, Control, InstanceState, Metrics, Renew, Routes, ServiceState
from saia_engine.wire.mux import Mux, StreamReset
from saia_engine.wire.stream import Stream

MIB = 1024 * 1024
NOTES_PER_SECOND = 10
"""Failed requests written to the journal; a lost instance may end hundreds at once."""
_REPLACED = "another generation took the instance's place"


class Relay:
    """Serves one connection from its start to its end.

    `file` holds routes that name the proxy; `alone` is what the mux asks.
    """

    def __init__(self, proxy: str, file: RoutesFile, alone: Callable[[], bool] | None = None) -> None:
        self._proxy = proxy
        self._file = file
        self._alone = alone
        self._limits = file.table.proxies[proxy]
        self._bucket = Bucket(self._limits.opens_per_second, time.monotonic)
        self._notes = Bucket(NOTES_PER_SECOND, time.monotonic)
        self._upstreams = Upstreams(self._publish)
        self._tally = Tally()
        self._reporter = Reporter(
            proxy, self._tally, socket=lambda: self._file.table.gate_socket, services=self._services
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._published: Routes | None = None
        self._mux: Mux

    async def run(self, stdio: Stdio, program: str) -> str:
        """Returns why it ended."""
        mux = self._mux = Mux(
            stdio.write,
            program=program,
            on_control=self._heard,
            on_open=self._opened,
            on_round_trip=self._tally.round_trip,
            alone=self._alone,
            max_streams=self._limits.streams,
            buffer_limit=self._limits.memory_mib * MIB,
        )
        self._reporter.on_admin = mux.control
        keepers = [
            asyncio.create_task(self._file.follow(self._apply)),
            asyncio.create_task(self._republish()),
            asyncio.create_task(self._reporter.run()),
        ]
        try:
            stdio.start(mux)
            self._apply(self._file.table)
            closed = asyncio.create_task(mux.wait_closed())
            keepers.append(closed)
            done, _ = await asyncio.wait(keepers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            tasks = [*keepers, *self._tasks]
            for task in tasks:
                task.cancel()
            mux.close("the relay ends")
            self._upstreams.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            stdio.close()
        return mux.closed_because

    def renew(self) -> None:
        """Ask the proxy for a new connection, which another relay will serve; until it comes, all goes on."""
        self._mux.control(Renew())

    # -- routes and control

    def _apply(self, table: RouteTable) -> None:
        limits = table.proxies.get(self._proxy)
        if limits is None:
            self._mux.close("the routes do not name this proxy any more")
            return
        self._limits = limits
        self._bucket.per_second = limits.opens_per_second
        self._mux.max_streams = limits.streams
        self._mux.buffer_limit = limits.memory_mib * MIB
        self._upstreams.apply(route for route in table.routes if may_reach(limits, route.service))
        self._publish()

    def _publish(self) -> None:
        """Tell the proxy what it may reach, if that is news."""
        routes = Routes(
            generation=self._file.table.generation,
            services=[
                ServiceState(
                    name=name,
                    models=list(service.models),
                    methods=list(service.methods),
                    paths=list(service.paths),
                    replicas=service.replicas,
                    ready=service.ready,
                    starting=service.starting,
                    queued=service.queued,
                    eta=service.eta,
                )
                for name, service in self._file.table.services.items()
                if may_reach(self._limits, name)
            ],
            instances=[
                InstanceState(
                    id=upstream.route.instance,
                    service=upstream.route.service,
                    generation=upstream.route.generation,
                    admit_until=upstream.route.admit_until,
                    end=upstream.route.end,
                    draining=upstream.draining,
                )
                for upstream in self._upstreams
                if upstream.offered
            ],
            site=f"{self._file.table.installation}.{self._file.table.cluster}",
        )
        if routes != self._published:
            self._published = routes
            self._mux.control(routes)

    async def _republish(self) -> None:
        """An instance that never answered stops being offered with time alone."""
        while True:
            await asyncio.sleep(0.5)
            self._publish()

    def _services(self) -> dict[str, tuple[str, ...]]:
        services = self._file.table.services
        return {name: service.models for name, service in services.items() if may_reach(self._limits, name)}

    def _heard(self, message: Control) -> None:
        if isinstance(message, Applied):
            if message != self._tally.applied:
                self._tally.applied = message
                self._reporter.soon()
        elif isinstance(message, Metrics):
            self._tally.metrics = message

    # -- requests

    def _opened(self, stream: Stream) -> None:
        """Sends it on at once where its body is here and a connection is free; else a task waits for them."""
        if not self._bucket.take():
            stream.reset(messages.LIMIT, "too many requests a second on this connection")
            return
        try:
            upstream = self._upstreams.find(stream.request.instance)
            request = admit(stream.request, upstream.route, time.time())
            body = exchange.arrived(stream, request)
            connection = upstream.take_idle() if body is not None else None
            if connection is not None:
                self._begin(stream, upstream, request, body, connection)
            else:
                self._start(stream, self._prepare(stream, upstream, request, body))
        except Exception as fault:
            self._not_begun(stream, fault)

    def _start(self, stream: Stream, work: Coroutine[Any, Any, None]) -> None:
        """A task that ends with the stream."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel(_: StreamReset) -> None:
            task.cancel()

        stream.on_reset = cancel

    async def _prepare(
        self, stream: Stream, upstream: Upstream, request: Request, body: bytes | None
    ) -> None:
        try:
            if body is None:
                body = await exchange.collect(stream, request)
            await upstream.usable()
            connection = await self._connect(upstream)
            self._begin(stream, upstream, request, body, connection)
        except Exception as fault:
            self._not_begun(stream, fault)

    async def _connect(self, upstream: Upstream) -> Connection:
        """Counts as in flight there. Raises Refusal."""
        task = asyncio.current_task()
        assert task is not None
        self._count(upstream, 1)
        upstream.open.add(task)
        try:
            return await upstream.take()
        except asyncio.CancelledError:
            if upstream.lost:
                raise Refusal(messages.NO_ROUTE, _REPLACED) from None
            raise
        finally:
            upstream.open.discard(task)
            self._count(upstream, -1)

    def _begin(
        self, stream: Stream, upstream: Upstream, request: Request, body: bytes | None, connection: Connection
    ) -> None:
        """Raises Refusal."""
        if time.time() >= upstream.route.admit_until:
            connection.abort()
            raise Refusal(messages.TOO_LATE, "this instance takes no new requests so close to its end")
        under_way = Exchange(stream, request, connection, functools.partial(self._ended, upstream))
        upstream.open.add(under_way)
        self._count(upstream, 1)
        self._tally.requests[upstream.route.service] += 1
        under_way.begin(body)

    def _not_begun(self, stream: Stream, fault: Exception) -> None:
        """Something went wrong before anything went to the instance."""
        if isinstance(fault, Refusal):
            stream.reset(fault.code, str(fault))
        else:
            self._broken(stream, fault)

    def _ended(self, upstream: Upstream, under_way: Exchange) -> None:
        stream, fault, service = under_way.stream, under_way.fault, upstream.route.service
        upstream.open.discard(under_way)
        self._count(upstream, -1)
        if fault is None:
            upstream.give_back(under_way.connection)
            if under_way.status >= 500:
                self._tally.errors[service] += 1
            if not stream.over:
                self._start(stream, exchange.discard(stream))
        elif isinstance(fault, ConnectionLost):
            text = "the connection ended before the response did"
            self._failed(stream, service, messages.INSTANCE_LOST, text)
        elif isinstance(fault, BadResponse):
            self._failed(stream, service, messages.BAD_RESPONSE, f"no good response: {fault}")
        elif isinstance(fault, Replaced):
            self._failed(stream, service, messages.INSTANCE_LOST, _REPLACED)
        else:
            self._broken(stream, fault)

    def _count(self, upstream: Upstream, change: int) -> None:
        """In flight at this instance."""
        in_flight, instance = self._tally.in_flight, upstream.route.instance
        in_flight[instance] += change
        if not in_flight[instance]:
            del in_flight[instance]

    def _broken(self, stream: Stream, fault: BaseException) -> None:
        """By the proxy, or by a fault of the gate's own."""
        if isinstance(fault, StreamReset):
            return
        if isinstance(fault, BodyMismatch):
            stream.reset(messages.PROTOCOL, "the body is not as long as announced")
            return
        if self._notes.take():
            note_fault(stream.request.request_id, type(fault), fault, fault.__traceback__)
        stream.reset(messages.INSTANCE_LOST if stream.taken else messages.REFUSED, "the gate failed")

    def _failed(self, stream: Stream, service: str, code: str, why: str) -> None:
        self._tally.errors[service] += 1
        if self._notes.take():
            note_failure(stream.request.request_id, stream.request.instance, f"{code}, {why}")
        stream.reset(code)


def may_reach(limits: ProxyLimits, service: str) -> bool:
    return "*" in limits.services or service in limits.services
