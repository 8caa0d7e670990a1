"""The state stream: what a follower sees is what was published, however slow it is."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest

from saia_engine.api import hub as hub_module
from saia_engine.api.hub import MOST_CHANGES, Hub
from saia_engine.client import EngineClient, Tables
from saia_engine.view import TABLES, Change
from tests.unit.fake_engine import jobs, served

decode = msgspec.json.Decoder(Change).decode


@asynccontextmanager
async def following(hub: Hub):
    """Reads the lines one by one, as changes."""
    async with aclosing(hub.follow()) as lines:

        async def one() -> Change:
            return decode(await anext(lines))

        yield one


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def snapshot(one) -> Tables:
    tables = Tables()
    for _ in TABLES:
        change = await one()
        assert change.reset
        tables.apply(change)
    return tables


async def test_a_follower_gets_a_snapshot_then_changed_rows_only():
    hub = Hub()
    hub.publish("jobs", jobs(3))
    async with following(hub) as one:
        tables = await snapshot(one)
        assert tables.jobs == jobs(3)

        rows = jobs(3)
        rows["1"] = jobs(2, reason="new")["1"]
        del rows["2"]
        hub.publish("jobs", rows)
        change = await one()
        assert (list(change.set), change.gone, change.reset) == (["1"], ["2"], False)
        tables.apply(change)
        assert tables.jobs == rows

        hub.publish("jobs", dict(rows))
        hub.publish("nodes", {})
        hub.publish("jobs", {})
        assert (await one()).gone == ["0", "1"], "equal rows went out"


async def test_seq_grows_by_one_on_each_connection():
    hub = Hub()
    async with following(hub) as first:
        await snapshot(first)
        hub.publish("jobs", jobs(1))
        assert (await first()).seq == len(TABLES)
        async with following(hub) as second:
            assert [(await second()).seq for _ in TABLES] == list(range(len(TABLES)))


async def test_a_slow_follower_is_resynced_and_costs_no_more_than_its_queue():
    hub = Hub()
    async with following(hub) as one:
        await snapshot(one)
        for n in range(3 * MOST_CHANGES):
            hub.publish("jobs", jobs(1, reason=str(n)))
        (follower,) = hub._followers
        assert len(follower.queue) == 0
        tables = await snapshot(one)
        assert tables.jobs["0"].reason == str(3 * MOST_CHANGES - 1)
        hub.publish("jobs", {})
        assert (await one()).gone == ["0"]


async def test_few_but_large_changes_resync_too(monkeypatch):
    monkeypatch.setattr(hub_module, "MOST_BYTES", 10_000)
    hub = Hub()
    async with following(hub) as one:
        await snapshot(one)
        for letter in "abc":
            hub.publish("jobs", jobs(20, reason=letter * 300))
        (follower,) = hub._followers
        assert follower.behind
        assert (await snapshot(one)).jobs["19"].reason == "c" * 300


async def test_a_large_snapshot_comes_in_several_lines():
    hub = Hub()
    hub.publish("jobs", jobs(1200))
    async with following(hub) as one:
        tables, resets = Tables(), 0
        for _ in range(len(TABLES) + 2):
            change = await one()
            assert len(change.set) <= 500
            resets += change.reset
            tables.apply(change)
        assert resets == len(TABLES)
        assert tables.jobs == jobs(1200)


async def test_a_large_change_comes_in_several_lines_and_is_one():
    hub = Hub()
    hub.publish("jobs", jobs(700))
    async with following(hub) as one:
        tables = Tables()
        for _ in range(len(TABLES) + 1):
            tables.apply(await one())
        rows = jobs(1700, reason="new")
        del rows["0"]
        hub.publish("jobs", rows)
        changes = [await one() for _ in range(4)]
        for change in changes:
            tables.apply(change)
        assert [change.more for change in changes] == [True, True, True, False]
        assert [change.gone for change in changes] == [["0"], [], [], []]
        assert max(len(change.set) for change in changes) == 500
        assert tables.jobs == rows


async def test_silence_is_broken_by_blank_lines(monkeypatch):
    monkeypatch.setattr(hub_module, "HEARTBEAT_S", 0.01)
    async with aclosing(Hub().follow()) as lines:
        for _ in TABLES:
            await anext(lines)
        assert await anext(lines) == b"\n"
        assert await anext(lines) == b"\n"


def test_an_unknown_table_is_the_callers_fault():
    with pytest.raises(KeyError):
        Hub().publish("nosuch", {})


async def test_ten_thousand_jobs_are_published_quickly():
    hub = Hub()
    async with following(hub) as one:
        await snapshot(one)
        many = jobs(10_000)
        unchanged = jobs(10_000)
        took = []
        for rows in (many, unchanged):
            began = time.perf_counter()
            hub.publish("jobs", rows)
            took.append(time.perf_counter() - began)
    assert max(took) < 0.5, f"{took} s; tens of ms on an idle machine"


async def test_a_follower_that_left_is_forgotten_even_while_blocked():
    async with served() as api:
        _, writer = await asyncio.open_unix_connection(str(api.operator), limit=1024)
        writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: saia\r\n\r\n")
        async with asyncio.timeout(5):
            await until(lambda: api.engine.hub.followers == 1)
            for n in range(50):
                api.engine.hub.publish("jobs", jobs(1000, reason=f"{n}" * 50))
                await asyncio.sleep(0)
            assert api.engine.hub.followers == 1
            writer.transport.abort()
            await until(lambda: api.engine.hub.followers == 0)


async def test_a_stalled_reader_ends_with_the_same_tables_over_a_real_socket():
    async with served() as api, EngineClient(api.operator) as client:
        hub = api.engine.hub
        tables, changes = Tables(), client.changes()
        async with aclosing(changes), asyncio.timeout(20):
            for _ in TABLES:
                tables.apply(await anext(changes))
            (follower,) = hub._followers
            resyncs = 0
            for n in range(40):
                hub.publish("jobs", jobs(1000 - n, reason=str(n) * 100))
                await asyncio.sleep(0)
                resyncs += follower.behind
                assert sum(map(len, follower.queue)) <= hub_module.MOST_BYTES
            assert resyncs, "it was never too slow"
            hub.publish("proxies", {})
            while tables.proxies:
                tables.apply(await anext(changes))
            assert tables.jobs == jobs(1000 - 39, reason="39" * 100)
