"""What proxies tell of their requests, as the engine adds it up, keeps it and shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saia_engine import reports
from saia_engine.past import KEPT, STEP_S
from saia_engine.relays import GONE_AFTER_S
from saia_engine.reports import GateReport
from saia_engine.telemetry import ELSEWHERE, MOST_COUNTERS, Telemetry
from saia_engine.wire.histogram import CLASSES
from saia_engine.wire.messages import MOST_KEYS, REASONS, KeyState, TrafficCount


@dataclass(frozen=True)
class Served:
    models: tuple[str, ...] = ()


SERVICES = {"chat": Served(("llama", "qwen")), "embed": Served(("e5",)), "idle": Served()}
A, B = "a" * 16, "b" * 16


def told(
    counter: str, *rows: TrafficCount, relay: str = A, proxy: str = "cloud", **fields: Any
) -> GateReport:
    return GateReport(proxy=proxy, relay=relay, pid=1, counter=counter, traffic=list(rows), **fields)


def row(requests: int, model: str = "llama", service: str = "chat", **fields: Any) -> TrafficCount:
    return TrafficCount(service, model, requests, **fields)


def seconds(telemetry: Telemetry, start: int, end: int, tell: Any = lambda now: []) -> None:
    """One second after the other, each with its reports."""
    for now in range(start, end):
        for report in tell(now):
            telemetry.note(report, SERVICES, float(now))
        telemetry.due(SERVICES, float(now))


def rates(telemetry: Telemetry) -> list[float | None]:
    """Of the last hour."""
    past = telemetry.history("traffic", "")
    assert past is not None
    return past["rows"]["chat"]


def test_workers_add_up_and_each_begins_at_what_it_tells_first() -> None:
    telemetry = Telemetry()
    seconds(
        telemetry, 0, 31, lambda now: [told(A, row(1000 + 4 * now)), told(B, row(2 * now, "qwen"), relay=B)]
    )
    rows = telemetry.rows(SERVICES, 30.0)
    assert set(rows) == {"chat", "chat/llama", "chat/qwen", "embed", "idle"}
    assert rows["chat/llama"].requests_per_s == pytest.approx(4.0)
    assert rows["chat/qwen"].requests_per_s == pytest.approx(2.0)
    assert rows["chat"].requests_per_s == pytest.approx(6.0)
    assert rows["chat"].requests == 180, "not the 1000 of before"
    assert (rows["embed"].requests_per_s, rows["embed"].models) == (0.0, ["e5"])


def test_a_worker_that_tells_over_another_connection_is_not_counted_twice() -> None:
    telemetry = Telemetry()
    for now, relay in enumerate((A, B, A, B)):
        telemetry.note(told(A, row(10 * now), relay=relay), SERVICES, float(now))
        telemetry.note(told(A, row(10 * now), relay=relay), SERVICES, now + 0.1)
    assert telemetry.rows(SERVICES, 4.0)["chat"].requests == 30


def test_what_is_told_late_or_out_of_order_is_never_negative() -> None:
    telemetry = Telemetry()
    for number, requests in enumerate((5, 9, 7, 12)):
        telemetry.note(told(A, row(requests)), SERVICES, float(number))
    assert telemetry.rows(SERVICES, 4.0)["chat"].requests >= 7


def test_names_that_are_not_ours_are_left_out() -> None:
    telemetry = Telemetry()
    for requests in (0, 5):
        rows = [
            row(requests, "nosuch"),
            row(requests, "", "\x1b[2J"),
            row(requests, "llama", "embed"),
            row(requests, "", ""),
        ]
        telemetry.note(told(A, *rows), SERVICES, float(requests))
    shown = telemetry.rows(SERVICES, 6.0)
    assert {name: view.requests for name, view in shown.items() if view.requests} == {ELSEWHERE: 5}


def test_times_are_those_of_the_last_minute_and_failures_have_reasons() -> None:
    telemetry = Telemetry()

    def tell(now: int) -> list[GateReport]:
        slow = [0] * 20 + [now] if now < 100 else [now - 99] + [0] * 19 + [99]
        return [told(A, row(now, first_token=slow, failed={"timeout": now // 10, "gone": now, "\x1b": now}))]

    seconds(telemetry, 0, 91, tell)
    view = telemetry.rows(SERVICES, 90.0)["chat"]
    assert view.first_token_p50_s is not None and 7.0 < view.first_token_p50_s <= 10.0
    assert (view.answer_p50_s, view.waited_p95_s) == (None, None)
    assert view.failed == {"timeout": 6, "gone": 60}
    assert view.errors_per_s == pytest.approx(0.1), "who goes away is no fault"
    shown = telemetry.rows(SERVICES, 90.0)
    assert {name for name, row in shown.items() if row.troubled} == {"chat", "chat/llama", "chat/qwen"}
    seconds(telemetry, 91, 180, tell)
    after = telemetry.rows(SERVICES, 179.0)["chat"]
    assert after.first_token_p50_s is not None and after.first_token_p50_s < 0.01, "the slow ones are over"


def test_what_goes_on_and_waits_is_that_of_live_workers() -> None:
    telemetry = Telemetry()
    telemetry.note(told(A, row(0, in_flight=3), queued={"chat": 4, "nosuch": 9}), SERVICES, 0.0)
    telemetry.note(told(B, row(0, "qwen", in_flight=2)), SERVICES, 0.0)
    rows = telemetry.rows(SERVICES, GONE_AFTER_S)
    assert (rows["chat"].in_flight, rows["chat/qwen"].in_flight, rows["chat"].queued) == (5, 2, 4)
    away = telemetry.rows(SERVICES, GONE_AFTER_S + 1)["chat"]
    assert (away.in_flight, away.queued, away.requests_per_s) == (0, 0, None), "unknown is not zero"


def test_keys_have_rates_and_a_proxy_that_began_anew_starts_at_zero() -> None:
    telemetry = Telemetry()

    def key(requests: int, refused: int, started_at: float, relay: str = A) -> GateReport:
        state = KeyState("alice", requests=requests, refused=refused)
        return GateReport(proxy="cloud", relay=relay, pid=1, keys=[state], started_at=started_at)

    seconds(telemetry, 0, 31, lambda now: [key(500 + 3 * now, now, 7.0), key(500 + 3 * now - 1, now, 7.0, B)])
    assert telemetry.key_rates("cloud/alice", 30.0) == (3.0, 1.0)
    seconds(telemetry, 31, 61, lambda now: [key(now - 31, 0, 9.0), key(590, 30, 7.0, B)])
    assert telemetry.key_rates("cloud/alice", 60.0) == (1.0, 0.0)
    assert telemetry.key_rates("cloud/nosuch", 60.0) == (None, None)


def test_the_last_hour_is_kept_in_steps_and_no_more() -> None:
    telemetry = Telemetry()
    hour = int(KEPT * STEP_S)
    seconds(telemetry, 0, hour + 600, lambda now: [told(A, row(2 * now, failed={"lost": now}))])
    past = telemetry.history("traffic", "")
    assert past is not None and (past["step_s"], past["end"]) == (STEP_S, hour + 590)
    assert len(past["rows"]["chat"]) == KEPT and set(past["rows"]["chat"]) == {2.0}
    one = telemetry.history("traffic", "chat/llama")
    assert one is not None and set(one["figures"]["failed:lost"]) == {1.0}
    assert set(one["figures"]["first_token_p50_s"]) == {None}
    assert telemetry.history("traffic", "nosuch") is None


def test_a_sleep_leaves_a_gap_as_long_as_it_was() -> None:
    telemetry = Telemetry()
    seconds(telemetry, 0, 61, lambda now: [told(A, row(now))])
    before = len(rates(telemetry))
    seconds(telemetry, 160, 171, lambda now: [told(A, row(now))])
    past = rates(telemetry)
    assert len(past) == before + 11 and past[before : before + 9] == [None] * 9


def test_reasons_come_to_the_past_when_they_first_occur() -> None:
    telemetry = Telemetry()
    seconds(telemetry, 0, 61, lambda now: [told(A, row(now, failed={"timeout": max(0, now - 30)}))])
    past = telemetry.history("traffic", "chat")
    assert past is not None
    figures = past["figures"]
    assert len(figures["failed:timeout"]) == len(figures["requests_per_s"])
    assert figures["failed:timeout"][0] is None and figures["failed:timeout"][-1] == 1.0


def test_whoever_invents_workers_and_keys_fills_no_memory() -> None:
    telemetry = Telemetry()
    for number in range(2000):
        state = KeyState(f"k{number}", requests=number)
        telemetry.note(
            told(f"{number:016x}", row(number), keys=[state], started_at=1.0), SERVICES, float(number)
        )
        telemetry.due(SERVICES, float(number))
    assert len(telemetry._counters["cloud"]) <= MOST_COUNTERS
    assert len(telemetry._keys) <= 6


def test_sums_of_the_largest_counts_can_be_sent() -> None:
    telemetry, most = Telemetry(), 2**53 - 1
    for number in range(MOST_COUNTERS):
        for count in (0, most):
            counts = row(count, in_flight=most, tokens=count, failed={"lost": count}, first_token=[count] * 3)
            telemetry.note(told(f"{number:016x}", counts, queued={"chat": most}), SERVICES, 1.0)
    view = telemetry.rows(SERVICES, 2.0)["chat"]
    assert (view.in_flight, view.queued, view.requests, view.failed["lost"]) == (most, most, most, most)
    assert msgspec.json.encode(view)


names = st.sampled_from(["", "chat", "embed", "llama", "qwen", "e5", "\x1b[2J", "a/b", "é\u202e"])
counts = st.sampled_from([0, 1, 7, 2**53 - 1])
hostile_rows = st.fixed_dictionaries(
    {},
    optional={
        "service": names,
        "model": names,
        "requests": counts,
        "tokens": counts,
        "in_flight": counts,
        "failed": st.dictionaries(st.sampled_from((*REASONS, "\x1b[2J", "")), counts, max_size=3),
        "first_token": st.lists(counts, max_size=4),
        "answer": st.lists(counts, min_size=CLASSES, max_size=CLASSES),
        "waited": st.lists(counts, max_size=2),
        "beyond": st.none(),
    },
)
hostile = st.fixed_dictionaries(
    {"proxy": st.just("cloud"), "relay": st.just(A), "pid": st.just(1)},
    optional={
        "counter": st.sampled_from([A, B, ""]),
        "started_at": st.floats(0, 1e11),
        "traffic": st.lists(hostile_rows, max_size=3),
        "queued": st.dictionaries(st.sampled_from(["chat", "nosuch"]), counts),
        "keys": st.lists(
            st.builds(dict, name=st.sampled_from(["alice", "bob"]), requests=counts, refused=counts),
            max_size=4,
        ),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(hostile, st.floats(0, 30)), max_size=6))
def test_nothing_that_passes_the_door_breaks_what_is_shown(said: list[tuple[dict[str, Any], float]]) -> None:
    telemetry, now = Telemetry(), 0.0
    for body, later in said:
        now += later
        telemetry.note(reports.decode(msgspec.json.encode(body)), SERVICES, now)
        telemetry.due(SERVICES, now)
        rows = telemetry.rows(SERVICES, now)
        assert set(rows) <= {*SERVICES, "chat/llama", "chat/qwen", ELSEWHERE}
        for view in rows.values():
            rates = (view.requests_per_s, view.errors_per_s, view.tokens_per_s, view.first_token_p95_s)
            assert all(rate is None or rate >= 0 for rate in rates)
            assert set(view.failed) <= set(REASONS)
            msgspec.json.encode(view)
        for key in ("cloud/alice", "cloud/bob"):
            assert all(rate is None or rate >= 0 for rate in telemetry.key_rates(key, now))
    msgspec.json.encode([telemetry.history("traffic", key) for key in ("", "chat", "chat/llama")])
    msgspec.json.encode(telemetry.history("keys", ""))


@pytest.mark.parametrize(
    "body",
    [
        {"counter": "x"},
        {"counter": A * 2},
        {"started_at": -1},
        {"started_at": 1e300},
        {"traffic": [{}] * 201},
        {"traffic": [{"requests": -1}]},
        {"traffic": [{"requests": 2**60}]},
        {"traffic": [{"model": "x" * 201}]},
        {"traffic": [{"first_token": [0] * (CLASSES + 1)}]},
        {"traffic": [{"failed": {f"r{n}": 1 for n in range(17)}}]},
        {"round_trip_s": -1},
        {"keys": [{"name": "a"}] * (MOST_KEYS + 1)},
    ],
)
def test_what_is_out_of_bounds_is_refused_at_the_door(body: dict[str, Any]) -> None:
    whole = {"proxy": "cloud", "relay": A, "pid": 1} | body
    with pytest.raises(ValueError):
        reports.decode(msgspec.json.encode(whole))


def test_an_older_gate_and_an_older_engine_understand_each_other() -> None:
    old = msgspec.json.encode(
        {"proxy": "cloud", "relay": A, "pid": 1, "requests": {"chat": 3}, "future": [1]}
    )
    report = reports.decode(old)
    assert (report.traffic, report.counter, report.round_trip_s) == ([], "", None)
    telemetry = Telemetry()
    telemetry.note(report, SERVICES, 0.0)
    assert telemetry.rows(SERVICES, 1.0)["chat"].requests_per_s is None
