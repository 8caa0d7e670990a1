from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec

from saia_engine.view import Change
from saia_tui.feed import Feed
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import Clock


async def come_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_it_keeps_the_last_state_when_the_engine_goes_and_takes_the_new_when_it_comes() -> None:
    engine, clock = FakeEngine(), Clock()
    feed = Feed(engine, monotonic=clock)
    following = asyncio.create_task(feed.follow())
    try:
        await come_true(lambda: bool(feed.tables.events))
        assert feed.link.up and len(feed.tables.services) == 5
        engine.go_away()
        await come_true(lambda: not feed.link.up)
        assert feed.link.lost_at == clock.at and "ended the stream" in feed.link.fault
        assert len(feed.tables.services) == 5
        del engine.tables["services"]["whisper"]
        engine.reachable = True
        await come_true(lambda: feed.link.up and "whisper" not in feed.tables.services)
    finally:
        following.cancel()


def test_it_collects_the_keys_that_changed_once() -> None:
    feed = Feed(FakeEngine())
    for change in sample.changes():
        feed.apply(change)
    assert feed.collect() == dict.fromkeys(sample.state())
    assert feed.collect() == {}
    row = msgspec.structs.replace(sample.services()["embed"], ready=1)
    feed.apply(Change(9, "services", {"embed": msgspec.Raw(sample.encode(row))}, ["whisper"]))
    assert feed.collect() == {"services": {"embed", "whisper"}}


def test_the_clock_is_the_engines_and_runs_on_between_its_words() -> None:
    clock = Clock()
    feed = Feed(FakeEngine(), monotonic=clock)
    for change in sample.changes():
        feed.apply(change)
    assert feed.now == sample.NOW
    clock.at += 7
    assert feed.now == sample.NOW + 7


def test_rates_are_sampled_while_the_link_is_up() -> None:
    feed = Feed(FakeEngine())
    for change in sample.changes():
        feed.apply(change)
    feed.sample_rates()
    feed.sample_rates()
    assert list(feed.rates["embed"]) == [41.2, 41.2]
    feed.link = replace(feed.link, up=False)
    feed.sample_rates()
    assert len(feed.rates["embed"]) == 2


def test_a_snapshot_in_several_lines_is_shown_only_whole() -> None:
    feed, filled = Feed(FakeEngine()), []
    for change in sample.changes():
        feed.apply(change)
    feed.collect()
    feed.on_filled = lambda: filled.append(1)
    before = dict(feed.tables.jobs)
    rows = {key: msgspec.Raw(sample.encode(row)) for key, row in before.items()}
    first, *others = rows
    feed.apply(Change(9, "jobs", {first: rows[first]}, reset=True, more=True))
    assert feed.tables.jobs == before and feed.collect() == {} and not filled
    feed.apply(Change(10, "jobs", {key: rows[key] for key in others[:3]}))
    assert list(feed.tables.jobs) == [first, *others[:3]]
    assert feed.collect() == {"jobs": None} and filled


def test_a_change_in_several_lines_is_told_of_with_its_last() -> None:
    feed = Feed(FakeEngine())
    for change in sample.changes():
        feed.apply(change)
    feed.collect()
    rows = {key: msgspec.Raw(sample.encode(row)) for key, row in feed.tables.jobs.items()}
    first, second, third, *_ = rows
    feed.apply(Change(9, "jobs", {first: rows[first]}, [third], more=True))
    assert feed.collect() == {}
    feed.apply(Change(10, "services", {}, ["whisper"]))
    assert feed.collect() == {"services": {"whisper"}}
    feed.apply(Change(11, "jobs", {second: rows[second]}))
    assert feed.collect() == {"jobs": {first, second, third}} and third not in feed.tables.jobs


def test_what_came_of_a_change_before_the_connection_broke_is_in_the_next_snapshot() -> None:
    feed = Feed(FakeEngine())
    for change in sample.changes():
        feed.apply(change)
    feed.collect()
    rows = {key: msgspec.Raw(sample.encode(row)) for key, row in feed.tables.jobs.items()}
    first, *_ = rows
    feed.apply(Change(9, "jobs", {first: rows[first]}, more=True))
    feed.apply(Change(0, "jobs", rows, reset=True))
    assert feed.collect() == {"jobs": None}
    feed.apply(Change(1, "jobs", {first: rows[first]}))
    assert feed.collect() == {"jobs": {first}}
