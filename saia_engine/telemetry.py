"""What proxies tell of their requests: summed over all workers, as rates now, and as the last hour.

Each worker counts from its own start, and tells its sums again and again over whichever connection; so what is lost or
comes twice does no harm. A worker that is heard of for the first time begins at what it tells: that is no rush of
requests. All of it is the proxies' word, and is only shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec.structs import replace

from saia_engine.past import KEPT, RATE_S, SNAPSHOT_S, STEP_S, TIMES_S, Growth, History, brief
from saia_engine.relays import FORGOTTEN_AFTER_S, GONE_AFTER_S
from saia_engine.reports import GateReport
from saia_engine.view import TrafficView
from saia_engine.wire.histogram import CLASSES, quantile
from saia_engine.wire.messages import FAULTS, LARGEST_COUNT, REASONS, TrafficCount

EVERY_S = 1.0
"""Rows are made anew so often."""
MOST_COUNTERS = 64
"""Of one proxy; of more the one that was silent longest is forgotten."""
ELSEWHERE = "-"
"""The row of requests that reached no service."""
FAILED = "failed:"
"""Begins the names of a history's figures by reason."""

_REASONS = slice(2, 2 + len(REASONS))
_FIRST_TOKEN = slice(_REASONS.stop, _REASONS.stop + CLASSES)
_ANSWER = slice(_FIRST_TOKEN.stop, _FIRST_TOKEN.stop + CLASSES)
_WAITED = slice(_ANSWER.stop, _ANSWER.stop + CLASSES)
_SIZE = _WAITED.stop
_FAULTS = [2 + number for number, reason in enumerate(REASONS) if reason in FAULTS]


class Served(Protocol):
    """What is needed of a configured service."""

    @property
    def models(self) -> Collection[str]: ...


@dataclass(slots=True)
class _Row:
    growth: Growth
    history: History = field(default_factory=History)
    changed_at: float = 0.0


@dataclass(slots=True)
class _Counter:
    """A worker's last word."""

    heard_at: float
    counts: dict[tuple[str, str], TrafficCount]
    queued: Mapping[str, int]


@dataclass(slots=True)
class _KeyCounts:
    started_at: float
    counts: dict[str, list[int]] = field(default_factory=dict)


class Telemetry:
    def __init__(self) -> None:
        self._counters: dict[str, dict[str, _Counter]] = {}
        self._traffic: dict[str, _Row] = {}
        self._keys: dict[str, _Row] = {}
        self._key_counts: dict[str, _KeyCounts] = {}
        self._told_at = self._snapshot_at = self._step_at = float("-inf")

    # -- in

    def note(self, report: GateReport, services: Mapping[str, Served], now: float) -> None:
        """Take in one report. Services and models that are not ours are left out."""
        if report.counter:
            self._note_traffic(report, services, now)
        if report.keys:
            self._note_keys(report, now)

    def _note_traffic(self, report: GateReport, services: Mapping[str, Served], now: float) -> None:
        counters = self._counters.setdefault(report.proxy, {})
        before = counters.get(report.counter)
        counts: dict[tuple[str, str], TrafficCount] = {}
        for row in report.traffic:
            ours = services.get(row.service)
            if (ours is None and row.service) or (
                row.model and (ours is None or row.model not in ours.models)
            ):
                continue
            name = row.service, row.model
            counts[name] = row
            known = before.counts.get(name) if before else None
            if before is None or row == known:
                continue
            more = [max(0, new - old) for new, old in zip(_vector(row), _vector(known), strict=True)]
            for key in _keys_of(row):
                self._row(self._traffic, key, _SIZE, now).growth.add(more)
        counters[report.counter] = _Counter(now, counts, dict(report.queued))
        while len(counters) > MOST_COUNTERS:
            del counters[min(counters, key=lambda name: counters[name].heard_at)]

    def _note_keys(self, report: GateReport, now: float) -> None:
        known = self._key_counts.get(report.proxy)
        if known is None or report.started_at > known.started_at:
            known = self._key_counts[report.proxy] = _KeyCounts(report.started_at)
        elif report.started_at < known.started_at:
            return  # of a worker of the run before
        before, known.counts = known.counts, {}
        for key in report.keys:
            told = [key.requests, key.refused]
            old = before.get(key.name, told)
            more = [max(0, new - last) for new, last in zip(told, old, strict=True)]
            # Workers tell one after the other of sums that grow meanwhile: what is less came late.
            sums = list(map(max, told, old)) if report.started_at else told
            known.counts[key.name] = sums
            self._row(self._keys, f"{report.proxy}/{key.name}", 2, now).growth.add(more)

    def _row(self, rows: dict[str, _Row], key: str, size: int, now: float) -> _Row:
        row = rows.get(key)
        if row is None:
            row = rows[key] = _Row(Growth(size, now))
        row.changed_at = now
        return row

    # -- out

    def due(self, services: Mapping[str, Served], now: float) -> bool:
        """Whether it is time for new rows. Keeps the past on the way."""
        if now - self._told_at < EVERY_S:
            return False
        self._told_at = now
        if now - self._snapshot_at >= SNAPSHOT_S:
            self._forget(services, now)
            for row in (*self._traffic.values(), *self._keys.values()):
                row.growth.snapshot(now)
            self._snapshot_at = now
        if now - self._step_at >= STEP_S * KEPT:  # at the start, and after a very long sleep
            self._step_at = now
        elif now - self._step_at >= STEP_S:
            self._step(now)
            self._step_at += STEP_S * int((now - self._step_at) / STEP_S)
        return True

    def rows(self, services: Mapping[str, Served], now: float) -> dict[str, TrafficView]:
        """Of each service one, and one of each model where it has several."""
        live = list(self._live(now))
        views = {}
        for name, service in services.items():
            models = list(service.models)
            whole = views[name] = self._view(name, name, "", models, live, now)
            if len(models) > 1:
                for model in models:
                    key = f"{name}/{model}"
                    view = self._view(key, name, model, [model], live, now)
                    views[key] = replace(view, troubled=whole.troubled)
        if ELSEWHERE in self._traffic:
            views[ELSEWHERE] = self._view(ELSEWHERE, "", "", [], live, now)
        return views

    def key_rates(self, key: str, now: float) -> tuple[float | None, float | None]:
        """Requests and refusals a second of `proxy/key`."""
        row = self._keys.get(key)
        if row is None:
            return None, None
        seconds, (requests, refused) = row.growth.since(RATE_S, now)
        return brief(requests / seconds), brief(refused / seconds)

    def history(self, table: str, key: str) -> dict[str, Any] | None:
        """The last hour: of all rows their requests a second, or of one all figures; None without such a row."""
        rows = self._traffic if table == "traffic" else self._keys
        frame = {"step_s": STEP_S, "end": self._step_at}
        if not key:
            return frame | {"rows": {name: row.history.of("requests_per_s") for name, row in rows.items()}}
        if key not in rows:
            return None
        past = rows[key].history
        return frame | {"row": key, "figures": {name: past.of(name) for name in past.names}}

    def _live(self, now: float) -> Iterator[_Counter]:
        for counters in self._counters.values():
            for counter in counters.values():
                if now - counter.heard_at <= GONE_AFTER_S:
                    yield counter

    def _view(
        self, key: str, service: str, model: str, models: list[str], live: Sequence[_Counter], now: float
    ) -> TrafficView:
        told = bool(live)
        row = self._traffic.get(key)
        growth = row.growth if row else Growth(_SIZE, now)
        figures = _figures(growth, RATE_S, TIMES_S, now)
        _, recent = growth.since(TIMES_S, now)
        queued = _queued(service, model, live)
        rates = ("requests_per_s", "errors_per_s", "tokens_per_s")
        return TrafficView(
            service=service,
            model=model,
            models=models,
            in_flight=_in_flight(service, model, live),
            queued=queued,
            troubled=bool(queued or any(recent[number] for number in _FAULTS)),
            failed=_by_reason(recent),
            requests=_bounded(growth.counts[0]),
            **{name: _briefly(value) for name, value in figures.items() if told or name not in rates},
        )

    def _step(self, now: float) -> None:
        """One step more of the past, with empty ones for those that were slept through."""
        missed = min(KEPT, int((now - self._step_at) / STEP_S) - 1)
        live = list(self._live(now))
        for row in (*self._traffic.values(), *self._keys.values()):
            for _ in range(missed):
                row.history.add({})
        for key, row in self._traffic.items():
            service, _, model = ("", "", "") if key == ELSEWHERE else key.partition("/")
            figures = _figures(row.growth, STEP_S, STEP_S, now)
            figures |= {
                "in_flight": _in_flight(service, model, live),
                "queued": _queued(service, model, live),
            }
            seconds, recent = row.growth.since(STEP_S, now)
            figures |= {name: 0.0 for name in row.history.names if name.startswith(FAILED)}
            row.history.add(figures | {FAILED + why: n / seconds for why, n in _by_reason(recent).items()})
        for row in self._keys.values():
            seconds, (requests, refused) = row.growth.since(STEP_S, now)
            row.history.add({"requests_per_s": requests / seconds, "refused_per_s": refused / seconds})

    def _forget(self, services: Mapping[str, Served], now: float) -> None:
        """Workers long silent, and rows of what is no more once their past is over."""
        for counters in self._counters.values():
            for name in [n for n, c in counters.items() if now - c.heard_at > FORGOTTEN_AFTER_S]:
                del counters[name]
        for rows in (self._traffic, self._keys):
            for key in [k for k, row in rows.items() if now - row.changed_at > KEPT * STEP_S]:
                if rows is self._keys or key.partition("/")[0] not in services:
                    del rows[key]
        told = {f"{proxy}/{key}" for proxy, known in self._key_counts.items() for key in known.counts}
        for key in self._keys.keys() - told:
            del self._keys[key]


def _keys_of(row: TrafficCount) -> tuple[str, ...]:
    """The rows that it counts in."""
    if not row.service:
        return (ELSEWHERE,)
    return (row.service, f"{row.service}/{row.model}") if row.model else (row.service,)


def _vector(row: TrafficCount | None) -> list[int]:
    if row is None:
        return [0] * _SIZE
    return [
        row.requests,
        row.tokens,
        *(row.failed.get(reason, 0) for reason in REASONS),
        *_padded(row.first_token),
        *_padded(row.answer),
        *_padded(row.waited),
    ]


def _padded(counts: Sequence[int]) -> list[int]:
    return [*counts, *[0] * (CLASSES - len(counts))]


def _in_flight(service: str, model: str, live: Iterable[_Counter]) -> int:
    return _bounded(
        sum(
            count.in_flight
            for counter in live
            for (its_service, its_model), count in counter.counts.items()
            if its_service == service and model in ("", its_model)
        )
    )


def _queued(service: str, model: str, live: Iterable[_Counter]) -> int:
    """Only services have queues."""
    return 0 if model or not service else _bounded(sum(c.queued.get(service, 0) for c in live))


def _bounded(count: int) -> int:
    """A sum of what is bounded, as it can be sent."""
    return min(count, LARGEST_COUNT)


def _by_reason(counts: Sequence[int]) -> dict[str, int]:
    return {reason: _bounded(n) for reason, n in zip(REASONS, counts[_REASONS], strict=True) if n}


def _figures(growth: Growth, rate_s: float, times_s: float, now: float) -> dict[str, float | None]:
    seconds, added = growth.since(rate_s, now)
    _, timed = growth.since(times_s, now)
    first_token, answer, waited = timed[_FIRST_TOKEN], timed[_ANSWER], timed[_WAITED]
    return {
        "requests_per_s": added[0] / seconds,
        "errors_per_s": sum(added[number] for number in _FAULTS) / seconds,
        "tokens_per_s": added[1] / seconds,
        "first_token_p50_s": quantile(first_token, 0.5),
        "first_token_p95_s": quantile(first_token, 0.95),
        "answer_p50_s": quantile(answer, 0.5),
        "answer_p95_s": quantile(answer, 0.95),
        "waited_p95_s": quantile(waited, 0.95),
    }


def _briefly(value: float | None) -> float | None:
    return None if value is None else brief(value)
