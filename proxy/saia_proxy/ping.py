"""Each upstream tried once, for a person who wants to know what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from saia_engine.edge.text import clean, plain
from saia_engine.wire.messages import Control, Routes
from saia_engine.wire.mux import Mux
from saia_proxy.config import ProxyConfig, SshUpstream, SubprocessUpstream
from saia_proxy.server import connector
from saia_proxy.transports import Trouble, Unusable
from saia_proxy.tunnel import PROGRAM, handshake


async def ping_all(config: ProxyConfig) -> list[tuple[str, str, bool]]:
    """For each upstream its name, a line for people, and whether it is good."""
    return await asyncio.gather(
        *(_ping(upstream, config.timeouts.connect_s) for upstream in config.upstreams)
    )


async def _ping(upstream: SshUpstream | SubprocessUpstream, timeout_s: float) -> tuple[str, str, bool]:
    try:
        return upstream.name, await _ask(upstream, timeout_s), True
    except Unusable as exc:
        return upstream.name, clean(str(exc)), False


async def _ask(upstream: SshUpstream | SubprocessUpstream, timeout_s: float) -> str:
    routes: asyncio.Future[Routes] = asyncio.get_running_loop().create_future()

    def on_control(message: Control) -> None:
        if isinstance(message, Routes) and not routes.done():
            routes.set_result(message)

    def make_mux(write: Callable[[bytes], None]) -> Mux:
        return Mux(write, program=PROGRAM, on_control=on_control)

    link = await connector(upstream, timeout_s)(make_mux)
    try:
        hello = await handshake(link, timeout_s)
        closed = asyncio.ensure_future(link.mux.wait_closed())
        await asyncio.wait([routes, closed], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        if not routes.done():
            raise Unusable(Trouble.GATE_ENDED, plain(link.mux.closed_because or "it told no routes"))
        told = routes.result()
        ready = sum(not instance.draining for instance in told.instances)
        return (
            f"connected to {plain(hello.program, 60)}; services {len(told.services)}, instances ready {ready}"
        )
    finally:
        await link.close()
