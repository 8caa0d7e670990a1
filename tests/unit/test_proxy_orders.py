"""Orders to proxies in the engine: revisions that only grow, answers that wait for news, what is told and alarmed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from saia_engine.model import ProxyLimits
from saia_engine.proxy_orders import IN_FORCE_WITHIN_S, ProxyOrders, alarms, next_revision
from saia_engine.relays import GONE_AFTER_S, Relays
from saia_engine.reports import GateReport
from saia_engine.store import ProxyWish, Store
from saia_engine.wire.messages import MOST_KEYS, KeyOrder, KeyState
from saia_engine.wishes import WishRefused

NOW = 1_700_000_000.0
NOW_MS = 1_700_000_000_000
A, B = "a" * 16, "b" * 16


class Bench:
    """Orders of the proxy `cloud` under a clock of our own."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.relays = Relays()
        self.path = path
        self.orders = self.restarted()

    def restarted(self) -> ProxyOrders:
        return ProxyOrders(Store(self.path), self.relays, lambda: self.now)

    def order(self, key: str = "alice", **changes: bool | int | None) -> bool:
        return self.orders.order_key("cloud", key, changes, 1000)

    @property
    def revision(self) -> int:
        return self.orders.wish("cloud").revision

    def hear(self, revision: int | None = None, *keys: KeyState, relay: str = A, since: float = 0.0) -> None:
        known = self.revision if revision is None else revision
        report = GateReport("cloud", relay, 1, connected_since=since, admin_revision=known, keys=list(keys))
        self.relays.note(report, {}, self.now)

    def alarms(self) -> list[tuple[str, str]]:
        proxies = {"cloud": ProxyLimits()}
        found = alarms(proxies, self.orders.wishes, self.relays, self.now)
        return [(alarm.code, alarm.severity) for alarm in found]

    def row(self, name: str) -> dict:
        return next(row for row in self.orders.key_rows("cloud")["keys"] if row["name"] == name)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "state.db")


# ---------------------------------------------------------------- revisions


@pytest.mark.parametrize(
    ("last", "heard", "revision"),
    [
        (0, [], NOW_MS),
        (3, [3], NOW_MS),
        (NOW_MS, [], NOW_MS + 1),
        (NOW_MS + 5000, [], NOW_MS + 5001),
        (0, [NOW_MS + 9000, 7], NOW_MS + 9001),
        (0, [2**53 - 1], NOW_MS),
    ],
    ids=["first", "counted by ones before", "twice in a ms", "clock back", "journal lost", "a proxy's lie"],
)
def test_a_revision_is_its_time_and_above_all_before(last: int, heard: list[int], revision: int) -> None:
    assert next_revision(last, heard, NOW) == revision


def test_each_change_is_a_new_revision_and_what_changes_nothing_is_none(bench: Bench) -> None:
    assert bench.order(revoked=True)
    first = bench.revision
    assert not bench.order(revoked=True)
    assert not bench.orders.set_maintenance("cloud", False, 0)
    assert bench.revision == first
    assert bench.orders.set_maintenance("cloud", True, 0)
    assert bench.order(concurrency=0, per_minute=30)
    assert bench.revision == first + 2


def test_all_that_is_wanted_is_sent_whole_and_is_there_after_a_restart(bench: Bench) -> None:
    bench.order(revoked=True)
    bench.order(concurrency=4)
    bench.order("bob", per_minute=0)
    bench.order("carol", revoked=True)
    bench.order("carol", revoked=False)
    bench.orders.set_maintenance("cloud", True, 0)
    wanted = {
        "revision": bench.revision,
        "maintenance": True,
        "keys": {"alice": KeyOrder(True, 4), "bob": KeyOrder(per_minute=0)},
    }
    assert bench.orders.desired("cloud") == bench.restarted().desired("cloud") == wanted
    assert bench.orders.desired("other") == {"revision": 0, "maintenance": False, "keys": {}}
    known = bench.restarted().wish("cloud").keys["alice"]
    assert (known.uid, known.at) == (1000, NOW)


def test_orders_for_more_keys_than_a_message_holds_are_refused(bench: Bench) -> None:
    bench.orders.wishes["cloud"] = ProxyWish()
    for number in range(MOST_KEYS):
        bench.order(f"key-{number}", revoked=True)
    with pytest.raises(WishRefused, match=f"{MOST_KEYS} keys"):
        bench.order("one-more", revoked=True)
    assert bench.order("key-0", revoked=False)
    assert bench.order("one-more", revoked=True)


# ---------------------------------------------------------------- a journal that is lost


def test_over_a_lost_journal_a_proxy_keeps_its_orders_until_the_next_which_keeps_what_is_revoked(
    bench: Bench,
) -> None:
    lost = NOW_MS - 5000
    bench.hear(lost, KeyState("alice", revoked=True), KeyState("bob"))
    assert not bench.orders.key_rows("cloud")["acknowledged"]
    bench.now += IN_FORCE_WITHIN_S + 1
    bench.hear(lost, KeyState("alice", revoked=True), KeyState("bob"))
    assert bench.alarms() == [("orders-unknown", "warning")]
    assert bench.orders.set_maintenance("cloud", False, 1000), "also where it changes nothing here"
    assert bench.revision > lost
    assert bench.orders.desired("cloud")["keys"] == {"alice": KeyOrder(revoked=True)}


def test_what_is_kept_of_a_lost_journal_leaves_room_for_what_is_ordered(bench: Bench) -> None:
    said = [KeyState(f"key-{number}", revoked=True) for number in range(MOST_KEYS)]
    bench.hear(NOW_MS - 5000, *said)
    bench.order("alice", revoked=True)
    ordered = bench.orders.desired("cloud")["keys"]
    assert (len(ordered), "alice" in ordered, "key-0" in ordered) == (MOST_KEYS, True, True)


def test_what_is_ordered_counts_more_than_what_a_lost_journal_wanted(bench: Bench) -> None:
    bench.hear(NOW_MS - 5000, KeyState("alice", revoked=True))
    bench.order("alice", concurrency=3)
    assert bench.orders.desired("cloud")["keys"] == {"alice": KeyOrder(concurrency=3)}


# ---------------------------------------------------------------- answers that wait


async def test_an_answer_waits_for_news_and_no_longer_than_it_may(bench: Bench) -> None:
    bench.order(revoked=True)
    waiting = asyncio.create_task(bench.orders.news("cloud", bench.revision, 60))
    other = asyncio.create_task(bench.orders.news("other", 0, 60))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.order("bob", revoked=True)
    await asyncio.wait_for(waiting, 5)
    assert not other.done(), "another proxy's news"
    bench.orders.close()
    await asyncio.wait_for(other, 5)
    began = time.monotonic()
    await bench.restarted().news("cloud", bench.revision, 0.2)
    assert time.monotonic() - began >= 0.19
    async with asyncio.timeout(5):
        await bench.restarted().news("cloud", bench.revision - 1, 60)
        await bench.orders.news("cloud", bench.revision, 60)  # the engine stops


# ---------------------------------------------------------------- what is told


def test_a_key_is_told_with_what_is_ordered_and_what_the_proxy_says(bench: Bench) -> None:
    bench.order(revoked=True)
    said = KeyState("alice", "llama", requests=7)
    bench.hear(0, said, KeyState("bob"))
    row = bench.row("alice")
    assert row["ordered"] == {
        "revoked": True,
        "concurrency": None,
        "per_minute": None,
        "uid": 1000,
        "at": NOW,
    }
    assert (row["in_force"], row["said"]["revoked"], row["said"]["requests"]) == (False, False, 7)
    assert (bench.row("bob")["ordered"], bench.row("bob")["in_force"]) == (None, False)
    bench.hear(None, KeyState("alice", revoked=True), KeyState("bob"))
    assert bench.row("alice")["in_force"] and bench.row("bob")["in_force"]
    assert [bench.orders.known("cloud", name) for name in ("alice", "carol")] == [True, False]
    bench.order("carol", revoked=True)
    bench.hear(None, KeyState("alice", revoked=True))
    assert (bench.row("carol")["said"], bench.row("carol")["in_force"]) == (None, True)


def test_one_that_lags_among_several_workers_means_not_yet_in_force(bench: Bench) -> None:
    bench.order(revoked=True)
    revoked = KeyState("alice", revoked=True)
    bench.hear(0, KeyState("alice"), relay=B)
    bench.hear(None, revoked, relay=A)
    assert not bench.row("alice")["in_force"]
    bench.hear(None, revoked, relay=B)
    assert bench.row("alice")["in_force"]


def test_a_proxy_that_acknowledges_and_tells_of_no_keys_is_not_believed_to_obey(bench: Bench) -> None:
    bench.order(revoked=True)
    bench.hear()
    assert bench.orders.key_rows("cloud")["acknowledged"]
    assert not bench.row("alice")["in_force"]
    assert bench.orders.known("cloud", "alice") is None


def test_of_a_proxy_that_is_away_nothing_is_said(bench: Bench) -> None:
    bench.order(revoked=True)
    bench.hear(None, KeyState("alice", revoked=True))
    bench.now += GONE_AFTER_S + 1
    answer = bench.orders.key_rows("cloud")
    assert (answer["connected"], answer["acknowledged"]) == (False, False)
    assert (bench.row("alice")["said"], bench.row("alice")["in_force"]) == (None, False)


# ---------------------------------------------------------------- alarms


def test_an_order_that_is_not_acknowledged_in_time_raises_an_alarm(bench: Bench) -> None:
    bench.order(per_minute=5)
    before = bench.revision - 1
    bench.hear(before)
    assert bench.alarms() == []
    bench.now += IN_FORCE_WITHIN_S + 1
    bench.hear(before)
    assert bench.alarms() == [("orders-not-acknowledged", "warning")]
    bench.order(revoked=True)
    bench.now += IN_FORCE_WITHIN_S + 1
    bench.hear(before)
    assert bench.alarms() == [("orders-not-acknowledged", "critical")]
    bench.hear(since=bench.now)
    assert bench.alarms() == []


def test_who_is_away_or_has_just_come_is_not_late(bench: Bench) -> None:
    bench.order(revoked=True)
    bench.now += 3600
    assert bench.alarms() == []
    bench.hear(0, since=bench.now - 1)
    assert bench.alarms() == []
    bench.now += IN_FORCE_WITHIN_S
    bench.hear(0, since=bench.now - IN_FORCE_WITHIN_S - 1)
    assert bench.alarms() == [("orders-not-acknowledged", "critical")]


def test_maintenance_is_an_alarm_as_long_as_it_is_wanted(bench: Bench) -> None:
    bench.orders.set_maintenance("cloud", True, 0)
    assert bench.alarms() == [("maintenance", "warning")]
    assert list(alarms({}, bench.orders.wishes, bench.relays, NOW)) == [], "not configured any more"
