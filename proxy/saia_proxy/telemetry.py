"""What one worker counts of its requests for the operators' screens, by service and model, since its start.

No client's text becomes a name: services and models are those of the routes.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from typing import Protocol

from saia_engine.wire.histogram import BOUNDS_S, CLASSES, trimmed
from saia_engine.wire.messages import LONGEST_MODEL, MOST_TRAFFIC, TrafficCount

_WAITED, _ANSWERED, _ALL = 1, 2, 3
"""Which of an open request's times are counted."""
_BY_OUTCOME = {
    "rate_limit_exceeded": "limit",
    "too_many_concurrent_requests": "limit",
    "queue_full": "busy",
    "too_many_requests": "busy",
    "overloaded": "busy",
    "limit": "busy",
    "timeout": "timeout",
    "request_timeout": "client",
    "client_gone": "gone",
    "cancelled": "gone",
    "internal_error": "proxy",
    "protocol": "proxy",
}
"""Of outcomes whose status alone does not tell."""


class Request(Protocol):
    """An exchange, while it goes on and when it has ended."""

    service: str
    status: int
    outcome: str
    events: int
    first_event_at: float | None
    began_at: float
    taken_at: float | None
    answered_at: float | None
    model: str


class Offer(Protocol):
    @property
    def service(self) -> str: ...


class Known(Protocol):
    """The routes: what there is."""

    @property
    def models(self) -> Mapping[str, Offer]: ...
    @property
    def services(self) -> Mapping[str, Offer]: ...


class _Row:
    __slots__ = ("answer", "failed", "first_token", "requests", "tokens", "waited")

    def __init__(self) -> None:
        self.requests = self.tokens = 0
        self.failed: Counter[str] = Counter()
        self.first_token, self.answer, self.waited = [0] * CLASSES, [0] * CLASSES, [0] * CLASSES


class Telemetry:
    """`begin` and `end` of each request, `told` each second; only touched from the event loop."""

    def __init__(self, known: Known) -> None:
        self.counter = secrets.token_hex(8)
        self._known = known
        self._rows: dict[tuple[str, str], _Row] = {}
        self._open: dict[Request, int] = {}

    def begin(self, request: Request) -> None:
        self._open[request] = 0

    def drop(self, request: Request) -> None:
        """It is over, and no client's request."""
        self._open.pop(request, None)

    def end(self, request: Request) -> None:
        counted = self._open.pop(request, 0)
        taken_at = request.taken_at
        # The usual way in as few steps as may be: all else costs what it costs.
        row = self._rows.get((request.service, request.model)) if taken_at is not None else None
        if row is None:
            answered_here = taken_at is None and request.outcome == "ok"
            row = self._row(("", "") if answered_here else self._name(request))
        row.requests += 1
        row.tokens += request.events
        if taken_at is not None and counted != _ALL:
            self._time(row, request, taken_at, counted, over=True)
        if request.outcome != "ok" or request.status >= 400:
            row.failed[reason(request.status, request.outcome)] += 1

    def told(self) -> list[TrafficCount]:
        """All that was counted, and what goes on; of too many rows the busiest."""
        in_flight: Counter[tuple[str, str]] = Counter()
        tokens: Counter[tuple[str, str]] = Counter()
        for request, counted in self._open.items():
            name = self._name(request)
            row = self._row(name)
            if request.taken_at is not None and counted != _ALL:
                self._open[request] = self._time(row, request, request.taken_at, counted, over=False)
            in_flight[name] += 1
            tokens[name] += request.events
        rows = self._rows.items()
        busiest = nlargest(MOST_TRAFFIC, rows, key=lambda item: item[1].requests + in_flight[item[0]])
        return [
            TrafficCount(
                service,
                model,
                row.requests,
                dict(row.failed),
                row.tokens + tokens[service, model],
                in_flight[service, model],
                trimmed(row.first_token),
                trimmed(row.answer),
                trimmed(row.waited),
            )
            for (service, model), row in busiest
        ]

    def _time(self, row: _Row, request: Request, taken_at: float, counted: int, *, over: bool) -> int:
        """Counts what is known of its times by now; returns what is counted."""
        if not counted & _WAITED:
            row.waited[bisect_left(BOUNDS_S, taken_at - request.began_at)] += 1
            counted |= _WAITED
        if counted & _ANSWERED or request.answered_at is None or request.status >= 400:
            return counted
        if request.first_event_at is not None:
            row.first_token[bisect_left(BOUNDS_S, request.first_event_at - taken_at)] += 1
        elif over:
            row.answer[bisect_left(BOUNDS_S, request.answered_at - taken_at)] += 1
        else:
            return counted
        return counted | _ANSWERED

    def _name(self, request: Request) -> tuple[str, str]:
        known, service, model = self._known, request.service, request.model
        if model not in known.models or len(model) > LONGEST_MODEL:
            model = ""
        if service not in known.services:
            service = known.models[model].service if model else ""
        return service, model

    def _row(self, name: tuple[str, str]) -> _Row:
        row = self._rows.get(name)
        if row is None:
            if len(self._rows) >= MOST_TRAFFIC:
                self._forget()
            row = self._rows[name] = _Row()
        return row

    def _forget(self) -> None:
        """What there is no more."""
        known = self._known
        for service, model in tuple(self._rows):
            if (service and service not in known.services) or (model and model not in known.models):
                del self._rows[service, model]


def reason(status: int, outcome: str) -> str:
    """One of `wire.messages.REASONS` for a request that ended like this, not well."""
    if outcome in _BY_OUTCOME:
        return _BY_OUTCOME[outcome]
    if outcome == "ok":
        return "service" if status >= 500 else "busy" if status == 429 else "client"
    if status < 400 or status == 502:
        return "lost"
    return "away" if status >= 500 else "client"
