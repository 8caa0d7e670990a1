"""What relays report, added up."""

from __future__ import annotations

import pytest

from saia_engine.relays import FORGOTTEN_AFTER_S, GONE_AFTER_S, Relays
from saia_engine.reports import GateReport
from saia_engine.wire.messages import KeyState

SERVICES = {"chat": object(), "embed": object()}
A, B = "a" * 16, "b" * 16


def report(relay: str = A, proxy: str = "cloud", **fields) -> GateReport:
    return GateReport(proxy=proxy, relay=relay, pid=1, **fields)


def test_counts_of_all_relays_add_up_and_never_fall() -> None:
    relays = Relays()
    relays.note(report(A, requests={"chat": 5}, errors={"chat": 1}), SERVICES, 0.0)
    relays.note(report(B, requests={"chat": 2, "embed": 1}), SERVICES, 0.1)
    relays.note(report(A, requests={"chat": 9}, errors={"chat": 1}), SERVICES, 1.0)
    assert (relays.traffic["chat"].requests, relays.traffic["chat"].errors) == (11, 1)
    assert relays.proxy_requests == {"cloud": 12}
    relays.note(report(A, requests={"chat": 3}), SERVICES, 2.0)
    assert relays.traffic["chat"].requests == 11


def test_services_that_are_not_ours_are_not_counted() -> None:
    relays = Relays()
    relays.note(report(requests={f"x{n}": 5 for n in range(50)}), SERVICES, 0.0)
    assert relays.traffic == {}


def test_a_relay_that_falls_silent_is_gone_and_counts_on_when_it_comes_back() -> None:
    relays = Relays()
    relays.note(report(requests={"chat": 100}, in_flight={"i": 3}), SERVICES, 0.0)
    assert (len(relays.of("cloud", GONE_AFTER_S)), relays.in_flight(GONE_AFTER_S)) == (1, {"i": 3})
    silent = GONE_AFTER_S + 0.1
    assert (relays.of("cloud", silent), relays.in_flight(silent)) == ([], {})
    relays.note(report(requests={"chat": 101}), SERVICES, 60.0)
    assert relays.traffic["chat"].requests == 101


def test_relays_long_gone_leave_nothing_in_memory() -> None:
    relays = Relays()
    for number in range(100):
        relays.note(report(f"{number:016x}"), SERVICES, 0.0)
    relays.note(report(B), SERVICES, FORGOTTEN_AFTER_S + 1)
    assert len(relays._relays) == 1


def test_relays_belong_to_their_proxy() -> None:
    relays = Relays()
    relays.note(report(A, "cloud", in_flight={"i": 1}), SERVICES, 0.0)
    relays.note(report(A, "other", in_flight={"i": 2}), SERVICES, 0.0)
    assert [r.proxy for r in relays.of("other", 1.0)] == ["other"]
    assert relays.in_flight(1.0) == {"i": 3}


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    relays = Relays()
    for second in range(31):
        relays.note(report(requests={"chat": 4 * second}), SERVICES, float(second))
    assert relays.traffic["chat"].rate(30.0) == pytest.approx(4.0)
    assert len(relays.traffic["chat"].history) <= 12
    relays.note(report(requests={"chat": 120}), SERVICES, 45.0)
    assert relays.traffic["chat"].rate(50.0) < 1.0


def test_the_newest_word_on_keys_counts_and_is_not_added_up_over_workers() -> None:
    relays = Relays()
    relays.note(report(A, keys=[KeyState("alice", requests=5)]), SERVICES, 0.0)
    relays.note(report(B, keys=[KeyState("alice", requests=6)]), SERVICES, 0.1)
    relays.note(report(A, "other", keys=[KeyState("bob")]), SERVICES, 0.2)
    relays.note(report(A), SERVICES, 0.3)
    assert relays.said_keys("cloud", 1.0) == [KeyState("alice", requests=6)]
    assert relays.said_keys("cloud", GONE_AFTER_S + 1) == relays.said_keys("nosuch", 0.0) == []
    assert not any(r.report.keys for r in relays._relays.values()), "held once for each proxy"
