"""Older events, page by page: the journal's bounded search, and the call that asks for it."""

from __future__ import annotations

import pytest

from saia_engine import store as store_module
from saia_engine.client import ClientError, EngineClient
from saia_engine.store import Event, Store
from tests.unit.fake_engine import served
from tests.unit.test_api_calls import ask


@pytest.fixture
def store() -> Store:
    store = Store(":memory:")
    for number in range(1, 101):
        severity = "critical" if number % 50 == 0 else "warning" if number % 7 == 0 else "info"
        store.record(
            float(number), "c", severity, "chat", f"event {number}", 1000 if number % 10 == 0 else None
        )
    return store


def pages(store: Store, most: int, **asked: object) -> list[Event]:
    """All pages, one after the other."""
    found, before = [], 2**53
    for _ in range(1000):
        page, before = store.events_before(before, most, **asked)  # type: ignore[arg-type]
        assert len(page) <= most
        found += page
        if not before:
            return found
    raise AssertionError("no end")


@pytest.mark.parametrize("most", [1, 7, 100, 500])
def test_pages_are_whole_and_in_order(store: Store, most: int) -> None:
    assert [event.seq for event in pages(store, most)] == list(range(100, 0, -1))


@pytest.mark.parametrize("searched", [3, 10, 1000])
def test_a_bounded_search_misses_nothing(
    store: Store, searched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "EVENTS_SEARCHED", searched)
    assert [event.seq for event in pages(store, 5, operators=True)] == list(range(100, 0, -10))
    assert [event.seq for event in pages(store, 5, severities=("critical",))] == [100, 50]
    both = pages(store, 5, operators=True, severities=("warning", "critical"))
    assert [event.seq for event in both] == [100, 70, 50]


def test_an_empty_journal_has_one_empty_page() -> None:
    assert Store(":memory:").events_before(2**53, 10) == ([], 0)


async def test_the_call_takes_only_what_it_knows() -> None:
    async with served() as api:
        status, answer = await ask(api, "GET", "/v1/events?before=50&most=3&uid=any&severity=warning")
        assert (status, [row["seq"] for row in answer["events"]], answer["before"]) == (200, [49, 48, 47], 47)
        assert answer["events"][0]["text"] == "True ('warning', 'critical')"
        for query in (
            "most=0",
            "most=501",
            "most=x",
            "before=-1",
            "uid=7",
            "severity=bad",
            "subject=x",
            "before=1e400",
        ):
            status, answer = await ask(api, "GET", f"/v1/events?{query}")
            assert (status, answer["error"]["code"]) == (400, "bad_request"), query


async def test_the_client_pages_through() -> None:
    async with served() as api, EngineClient(api.operator) as client:
        page = await client.events(10, 4)
        assert ([row.seq for row in page.events], page.before) == ([9, 8, 7, 6], 6)
        rest = await client.events(page.before, 500)
        assert ([row.seq for row in rest.events], rest.before) == ([5, 4, 3, 2, 1], 0)
        with pytest.raises(ClientError, match="most"):
            await client.events(10, 501)
