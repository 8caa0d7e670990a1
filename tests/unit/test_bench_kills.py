"""The verdict on kills: who may fail, in which way, and until when clients notice it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from bench import exchange
from bench.kills import judge, victims
from bench.kills.judge import CUT, Found, Log, Logged, judged
from bench.kills.load import PLAIN, STREAM, TOO_LATE, Heard, Request
from bench.kills.victims import ENGINE, GATE, INSTANCE, SSHD, WORKER, Kill

AT = 100.0
GOOD = Request("good", PLAIN, AT + 0.1, AT + 0.2, 1)


def error(code: str, **kept: Any) -> str:
    return json.dumps({"error": {"message": "m", "type": "t", "param": None, "code": code} | kept})


def refused(code: str, status: int = 502, body: str = "") -> Request:
    fault = f"status {status}"
    return Request("bad", PLAIN, AT - 0.1, AT + 0.3, 2, 0, fault, status, body or error(code))


def cut(status: int = 200, **kept: Any) -> Request:
    return Request("bad", STREAM, AT - 1, AT + 0.5, 2, 0, CUT, status, **kept)


def one(kill: Kill, request: Request, relay: str = "7.1", lost: tuple[str, ...] = ()) -> Found:
    log = Log({"bad": Logged("a", relay, "?")}, [(AT + 0.1, name) for name in lost])
    _, found = judged([kill], [request, GOOD], log)
    return found


def killed(kind: str, **kept: Any) -> Kill:
    return Kill(kind, AT, AT, **kept)


@pytest.mark.parametrize("kind", [GATE, SSHD])
def test_who_was_on_the_lost_connection_may_fail(kind: str) -> None:
    for request in (refused("tunnel_lost"), cut()):
        found = one(killed(kind), request, lost=("7.1",))
        assert (found.broken, sum(found.failures.values())) == ([], 1)
        assert "neither its instance nor its way" in one(killed(kind), request, "7.2", ("7.1",)).broken[0]
    assert "2 connections were lost" in one(killed(kind), GOOD, lost=("7.1", "7.2")).broken[0]
    assert "0 connections were lost" in one(killed(kind), GOOD).broken[0]


def test_who_was_at_the_instance_may_fail() -> None:
    assert one(killed(INSTANCE, instance="a"), refused("instance_lost")).broken == []
    assert one(killed(INSTANCE, instance="b"), refused("instance_lost")).broken
    assert "connections were lost" in one(killed(INSTANCE, instance="a"), GOOD, lost=("7.1",)).broken[0]


def test_who_was_connected_to_the_worker_may_fail() -> None:
    assert one(killed(WORKER, ports=frozenset({2})), cut(0)).failures == {"reset": 1}
    assert one(killed(WORKER, ports=frozenset({3})), cut(0)).broken
    late = killed(WORKER, gone_at=AT + 0.01)
    for connected_at, broken in ((AT + 0.005, 0), (AT + 0.02, 1)):
        unlucky = msgspec.structs.replace(cut(0), connected_at=connected_at, fault=judge.REFUSED)
        assert len(one(late, unlucky).broken) == broken
    assert "it was answered" in one(killed(WORKER, ports=frozenset({2})), refused("tunnel_lost")).broken[0]


def test_nobody_may_fail_with_the_engine_or_before_any_kill() -> None:
    assert one(killed(ENGINE), cut()).broken
    early = replace_time(cut(), AT - 5)
    before, _ = judged([killed(ENGINE)], [early, GOOD], Log({"bad": Logged("a", "7.1", "?")}, []))
    assert "neither its instance nor its way" in before.broken[0]


def replace_time(request: Request, ended_at: float) -> Request:
    return msgspec.structs.replace(request, ended_at=ended_at)


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (cut(0), "nothing had been answered"),
        (cut(prefix=False), "not its own answer"),
        (refused("tunnel_lost", 500), "no 502 or 503"),
        (refused("instance_lost"), "code is instance_lost"),
        (refused("", body="<html>"), "code is missing"),
        (refused("", body=error("tunnel_lost", message="")), "code is missing"),
        (Request("bad", PLAIN, AT - 1, AT + 30, 2, 0, TOO_LATE), "left waiting"),
        (Request("bad", STREAM, AT - 1, AT + 1, 2, 0, "not as many bytes as the service's", 200), "no 502"),
    ],
)
def test_a_wrong_error_breaks_the_promise_even_of_those_that_may_fail(request_: Request, wrong: str) -> None:
    (text,) = one(killed(GATE), request_, lost=("7.1",)).broken
    assert wrong in text


def test_recovery_lasts_until_the_last_thing_that_a_client_notices() -> None:
    stalled = Request("slow", STREAM, AT - 1, AT + 9, 3, gap_s=1.5, gap_ended_at=AT + 4)
    short = Request("short", STREAM, AT - 1, AT + 9, 3, gap_s=0.5, gap_ended_at=AT + 8)
    kills = [killed(ENGINE), replace(killed(ENGINE), at=AT + 20, wall_at=AT + 20)]
    _, first, second = judged(kills, [GOOD, stalled, short, replace_time(GOOD, AT + 21)], Log({}, []))
    assert (first.recovery_s, first.went_on, second.recovery_s) == (4.0, 2, 0.0)
    assert "no request was answered after it" in second.broken[0], "the one that ended then began long before"


def test_an_answer_with_anothers_bytes_is_no_right_one() -> None:
    expected = exchange.token_event(" mine") * 2 + exchange.LAST_EVENTS
    heard = Heard(expected)
    heard.take(exchange.token_event(" mine"))
    assert heard.prefix and heard.fault()
    heard.take(exchange.token_event(" other"))
    assert not heard.prefix and heard.fault() == "other bytes than the service's"


def test_a_question_names_its_own_word() -> None:
    asked = exchange.marked("plain7", 40)
    assert (exchange.asked(asked), exchange.mark(asked)) == ((0, 0), (" plain7", 0.04))
    asked = exchange.marked("stream8", 0, 30, 20)
    assert (exchange.asked(asked), exchange.mark(asked)) == ((30, 20), (" stream8", 0.0))
    assert exchange.mark(exchange.question()) == (exchange.WORD, 0.0)


def test_the_summary_counts_each_kind_and_all() -> None:
    kinds: Iterator[Found] = (
        Found(kind, seconds) for kind, seconds in ((GATE, 1.0), (GATE, 3.0), (SSHD, 0.0))
    )
    summed = judge.summary([*kinds])
    assert (summed[GATE]["kills"], summed[GATE]["recovery_max_s"], summed["all"]["kills"]) == (2, 3.0, 3)
    assert len(judge.table(summed)) == 4


def test_sockets_are_told_apart_by_whose_they_are() -> None:

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            assert victims.clients_of(port, []) == {client.getsockname()[1]}
            assert victims.clients_of(port, [os.getpid()]) == frozenset()
