"""GET /v1/models: what each model is about to be, for clients of OpenAI and for people."""

from __future__ import annotations

import asyncio
import time

import msgspec
import openai
import pytest
import uvloop

from saia_engine.wire import messages
from saia_engine.wire.messages import Routes, ServiceState, unpack_control
from tests.unit.proxy_gate import Gate, instance, service
from tests.unit.proxy_running import KEY, config, error_of, running, until, until_async

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
LATER = float(int(time.time()) + 40)


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


async def told(proxy) -> dict:
    models = (await proxy.client.get("/v1/models")).json()["data"]
    return {model["id"]: model["saia"] for model in models}


async def test_each_state_is_told_as_it_is(tmp_path):
    gate = Gate(
        [
            service("a", ("ready",), starting=2, queued=1),
            service("b", ("starting",), ready=0, starting=2, queued=1, eta=LATER),
            service("c", ("queued",), ready=0, starting=2, queued=2, eta=LATER),
            service("d", ("unknown",), ready=0, starting=1, queued=1),
            service("e", ("stopped",), ready=0, replicas=0),
            service("f", ("gone",), ready=0, replicas=3),
            service("g", ("draining",), ready=0, replicas=3),
        ],
        [instance("one", "a"), instance("two", "g", draining=True)],
    )
    async with running(config(tmp_path, "a"), gate) as proxy:
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0) as client:
            listed = {model.id: model async for model in client.models.list()}
        models = await told(proxy)
    assert {name: saia["state"] for name, saia in models.items()} == {
        "ready": "ready",
        "starting": "starting",
        "queued": "queued",
        "unknown": "queued",
        "stopped": "stopped",
        "gone": "stopped",
        "draining": "stopped",
    }
    assert models["starting"] | {"state": ""} == {
        "state": "", "ready": 0, "starting": 1, "queued": 1, "replicas": 2, "eta": LATER,
    }  # fmt: skip
    assert (models["queued"]["eta"], models["unknown"]["eta"]) == (LATER, None)
    assert listed["queued"].model_extra == {"saia": models["queued"]}


async def test_a_503_says_when_to_come_back_by_the_queues_own_estimate(tmp_path):

    def queued(name: str, eta: float | None) -> ServiceState:
        return service(name, (name,), ready=0, starting=1, queued=1, eta=eta)

    now = time.time()
    gate = Gate(
        [queued("soon", now + 40), queued("late", now + 1e6), queued("over", now - 50), queued("un", None)],
        [],
    )
    async with running(config(tmp_path, "a", max_wait_s=0.05), gate) as proxy:
        waits = {}
        for name in ("soon", "late", "over", "un"):
            response = await proxy.chat(name)
            assert (response.status_code, error_of(response)["code"]) == (503, "no_instance")
            waits[name] = int(response.headers["retry-after"])
    assert 30 <= waits.pop("soon") <= 40
    assert waits == {"late": 600, "over": 15, "un": 15}


async def test_two_gates_of_one_site_tell_of_the_same_replicas(tmp_path):
    old, new = service(replicas=2, starting=1), service(replicas=3, starting=0)
    first, second = Gate([old], [instance("one")]), Gate([new], [instance("one")])
    other = Gate([service(replicas=5)], [instance("two")])
    first.routes = Routes(1, [old], [instance("one")], site="k.hpc")
    second.routes = Routes(2, [new], [instance("one")], site="k.hpc")
    other.routes = Routes(1, [service(replicas=5)], [instance("two")], site="k.other")
    async with running(config(tmp_path, "a", "b", "c"), first, second, other) as proxy:

        async def all_told() -> bool:
            return (await told(proxy))["llama"]["replicas"] == 8

        await until_async(all_told)
        assert (await told(proxy))["llama"]["ready"] == 2
        second.accepting = False
        second.cut()

        async def by_the_one_that_is_left() -> bool:
            return (await told(proxy))["llama"]["replicas"] == 7

        await until_async(by_the_one_that_is_left)
        second.accepting = True
        await until_async(all_told)


async def test_who_waits_is_served_as_soon_as_the_queue_ends(tmp_path):
    gate = Gate([service(ready=0, starting=1, queued=1, eta=time.time() + 15)], [])
    async with running(config(tmp_path, "a", max_wait_s=10.0), gate) as proxy:
        call = asyncio.create_task(proxy.chat())
        await until(lambda: any(m.queued for m in gate.metrics))
        gate.tell(Routes(2, [service()], [instance("one")]))
        assert (await call).status_code == 200


# ---------------------------------------------------------------- peers of another age


class OldServiceState(messages.Message, frozen=True):
    name: str
    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    replicas: int = 0
    ready: int = 0
    starting: int = 0


class OldRoutes(messages.Message, frozen=True, tag="routes"):
    generation: int
    services: tuple[OldServiceState, ...] = ()


def test_an_old_proxy_reads_a_new_gates_word():
    new = Routes(7, [service(starting=2, queued=1, eta=LATER)], [], site="k.hpc")
    read = msgspec.json.decode(messages.pack(new), type=OldRoutes)
    assert (read.generation, read.services[0].name, read.services[0].starting) == (7, "chat", 2)


def test_a_new_proxy_reads_an_old_gates_word():
    old = OldRoutes(7, (OldServiceState("chat", ("llama",), ("POST",), ("/v1/",), 2, 1, 1),))
    read = unpack_control(messages.pack(old))
    assert isinstance(read, Routes)
    assert (read.services[0].starting, read.services[0].queued, read.services[0].eta, read.site) == (
        1,
        0,
        None,
        "",
    )
