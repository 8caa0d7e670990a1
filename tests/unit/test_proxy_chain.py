"""The proxy with the real gate and real agents behind it: a drain under load, seen by the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
import uvloop

from saia_engine import agent, front, routes
from saia_engine.model import ProxyLimits
from saia_proxy.config import ProxyConfig, SubprocessUpstream
from saia_proxy.ping import ping_all
from saia_proxy.server import listen, serve
from tests.unit.agent_support import Agents, RunningAgent
from tests.unit.proxy_running import KEY, TIMEOUTS, config, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
OLD, NEW = "k7f3.hpc.chat.01d0", "k7f3.hpc.chat.0e30"


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


@pytest.fixture
def agents() -> Iterator[Agents]:
    running = Agents()
    yield running
    running.close()


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="saia-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


async def started(agents: Agents, instance: str) -> RunningAgent:
    llm = [sys.executable, "-m", "saia_engine.demo.llm", "--uds", "{socket}", "--model", "llama"]
    running = agents.start(instance=instance, command=llm)
    await running.up()
    async with running.connected(front.WATCH, instance=instance) as (reader, _):
        while not json.loads(await reader.readline())["ready"]:
            pass
    return running


def route(instance: str, running: RunningAgent) -> routes.Route:
    endpoint, now = running.endpoint, time.time()
    return routes.Route(
        instance=instance,
        service="chat",
        generation=0,
        host="127.0.0.1",
        port=endpoint.port,
        secret=endpoint.gate_secret,
        protocol=endpoint.protocol,
        methods=("POST",),
        paths=("/v1/",),
        admit_until=now + 600,
        end=now + 900,
    )


def write_routes(directory: Path, *listed: routes.Route, generation: int = 1) -> Path:
    path = directory / "routes.json"
    table = routes.RouteTable(
        version=routes.VERSION,
        generation=generation,
        written_at=time.time(),
        installation="k7f3",
        cluster="hpc",
        gate_socket=f"{directory}/gate.sock",
        proxies={"cloud": ProxyLimits()},
        services={"chat": routes.ServiceEntry(("llama",), ("POST",), ("/v1/",), 2, len(listed), 0)},
        routes=listed,
    )
    routes.write(path, table)
    return path


def through(directory: Path, path: Path, name: str = "cloud") -> ProxyConfig:
    plain = config(directory)
    gate = (sys.executable, "-I", "-m", "saia_engine.gate", "--routes", str(path), "--proxy", name)
    return ProxyConfig(
        file=plain.file,
        server=plain.server,
        upstreams=(SubprocessUpstream("here", gate),),
        timeouts=TIMEOUTS,
        keys=plain.keys,
    )


@contextlib.asynccontextmanager
async def client_of(settings: ProxyConfig) -> AsyncIterator[openai.AsyncOpenAI]:
    listener, stop = listen("127.0.0.1", 0), asyncio.Event()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    task = asyncio.create_task(serve(settings, listener, stop))
    try:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:

            async def listed() -> bool:
                return bool((await client.models.with_raw_response.list()).parse().data)

            await until_async(listed, within_s=10)
            yield client
    finally:
        stop.set()
        await task


async def count(client: openai.AsyncOpenAI, tokens: int, rate: float) -> None:
    """One stream, checked to its last number."""
    stream = await client.chat.completions.create(
        model="llama",
        messages=[{"role": "user", "content": "count"}],
        stream=True,
        max_tokens=tokens,
        extra_body={"tokens_per_second": rate},
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "".join(f" {n}" for n in range(1, tokens + 1))


async def test_a_drain_drops_nothing_and_cuts_nothing(agents, directory):
    old, new = await asyncio.gather(started(agents, OLD), started(agents, NEW))
    path = write_routes(directory, route(OLD, old), route(NEW, new))
    async with client_of(through(directory, path)) as client:
        long = [asyncio.create_task(count(client, 60, 25)) for _ in range(6)]
        short = asyncio.create_task(one_after_the_other(client, 80))
        async with old.connected(front.CONTROL, instance=OLD) as control:

            async def serves_long_ones() -> bool:
                return (await want(control, agent.SERVING))["open"] > 1  # one may be a short one

            await until_async(serves_long_ones, within_s=20)
            await want(control, agent.DRAINING)
            await asyncio.gather(*long, short)

            async def drained() -> bool:
                return (await want(control, agent.DRAINING))["open"] == 0

            await until_async(drained)
        await count(client, 5, 1000)


async def one_after_the_other(client: openai.AsyncOpenAI, number: int) -> None:
    for _ in range(number):
        await client.completions.create(
            model="llama", prompt="p", max_tokens=1, extra_body={"tokens_per_second": 1000}
        )


async def want(control: tuple[asyncio.StreamReader, asyncio.StreamWriter], state: str) -> dict:
    reader, writer = control
    writer.write(json.dumps({"want": state}).encode() + b"\n")
    return json.loads(await reader.readline())


async def test_an_unknown_proxy_name_is_said_so(directory):
    [(_, line, good)] = await ping_all(through(directory, write_routes(directory), "unknown"))
    assert not good
    assert line.startswith("refused by the gate: ")
    assert "proxy's name" in line


async def test_routes_arrive_and_models_have_a_state(agents, directory):
    path = write_routes(directory, route(OLD, await started(agents, OLD)))
    async with client_of(through(directory, path)) as client:
        [model] = (await client.models.list()).data
        assert model.model_extra and model.model_extra["saia"]["ready"] == 1
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="none", messages=[])
