from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saia_proxy.config import ApiKey
from saia_proxy.errors import ApiError
from saia_proxy.quota import Board, Quotas, Usage


class Client:
    """One key under a clock of our own."""

    def __init__(self, *, concurrency: int = 0, per_minute: int = 0, at: float = 6000.0) -> None:
        self.at = at
        self.key = ApiKey("alice", "sha256:0", ("*",), concurrency, per_minute)
        self.bob = ApiKey("bob", "sha256:1", ("*",), 0, 1)
        self.board = Board([self.key, self.bob], workers=2)
        self.quotas = Quotas(self.board, 0, lambda: self.at)
        self.other = Quotas(self.board, 1, lambda: self.at)

    @property
    def usage(self) -> Usage:
        return self.board.of("alice")[0]

    def ask(self, quotas: Quotas | None = None) -> int:
        """0 where it may, else the seconds of Retry-After."""
        try:
            with (quotas or self.quotas).admit(self.key):
                return 0
        except ApiError as error:
            assert error.status == 429
            assert error.retry_after_s is not None
            return error.retry_after_s


def test_without_limits_all_is_admitted_and_counted():
    client = Client()
    assert [client.ask() for _ in range(1000)] == [0] * 1000
    usage = client.usage
    assert (usage.requests, usage.refused, usage.in_flight) == (1000, 0, 0)


def test_so_many_at_once_and_no_more():
    client = Client(concurrency=2)
    with contextlib.ExitStack() as open_ones:
        for _ in range(2):
            open_ones.enter_context(client.quotas.admit(client.key))
        assert client.ask() == 1
    assert client.ask() == 0
    assert client.usage.refused == 1


def test_one_keys_limits_are_not_anothers():
    client = Client(per_minute=1)
    assert [client.ask(), client.ask() > 0] == [0, True]
    with client.quotas.admit(client.bob):
        pass


def test_a_keys_limits_hold_over_all_workers():
    client = Client(concurrency=3, per_minute=5)
    with client.quotas.admit(client.key), client.other.admit(client.key), client.other.admit(client.key):
        assert client.ask() == client.ask(client.other) == 1
    assert client.ask() == client.ask(client.other) == 0
    assert client.ask() > 1 and client.ask(client.other) > 1
    client.at += 60
    assert client.ask(client.other) > 0, "what the other one had in the minute before counts, too"


def test_the_requests_of_a_worker_that_ended_are_over():
    client = Client(concurrency=1)
    other = client.board.of("alice")[1]
    other.count(window=100)
    other.__enter__()
    assert client.ask() == 1
    client.board.forget_open(1)
    assert client.ask() == 0


def test_what_is_refused_does_not_count():
    client = Client(per_minute=3)
    for _ in range(50):
        client.ask()
    assert client.usage.requests == 3


@pytest.mark.parametrize("began_at", [6000.0, 6030.0, 6059.5])
def test_after_the_time_it_was_told_it_may_again(began_at: float):
    client = Client(per_minute=10, at=began_at)
    assert [client.ask() for _ in range(10)] == [0] * 10
    wait_s = client.ask()
    assert 0 < wait_s <= 66
    client.at += wait_s
    assert client.ask() == 0


@settings(deadline=None)  # other tests compute beside it
@given(st.integers(1, 50), st.lists(st.floats(0, 40), max_size=200), st.floats(0, 1e9))
def test_an_honest_client_is_never_refused_twice(per_minute: int, pauses: list[float], at: float):
    client = Client(per_minute=per_minute, at=at)
    for pause in pauses:
        client.at += pause
        wait_s = client.ask()
        if wait_s:
            client.at += wait_s
            assert client.ask() == 0, "it came back when it was told to"


@settings(deadline=None)  # other tests compute beside it
@given(st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_no_minute_has_more_than_twice_the_limit_and_no_window_more_than_it(
    per_minute: int, pauses: list[float]
):
    client = Client(per_minute=per_minute)
    admitted = []
    for pause in pauses:
        client.at += pause
        if not client.ask():
            admitted.append(client.at)
    for begin in admitted:
        assert sum(begin <= at < begin + 60 for at in admitted) <= 2 * per_minute
    for window in {at // 60 for at in admitted}:
        assert sum(at // 60 == window for at in admitted) <= per_minute
