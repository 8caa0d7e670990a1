"""Each upstream tried once, for a person who wants to know what is wrong."""

from __future__ import annotations

import asyncio

from saia_engine.edge.text import clean, plain
from saia_proxy import relay
from saia_proxy.config import ProxyConfig, SshUpstream, SubprocessUpstream
from saia_proxy.server import connector
from saia_proxy.transports import Unusable


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
    asked = await relay.connect(connector(upstream, timeout_s), timeout_s)
    try:
        services, instances = asked.routes.services, asked.routes.instances
        ready = sum(not instance.draining for instance in instances)
        program = plain(asked.hello.program, 60)
        return f"connected to {program}; services {len(services)}, instances ready {ready}"
    finally:
        await asked.close()
