"""What operators want of the proxies, maintenance and API keys, and whether it is in force there.

A proxy's desired state is sent whole with each answer to one of its relays; of two the one with the higher revision
is the newer. A revision is the time of its order in ms, bumped so that it always grows: also over a journal that is
lost, a proxy takes the next order for the newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msgspec.structs import asdict
from msgspec.structs import replace as changed

from saia_engine.relays import Relays
from saia_engine.reports import GateReport
from saia_engine.store import KeyWish, ProxyWish, Store
from saia_engine.view import AlarmView
from saia_engine.wire.messages import MOST_KEYS, KeyOrder, KeyState
from saia_engine.wishes import WishRefused

IN_FORCE_WITHIN_S = 5.0
"""An order that a connected proxy has not acknowledged by then raises an alarm."""
FAR_AHEAD_MS = 366 * 86_400_000
"""A revision so far in the future is no word of an engine."""
AS_CONFIGURED = KeyOrder()


class ProxyOrders:
    """The wish for each proxy. Orders are durable when they return; they raise JournalError."""

    def __init__(self, store: Store, relays: Relays, now: Callable[[], float]) -> None:
        self.wishes: dict[str, ProxyWish] = store.proxies()
        self._store = store
        self._relays = relays
        self._now = now
        self._news = asyncio.Event()
        """Set, and replaced, at each order."""
        self._closed = False

    def wish(self, proxy: str) -> ProxyWish:
        return self.wishes.get(proxy) or ProxyWish()

    # -- orders

    def set_maintenance(self, proxy: str, on: bool, uid: int) -> bool:
        """Whether that is news."""
        wish = self.wish(proxy)
        return self._order(proxy, replace(wish, maintenance=on), uid)

    def order_key(self, proxy: str, key: str, changes: Mapping[str, bool | int | None], uid: int) -> bool:
        """`changes` are fields of a KeyOrder. Whether that is news. Raises WishRefused."""
        wish = self.wish(proxy)
        before = wish.keys[key].order if key in wish.keys else AS_CONFIGURED
        order = changed(before, **changes)
        keys = {name: known for name, known in wish.keys.items() if name != key}
        if order == before:
            keys = wish.keys
        elif order != AS_CONFIGURED:
            keys[key] = KeyWish(order, uid, self._now())
        if len(keys) > MOST_KEYS:
            raise WishRefused(f"there are orders for {MOST_KEYS} keys of {proxy} already: restore some")
        return self._order(proxy, replace(wish, keys=keys), uid)

    def _order(self, proxy: str, wanted: ProxyWish, uid: int) -> bool:
        wish, now = self.wish(proxy), self._now()
        heard = [report.admin_revision for report in self._relays.of(proxy, now)]
        if _foreign(wish, heard):
            # What a journal that is lost had revoked must not work again only because we order something else.
            said = self._relays.said_keys(proxy, now)
            revoked = [row.name for row in said if row.revoked and row.name not in wanted.keys]
            still = revoked[: MOST_KEYS - len(wanted.keys)]
            adopted = {name: KeyWish(KeyOrder(revoked=True), uid, now) for name in still}
            wanted = replace(wanted, keys=adopted | wanted.keys)
        elif wanted == wish:
            return False
        wanted = replace(wanted, revision=next_revision(wish.revision, heard, now), at=now)
        self._store.set_proxy(proxy, wanted)
        self.wishes[proxy] = wanted
        self._wake()
        return True

    # -- what a relay gets

    def desired(self, proxy: str) -> dict[str, Any]:
        """A `wire.messages.Admin`."""
        wish = self.wish(proxy)
        orders = {name: known.order for name, known in wish.keys.items()}
        return {"revision": wish.revision, "maintenance": wish.maintenance, "keys": orders}

    async def news(self, proxy: str, known: int, wait_s: float) -> None:
        """Returns after so long, or as soon as something is wanted that is not of the known revision."""
        try:
            async with asyncio.timeout(wait_s):
                while self.wish(proxy).revision == known and not self._closed:
                    await self._news.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # -- what operators see

    def known(self, proxy: str, key: str) -> bool | None:
        """Whether the proxy has such a key; None where it does not tell."""
        said = self._relays.said_keys(proxy, self._now())
        return any(row.name == key for row in said) if said else None

    def key_rows(self, proxy: str) -> dict[str, Any]:
        """All keys that the proxy tells of or that something is ordered for; `said` is the proxy's own word."""
        now, wish = self._now(), self.wish(proxy)
        reports = self._relays.of(proxy, now)
        said = {row.name: row for row in self._relays.said_keys(proxy, now)}
        acked = acknowledged(wish, reports)
        rows = []
        for name in sorted({*said, *wish.keys}):
            row, ordered = said.get(name), wish.keys.get(name)
            order = ordered.order if ordered else AS_CONFIGURED
            rows.append(
                {
                    "name": name,
                    "ordered": asdict(order) | {"uid": ordered.uid, "at": ordered.at} if ordered else None,
                    "in_force": in_force(order, row, acked=acked, tells=bool(said)),
                    "said": asdict(row) if row else None,
                }
            )
        return {
            "proxy": proxy,
            "now": now,
            "connected": bool(reports),
            "revision": wish.revision,
            "acknowledged": acked,
            "keys": rows,
        }


def next_revision(last: int, heard: Iterable[int], now: float) -> int:
    """That of an order made now: above the last one, and above what proxies hold of a journal that is lost."""
    now_ms = int(now * 1000)
    return max([last + 1, now_ms, *(known + 1 for known in heard if known < now_ms + FAR_AHEAD_MS)])


def acknowledged(wish: ProxyWish, reports: Sequence[GateReport]) -> bool:
    """By all live relays, and there is one where anything was ever ordered."""
    if not reports:
        return wish.revision == 0
    return all(report.admin_revision == wish.revision for report in reports)


def in_force(order: KeyOrder, said: KeyState | None, *, acked: bool, tells: bool) -> bool:
    """Whether it is so at the proxy, which `said` this of the key. One that acknowledges and `tells` of no keys is too
    old to know of such orders."""
    return acked and tells and (said is None or said.revoked == order.revoked)


def _foreign(wish: ProxyWish, heard: Iterable[int]) -> bool:
    return any(revision > wish.revision for revision in heard)


def alarms(
    proxies: Collection[str], wishes: Mapping[str, ProxyWish], relays: Relays, now: float
) -> Iterator[AlarmView]:
    """What holds now of each proxy's orders."""
    for name in proxies:
        wish = wishes.get(name) or ProxyWish()
        if wish.maintenance:
            yield AlarmView(
                "maintenance", "warning", name, "in maintenance: it refuses all new requests", now
            )
        late = [
            report.admin_revision
            for report in relays.of(name, now)
            if report.admin_revision != wish.revision
            and now - max(wish.at, report.connected_since) > IN_FORCE_WITHIN_S
        ]
        if _foreign(wish, late):
            text = (
                "it goes by orders that this journal does not know, made before it was lost: `saia-engine keys"
                f" {name}` shows what is revoked there; the next order takes their place, and keeps that"
            )
            yield AlarmView("orders-unknown", "warning", name, text, now)
        elif late:
            text = (
                "it has not acknowledged what is wanted of it (maintenance, keys), so that may not be in force:"
                " its log says why"
            )
            severity = "critical" if any(k.order.revoked for k in wish.keys.values()) else "warning"
            yield AlarmView("orders-not-acknowledged", severity, name, text, now)
