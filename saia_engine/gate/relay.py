"""One relay: a proxy's many requests over one SSH channel, to the instances that its routes name."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from saia_engine.gate import exchange
from saia_engine.gate.admission import Refusal, admit
from saia_engine.gate.exchange import BodyMismatch
from saia_engine.gate.http1 import BadResponse, ConnectionLost
from saia_engine.gate.journal import note_failure, note_fault
from saia_engine.gate.limits import Bucket
from saia_engine.gate.reporter import Reporter, Tally
from saia_engine.gate.routes_file import RoutesFile
from saia_engine.gate.stdio import Stdio
from saia_engine.gate.upstream import Upstream, Upstreams
from saia_engine.model import ProxyLimits
from saia_engine.routes import RouteTable
from saia_engine.wire import messages
from saia_engine.wire.messages import Applied, Control, InstanceState, Metrics, Renew, Routes, ServiceState
from saia_engine.wire.mux import Mux, StreamReset
from saia_engine.wire.stream import Stream

MIB = 1024 * 1024
NOTES_PER_SECOND = 10
"""Failed requests written to the journal; a lost instance may end hundreds at once."""


class Relay:
    """Serves one connection from its start to its end. `file` holds routes that name the proxy."""

    def __init__(self, proxy: str, file: RoutesFile) -> None:
        self._proxy = proxy
        self._file = file
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
        if not self._bucket.take():
            stream.reset(messages.LIMIT, "too many requests a second on this connection")
            return
        task = asyncio.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel(_: StreamReset) -> None:
            task.cancel()

        stream.on_reset = cancel

    async def _serve(self, stream: Stream) -> None:
        try:
            await self._carry(stream)
            await exchange.discard(stream)
        except Refusal as refusal:
            stream.reset(refusal.code, str(refusal))
        except StreamReset:
            pass
        except BodyMismatch:
            stream.reset(messages.PROTOCOL, "the body is not as long as announced")
        except Exception:
            if self._notes.take():
                note_fault(stream.request.request_id, *sys.exc_info())
            stream.reset(messages.INSTANCE_LOST if stream.taken else messages.REFUSED, "the gate failed")
        finally:
            stream.reset(messages.CANCELLED)

    async def _carry(self, stream: Stream) -> None:
        upstream = self._upstreams.find(stream.request.instance)
        request = admit(stream.request, upstream.route, time.time())
        body = await exchange.collect(stream, request)
        await upstream.usable()
        with self._counted(stream, upstream):
            connection = await upstream.take()
            try:
                if time.time() >= upstream.route.admit_until:
                    raise Refusal(
                        messages.TOO_LATE, "this instance takes no new requests so close to its end"
                    )
                self._tally.requests[upstream.route.service] += 1
                status = await exchange.run(stream, request, body, connection)
                if status >= 500:
                    self._tally.errors[upstream.route.service] += 1
            except BaseException:
                connection.abort()
                raise
            upstream.give_back(connection)

    @contextmanager
    def _counted(self, stream: Stream, upstream: Upstream) -> Iterator[None]:
        """In flight at this instance; its loss, whichever way it shows, ends the stream with the right code."""
        task = asyncio.current_task()
        assert task is not None
        instance, service = upstream.route.instance, upstream.route.service
        upstream.exchanges.add(task)
        self._tally.in_flight[instance] += 1
        try:
            yield
        except ConnectionLost:
            self._failed(
                stream, service, messages.INSTANCE_LOST, "the connection ended before the response did"
            )
        except BadResponse as exc:
            self._failed(stream, service, messages.BAD_RESPONSE, f"no good response: {exc}")
        except asyncio.CancelledError:
            if not upstream.lost:
                raise
            code = messages.INSTANCE_LOST if stream.taken else messages.NO_ROUTE
            self._failed(stream, service, code, "another generation took the instance's place")
        finally:
            upstream.exchanges.discard(task)
            self._tally.in_flight[instance] -= 1
            if not self._tally.in_flight[instance]:
                del self._tally.in_flight[instance]

    def _failed(self, stream: Stream, service: str, code: str, why: str) -> None:
        self._tally.errors[service] += 1
        if self._notes.take():
            note_failure(stream.request.request_id, stream.request.instance, f"{code}, {why}")
        stream.reset(code)


def may_reach(limits: ProxyLimits, service: str) -> bool:
    return "*" in limits.services or service in limits.services
