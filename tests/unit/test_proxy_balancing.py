"""Which instance a client's request goes to, over real sockets: failing, stalling and faithful ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine.wire import messages
from saia_engine.wire.mux import Stream
from saia_proxy.config import Balancing, ProxyConfig
from saia_proxy.health import Tolerance
from tests.unit.proxy_gate import Gate, instance, service
from tests.unit.proxy_running import BODY, config, running, until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")


def balanced(directory: Path, **settings) -> ProxyConfig:
    return replace(config(directory, "a"), balancing=Balancing(**settings))


@pytest.mark.parametrize("code", [messages.INSTANCE_LOST, messages.BAD_RESPONSE])
async def test_an_instance_that_keeps_failing_gets_no_more_while_another_serves(tmp_path, code):
    gate = Gate([service()], [instance("bad"), instance("good")])

    async def fail(stream: Stream) -> None:
        stream.reset(code)

    gate.answers["bad"] = fail
    settings = balanced(tmp_path, tolerance=Tolerance(eject_after=3, eject_for_s=60))
    async with running(settings, gate) as proxy:
        seen = [(await proxy.chat()).status_code for _ in range(40)]
    assert seen.count(502) == 3
    assert seen[-10:] == [200] * 10


async def test_the_only_instance_is_tried_however_it_fails(tmp_path):
    gate = Gate([service()], [instance("only")])

    async def fail(stream: Stream) -> None:
        stream.reset(messages.INSTANCE_LOST)

    gate.answers["only"] = fail
    async with running(balanced(tmp_path, tolerance=Tolerance(eject_after=1)), gate) as proxy:
        seen = [(await proxy.chat()).status_code for _ in range(3)]
        del gate.answers["only"]
        seen.append((await proxy.chat()).status_code)
    assert seen == [502, 502, 502, 200]


async def test_new_requests_keep_off_an_instance_that_stalls(tmp_path):
    gate = Gate([service()], [instance("hung"), instance("good")])
    hangs = asyncio.Event()

    async def hang(stream: Stream) -> None:
        await hangs.wait()

    gate.answers["hung"] = hang
    settings = balanced(tmp_path, tolerance=Tolerance(stall_after_s=0.2))
    async with running(settings, gate) as proxy:
        stuck: list[asyncio.Task] = []
        while not any(stream.request.instance == "hung" for stream in gate.opened):
            stuck.append(asyncio.create_task(proxy.chat()))
            await until(lambda: len(gate.opened) == len(stuck))
        await asyncio.sleep(0.3)
        before = len(gate.opened)
        answers = await asyncio.gather(*(proxy.chat() for _ in range(20)))
        assert {answer.json()["instance"] for answer in answers} == {"good"}
        assert len(gate.opened) == before + 20
        for task in stuck:
            task.cancel()


@pytest.mark.parametrize("affinity", ["x-session-id", "key"])
async def test_with_affinity_a_client_stays_where_it_was(tmp_path, affinity):
    gate = Gate([service()], [instance(str(n)) for n in range(5)])
    async with running(balanced(tmp_path, affinity=affinity), gate) as proxy:
        by_session = {}
        for session in map(str, range(12)):
            headers = {"x-session-id": session}
            answers = [
                await proxy.client.post("/v1/completions", content=BODY, headers=headers) for _ in range(4)
            ]
            by_session[session] = {answer.json()["instance"] for answer in answers}
    assert all(len(chosen) == 1 for chosen in by_session.values())
    all_chosen = set().union(*by_session.values())
    assert len(all_chosen) == 1 if affinity == "key" else len(all_chosen) > 1
