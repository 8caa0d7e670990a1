"""Serves both sockets for as long as the engine runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from saia_engine.api import sockets
from saia_engine.api.access import Operators
from saia_engine.api.apps import gate_app, operator_app
from saia_engine.api.peers import PeerProtocol
from saia_engine.api.port import Engine

MOST_CONNECTIONS = 256
LARGEST_HEAD = 16 * 1024
LAST_ANSWERS_S = 2


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    operator_socket: Path,
    gate_socket: Path,
    operators_group: str = "",
    gate_group: str = "",
) -> AsyncIterator[None]:
    """Both sockets answer inside the `async with`. Raises SocketFault, and SocketTaken where an engine answers."""
    operators_gid = sockets.group_id(operators_group)
    with ExitStack() as stack:
        operator = stack.enter_context(_bound(operator_socket, operators_gid))
        gate = stack.enter_context(_bound(gate_socket, sockets.group_id(gate_group)))
        served = [
            (_Server(operator_app(engine, Operators(operators_gid))), operator),
            (_Server(gate_app(engine)), gate),
        ]
        tasks = [asyncio.create_task(server.serve([listener.socket])) for server, listener in served]
        try:
            while not all(server.started for server, _ in served):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.005)
            yield
        finally:
            engine.hub.close()
            for server, _ in served:
                server.should_exit = True
            await asyncio.gather(*tasks)


@contextmanager
def _bound(path: Path, gid: int | None) -> Iterator[sockets.Listener]:
    listener = sockets.bind(path, gid)
    try:
        yield listener
    finally:
        listener.close()


# What uvicorn says is either the caller's fault, and in the answer, or in our own log already.
logging.getLogger("uvicorn.error").disabled = True


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=PeerProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                h11_max_incomplete_event_size=LARGEST_HEAD,
                timeout_graceful_shutdown=LAST_ANSWERS_S,
            )
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the engine's."""
        yield
