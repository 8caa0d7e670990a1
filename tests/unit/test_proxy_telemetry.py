"""What a worker counts of its requests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from saia_engine.wire import messages
from saia_engine.wire.histogram import BOUNDS_S
from saia_engine.wire.messages import REASONS, TrafficCount
from saia_proxy.telemetry import Telemetry, reason


@dataclass(eq=False)
class Asked:
    service: str = "chat"
    model: str = "llama"
    status: int = 200
    outcome: str = "ok"
    events: int = 0
    first_event_at: float | None = None
    began_at: float = 100.0
    taken_at: float | None = 100.25
    answered_at: float | None = 100.375


@dataclass(frozen=True)
class Offered:
    service: str


@dataclass
class Routes:
    models: Mapping[str, Offered]
    services: Mapping[str, Offered]


def known() -> Routes:
    return Routes({"llama": Offered("chat")}, {name: Offered(name) for name in ("chat", "app")})


def rows(telemetry: Telemetry) -> dict[tuple[str, str], TrafficCount]:
    return {(row.service, row.model): row for row in telemetry.told()}


def at(seconds: float) -> list[int]:
    return [0] * bisect_left(BOUNDS_S, seconds) + [1]


def test_a_request_counts_once_it_has_ended_with_its_times() -> None:
    telemetry = Telemetry(known())
    asked = Asked()
    telemetry.begin(asked)
    assert rows(telemetry)["chat", "llama"].in_flight == 1 and rows(telemetry)["chat", "llama"].requests == 0
    telemetry.end(asked)
    row = rows(telemetry)["chat", "llama"]
    assert (row.requests, row.in_flight, row.failed) == (1, 0, {})
    assert (row.waited, row.answer, row.first_token) == (at(0.25), at(0.125), [])


def test_a_stream_tells_its_first_token_and_its_tokens_while_it_goes_on_and_each_once() -> None:
    telemetry = Telemetry(known())
    stream = Asked(events=7, first_event_at=100.875)
    telemetry.begin(stream)
    row = rows(telemetry)["chat", "llama"]
    assert (row.tokens, row.first_token, row.waited, row.requests) == (7, at(0.625), at(0.25), 0)
    stream.events = 12
    assert rows(telemetry)["chat", "llama"].tokens == 12
    telemetry.end(stream)
    row = rows(telemetry)["chat", "llama"]
    assert (row.tokens, row.first_token, row.waited, row.requests) == (12, at(0.625), at(0.25), 1)
    assert row.answer == []


def test_what_waits_counts_for_the_service_of_its_model() -> None:
    telemetry = Telemetry(known())
    refused = Asked(service="", taken_at=None, answered_at=None, status=503, outcome="no_instance")
    telemetry.begin(refused)
    assert rows(telemetry)["chat", "llama"].in_flight == 1
    telemetry.end(refused)
    assert rows(telemetry)["chat", "llama"].failed == {"away": 1}


def test_no_text_of_a_client_becomes_a_name() -> None:
    telemetry = Telemetry(known())
    for service, model in (("\x1b[2J", ""), ("", "no-such"), ("nosuch", "x" * 10_000)):
        asked = Asked(service, model, 404, "model_not_found", taken_at=None, answered_at=None)
        telemetry.begin(asked)
        telemetry.told()
        telemetry.end(asked)
    asked = Asked("", "llama", taken_at=None, answered_at=100.1)  # GET /v1/models/llama: no service saw it
    telemetry.end(asked)
    assert set(rows(telemetry)) == {("", "")}
    assert rows(telemetry)["", ""].requests == 4


def test_scrapes_leave_nothing() -> None:
    telemetry = Telemetry(known())
    asked = Asked("", "")
    telemetry.begin(asked)
    telemetry.drop(asked)
    assert telemetry.told() == [] and not telemetry._open


def test_names_that_are_no_more_make_room() -> None:
    names = {f"s{number}": Offered(f"s{number}") for number in range(messages.MOST_TRAFFIC)}
    routes = Routes({}, names)
    telemetry = Telemetry(routes)
    for name in names:
        telemetry.end(Asked(name, ""))
    routes.services = {"new": Offered("new")}
    telemetry.end(Asked("new", ""))
    assert set(rows(telemetry)) == {("new", "")}


@pytest.mark.parametrize(
    ("status", "outcome", "why"),
    [
        (500, "ok", "service"),
        (429, "ok", "busy"),
        (400, "ok", "client"),
        (401, "invalid_api_key", "client"),
        (408, "request_timeout", "client"),
        (429, "rate_limit_exceeded", "limit"),
        (429, "queue_full", "busy"),
        (503, "overloaded", "busy"),
        (503, "no_instance", "away"),
        (503, "maintenance", "away"),
        (502, "instance_lost", "lost"),
        (200, "tunnel_lost", "lost"),
        (200, "timeout", "timeout"),
        (504, "timeout", "timeout"),
        (499, "client_gone", "gone"),
        (500, "internal_error", "proxy"),
    ],
)
def test_each_end_that_is_not_well_has_one_reason(status: int, outcome: str, why: str) -> None:
    assert reason(status, outcome) == why and why in REASONS
