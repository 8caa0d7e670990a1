"""What the gates' relays report: who is connected, what is in flight, how many requests went through."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from saia_engine.reports import GateReport
from saia_engine.wire.messages import KeyState

GONE_AFTER_S = 5.0
FORGOTTEN_AFTER_S = 600.0
"""Until then one that fell silent may come back, and its counts go on where they were."""
RATE_WINDOW_S = 10.0


@dataclass(slots=True)
class _Relay:
    report: GateReport
    heard_at: float


@dataclass(slots=True)
class Traffic:
    """One service's counts over all relays; never falling while the engine runs."""

    requests: int = 0
    errors: int = 0
    history: deque[tuple[float, int]] = field(default_factory=deque)

    def rate(self, now: float) -> float:
        """Requests a second over the last 10 s."""
        while len(self.history) > 1 and self.history[1][0] <= now - RATE_WINDOW_S:
            self.history.popleft()
        if not self.history:
            return 0.0
        since, count = self.history[0]
        return max(0.0, (self.requests - count) / max(now - since, 1.0))


class Relays:
    """Newest report of each live relay, and the sums."""

    def __init__(self) -> None:
        self._relays: dict[tuple[str, str], _Relay] = {}
        self.traffic: dict[str, Traffic] = {}
        self.proxy_requests: dict[str, int] = {}
        self._keys: dict[str, tuple[float, list[KeyState]]] = {}

    def note(self, report: GateReport, services: Mapping[str, object], now: float) -> None:
        """Take in one report; counts of services that are not ours are ignored."""
        key = (report.proxy, report.relay)
        before = self._relays.get(key)
        for name, count in report.requests.items():
            if name not in services:
                continue
            traffic = self.traffic.setdefault(name, Traffic())
            known = before.report if before else None
            new = max(0, count - (known.requests.get(name, 0) if known else 0))
            traffic.requests += new
            traffic.errors += max(0, report.errors.get(name, 0) - (known.errors.get(name, 0) if known else 0))
            traffic.history.append((now, traffic.requests))
            self.proxy_requests[report.proxy] = self.proxy_requests.get(report.proxy, 0) + new
        if report.keys:
            self._keys[report.proxy] = now, report.keys
        self._relays[key] = _Relay(replace(report, keys=[], traffic=[]), now)
        self._forget(now)

    def of(self, proxy: str, now: float) -> list[GateReport]:
        """The live relays of one proxy."""
        return [report for report in self._live(now) if report.proxy == proxy]

    def last_heard(self, proxy: str) -> float | None:
        """When any of its relays last reported, of those that are not forgotten."""
        return max((r.heard_at for r in self._relays.values() if r.report.proxy == proxy), default=None)

    def said_keys(self, proxy: str, now: float) -> list[KeyState]:
        """The newest word of one proxy on its keys: each of its workers tells of all; empty where it is away."""
        heard_at, keys = self._keys.get(proxy, (0.0, []))
        return keys if now - heard_at <= GONE_AFTER_S else []

    def in_flight(self, now: float) -> dict[str, int]:
        """By instance, over all live relays."""
        total: dict[str, int] = {}
        for report in self._live(now):
            for instance, count in report.in_flight.items():
                total[instance] = total.get(instance, 0) + count
        return total

    def _live(self, now: float) -> list[GateReport]:
        return [r.report for r in self._relays.values() if now - r.heard_at <= GONE_AFTER_S]

    def _forget(self, now: float) -> None:
        for key, relay in list(self._relays.items()):
            if now - relay.heard_at > FORGOTTEN_AFTER_S:
                del self._relays[key]
