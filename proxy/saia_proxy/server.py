"""Everything started and stopped in order: the listening socket, the tunnels, the clients' connections."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Callable

import uvloop

from saia_engine.edge import collector
from saia_engine.edge.lifeline import follow
from saia_engine.edge.logs import get_logger
from saia_engine.wire.messages import Metrics as Told
from saia_proxy.admin import Orders
from saia_proxy.app import App
from saia_proxy.body import Buffers
from saia_proxy.config import ProxyConfig, SshUpstream, SubprocessUpstream
from saia_proxy.connection import Clients, Connection
from saia_proxy.forward import Forwarder
from saia_proxy.forwarded import TrustedProxies
from saia_proxy.keys import Keyring, states
from saia_proxy.metrics import Metrics
from saia_proxy.queue import Queue
from saia_proxy.quota import Board, Quotas
from saia_proxy.records import Records
from saia_proxy.relay import VERSION
from saia_proxy.routing import RoutingTable
from saia_proxy.telemetry import Telemetry
from saia_proxy.transports import LIFELINE, Connect, openssh
from saia_proxy.tunnel import Tunnel
from saia_proxy.workers import Keeper

GRACE_S = 10
"""How long open requests may go on after SIGTERM."""
KILL_AFTER_S = 5
"""After that a worker which still runs is killed."""
BACKLOG = 2048
HEAD_START_S = 5.0
"""What a worker's upstreams have to connect before it takes clients: the others can serve them meanwhile."""


def run(config: ProxyConfig) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where it can't listen or can't use its state directory."""
    server = config.server
    server.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _raise_file_limit()
    _log_asyncio()
    board = Board(config.keys, server.workers)
    with contextlib.closing(listen(server.host, server.port)) as listener:
        if server.workers == 1:
            _run_worker(config, listener, board)
            return
        _tls(config)  # said once, and before any worker
        address = listener.getsockname()[:2]
    # Each worker listens for itself, and the kernel spreads connections over them. This socket keeps the port.
    with contextlib.closing(_reserve(*address)):
        _keep_workers(config, address, board)


def _keep_workers(config: ProxyConfig, address: tuple[str, int], board: Board) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    for upstream in config.upstreams:
        connector(upstream, config.timeouts.connect_s)  # what it imports takes each worker a second

    def work(number: int, lifeline: int) -> None:
        with contextlib.closing(_reserve(*address)) as listener:
            _run_worker(config, listener, board, number, lifeline)

    def ended(number: int, pid: int) -> None:
        board.forget_open(number)
        mark_process_dead(pid)

    Keeper(config.server.workers, work, grace_s=GRACE_S + KILL_AFTER_S, on_end=ended).run()


def _run_worker(
    config: ProxyConfig, listener: socket.socket, board: Board, number: int = 0, lifeline: int | None = None
) -> None:
    collector.settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signalled(config, listener, board, number, lifeline))


async def _until_signalled(
    config: ProxyConfig, listener: socket.socket, board: Board, worker: int, lifeline: int | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        follow(lifeline, stop.set)
    demo = os.environ.get(LIFELINE)
    if demo:  # in the demo: this pipe ends when its starter is gone, however it went
        loop.add_reader(int(demo), os._exit, 0)
    await serve(config, listener, stop, board=board, worker=worker)


Connector = Callable[[SshUpstream | SubprocessUpstream, float], Connect]


def connector(upstream: SshUpstream | SubprocessUpstream, timeout_s: float) -> Connect:
    """How this upstream's gate is started. asyncssh is loaded only where it is used.

    OpenSSH's client costs less processor time than asyncssh (docs/performance.md), at 8 MiB for each connection.
    """
    if isinstance(upstream, SubprocessUpstream):
        from saia_proxy.transports import subprocess

        return subprocess.connector(upstream.command)
    if upstream.client == "openssh" or (upstream.client == "auto" and openssh.usable()):
        start = openssh.connector
    else:
        from saia_proxy.transports import ssh

        start = ssh.connector
    return start(
        host=upstream.host,
        port=upstream.port,
        user=upstream.user,
        key=str(upstream.key),
        known_hosts=str(upstream.known_hosts),
        timeout_s=timeout_s,
    )


async def serve(
    config: ProxyConfig,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    connect: Connector = connector,
    board: Board | None = None,
    worker: int = 0,
) -> None:
    """Serve on a bound socket until `stop` is set; the tunnels outlast the last open request.

    `board` is what the workers of one proxy share, and `worker` this one's number.
    """
    names = tuple(upstream.name for upstream in config.upstreams)
    metrics = Metrics()
    queues = config.queues.share(config.server.workers)
    table = RoutingTable(
        names,
        config.balancing.tolerance,
        most_at=lambda service: queues.of(service).max_in_flight,
    )
    shared = board or Board(config.keys)
    orders = Orders(config.server.state_dir, names, worker)
    quotas = Quotas(shared, worker, limits=orders.limits)
    telemetry = Telemetry(table)
    unconnected, connected = set(names), asyncio.Event()

    def told() -> Told:
        keys = states(config.keys, shared, orders)
        return Told(VERSION, table.demand(), keys, shared.started_at, telemetry.counter, telemetry.told())

    def linked(upstream: str, change: int) -> None:
        metrics.connected.labels(upstream).inc(change)
        unconnected.discard(upstream)
        if not unconnected:
            connected.set()

    tunnels = {
        upstream.name: Tunnel(
            upstream.name,
            connect(upstream, config.timeouts.connect_s),
            table=table,
            orders=orders,
            metrics=told,
            connections=upstream.connections,
            on_link=functools.partial(linked, upstream.name),
            on_round_trip=metrics.round_trip.labels(upstream.name).observe,
            handshake_s=config.timeouts.connect_s,
            longest_s=config.timeouts.total_s,
        )
        for upstream in config.upstreams
    }
    keys = Keyring(config.keys, orders, quotas)
    queue = Queue(table, queues, metrics)
    forwarder = Forwarder(
        keys=keys,
        table=table,
        tunnels=tunnels,
        orders=orders,
        timeouts=config.timeouts,
        balancing=config.balancing,
        quotas=quotas,
        queue=queue,
        metrics=metrics,
        max_body=config.server.max_body_bytes,
        buffers=Buffers(config.server.max_buffered_bytes),
    )
    records = Records(metrics, lambda: table.models, telemetry)
    app = App(
        forwarder=forwarder,
        keys=keys,
        table=table,
        orders=orders,
        metrics=metrics,
        telemetry=telemetry,
        records=records,
        scrapers=config.server.metrics_from,
        trusts=bool(config.server.trusted_proxies),
        upstreams=len(names),
    )
    clients = Clients(app, TrustedProxies(config.server.trusted_proxies))
    keepers = [asyncio.create_task(tunnel.run(), name=tunnel.name) for tunnel in tunnels.values()]
    try:
        if config.server.workers > 1:
            await _first(HEAD_START_S, connected, stop)
        await _serve_clients(clients, queue, listener, _tls(config), stop)
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        records.flush()


async def _first(longest_s: float, *events: asyncio.Event) -> None:
    """Returns once any of them is set, or after that time."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def _serve_clients(
    clients: Clients, queue: Queue, listener: socket.socket, tls: ssl.SSLContext | None, stop: asyncio.Event
) -> None:
    """Until `stop` is set; then what is open has GRACE_S."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(clients), sock=listener, ssl=tls, backlog=BACKLOG)
    host, port = listener.getsockname()[:2]
    get_logger("server").info("listening", host=host, port=port)
    try:
        await stop.wait()
    finally:
        server.close()
        clients.leave()
        queue.close()
    try:
        async with asyncio.timeout(GRACE_S):
            while clients.requests or clients.connections:
                await clients.fewer.wait()
    except TimeoutError:
        for request in clients.requests:
            request.cancel()
        await asyncio.gather(*clients.requests, return_exceptions=True)
        for connection in list(clients.connections):
            connection.abort()


def _tls(config: ProxyConfig) -> ssl.SSLContext | None:
    """Raises OSError where the files are of no use."""
    if config.server.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.server.tls_certificate, config.server.tls_key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _reserve(host: str, port: int) -> socket.socket:
    """Bound beside others of ours, not listening yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _ToOurLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        get_logger("asyncio").warning(record.getMessage().strip(), exc_info=record.exc_info)


def _log_asyncio() -> None:
    logger = logging.getLogger("asyncio")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.handlers = [_ToOurLog()]
