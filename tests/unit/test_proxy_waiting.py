"""Who waits and who goes next: any order of comings, goings and places."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from saia_proxy.congestion import FORGOTTEN_S, PAUSE_S, Way
from saia_proxy.waiting import MOST_SEEN, RETRY_MOST_S, Line, Pace, Ticket, retry_after_s, serve

MOST = 4


class Waiters(RuleBasedStateMachine):
    """Two lines before places of two kinds; those of the kind `any` may have either."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, Line[str]] = {"a": Line(MOST), "b": Line(MOST)}
        self.free = {"a": 0, "b": 0}
        self.rank = 0
        self.waiting: dict[str, dict[int, tuple[str, Ticket[str]]]] = {"a": {}, "b": {}}
        self.placed: dict[int, tuple[str, str, str]] = {}
        self.told: set[int] = set()

    def ticket(self, line: str, kind: str, rank: int) -> Ticket[str]:
        def find() -> str | None:
            for place in "ab":
                if kind in (place, "any") and self.free[place]:
                    self.free[place] -= 1
                    return place
            return None

        def tell(place: str | None) -> None:
            assert rank not in self.told, "told twice"
            self.told.add(rank)
            del self.waiting[line][rank]
            if place is not None:
                overtaken = [r for r, (other, _) in self.waiting[line].items() if other == kind and r < rank]
                assert not overtaken, "first in, first out"
                self.placed[rank] = line, kind, place
            else:
                assert rank > max(self.waiting[line], default=-1), "the last one is turned away"
                assert len(self.waiting[line]) == MOST

        return Ticket(rank, kind, find, tell)

    def enter(self, line: str, kind: str, rank: int) -> None:
        ticket = self.ticket(line, kind, rank)
        self.waiting[line][rank] = kind, ticket
        self.lines[line].enter(ticket)
        serve(self.lines.values())

    @rule(line=st.sampled_from("ab"), kind=st.sampled_from(["own", "any"]))
    def come(self, line: str, kind: str) -> None:
        self.rank += 1
        self.enter(line, line if kind == "own" else kind, self.rank)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from([name for name in "ab" if self.waiting[name]]))
        rank = data.draw(st.sampled_from(sorted(self.waiting[line])))
        _, ticket = self.waiting[line].pop(rank)
        self.lines[line].leave(ticket)
        self.lines[line].leave(ticket)

    @rule(place=st.sampled_from("ab"), number=st.integers(1, 3))
    def get_free(self, place: str, number: int) -> None:
        self.free[place] += number
        serve(self.lines.values())

    @precondition(lambda self: self.placed)
    @rule(data=st.data(), frees=st.booleans())
    def be_refused(self, data: st.DataObject, frees: bool) -> None:
        """Back with the old rank, before all who came later."""
        rank = data.draw(st.sampled_from(sorted(self.placed)))
        line, kind, place = self.placed.pop(rank)
        self.told.remove(rank)
        self.free[place] += frees
        self.enter(line, kind, rank)

    @invariant()
    def each_line_holds_who_waits_and_never_too_many(self) -> None:
        for name, line in self.lines.items():
            assert len(line) == len(self.waiting[name]) <= MOST

    @invariant()
    def nobody_waits_beside_a_place_for_it(self) -> None:
        for waiting in self.waiting.values():
            for kind, _ in waiting.values():
                assert not any(self.free[place] for place in "ab" if kind in (place, "any"))


TestWaiters = Waiters.TestCase


def test_a_long_line_takes_nothing_from_a_short_one():
    places = iter(range(4))
    order: list[str] = []

    def waiting(name: str, number: int) -> Line[int]:
        line: Line[int] = Line(100)
        for rank in range(number):
            line.enter(Ticket(rank, name, lambda: next(places, None), lambda _: order.append(name)))
        return line

    long, short = waiting("long", 50), waiting("short", 2)
    serve([long, short])
    assert order == ["long", "short"] * 2
    assert (len(long), len(short)) == (48, 0)


def test_places_that_come_one_by_one_go_round_the_lines():
    places: list[int] = []
    order: list[str] = []

    def waiting(name: str, number: int) -> Line[int]:
        line: Line[int] = Line(100)
        for rank in range(number):
            find = lambda: places.pop() if places else None  # noqa: E731
            line.enter(Ticket(rank, name, find, lambda _: order.append(name)))
        return line

    lines = [waiting("long", 50), waiting("short", 2)]
    for place in range(5):
        places.append(place)
        serve(lines)
    assert order == ["long", "short", "long", "short", "long"]


def test_after_a_limit_a_way_takes_what_it_took_before_and_then_more():
    way = Way()
    assert way.open(0.0)
    way.in_flight = 12
    for _ in range(2):
        way.limited(100.0)
        way.in_flight -= 1
    assert not way.open(100.9)
    way.in_flight -= 1
    assert not way.open(100.0 + PAUSE_S / 2)
    assert way.open(100.0 + PAUSE_S * 1.01)
    way.in_flight = 19
    assert [way.open(at) for at in (100.9, 101.0, 102.0)] == [False, True, True]
    way.in_flight = 10_000
    assert [way.open(at) for at in (109.0, 100.0 + FORGOTTEN_S)] == [False, True]


def test_a_way_that_took_nothing_is_tried_with_one():
    way = Way()
    way.in_flight = 1
    way.limited(0.0)
    way.in_flight = 0
    assert way.open(PAUSE_S)
    way.in_flight = 1
    assert not way.open(PAUSE_S)


def test_of_those_that_are_alike_only_the_first_is_looked_at_in_vain():
    line: Line[Any] = Line(1000)
    looked: list[int] = []
    for rank in range(1000):
        line.enter(Ticket(rank, rank % 2, lambda rank=rank: looked.append(rank), print))
    serve([line])
    assert looked == [0, 1]


@pytest.mark.parametrize(
    ("waiting", "per_second", "expected"),
    [
        (100, 0.0, None),
        (100, 10.0, 10),
        (101, 10.0, 11),
        (1, 1000.0, 1),
        (0, 1.0, 1),
        (10_000, 1 / 60, RETRY_MOST_S),
        (10_000, 5e-324, RETRY_MOST_S),
    ],
)
def test_when_to_come_again(waiting: int, per_second: float, expected: int | None):
    assert retry_after_s(waiting, per_second) == expected


def test_the_pace_is_that_of_the_last_minute_since_the_line_was_empty():
    pace = Pace()
    assert pace.per_second(5.0) == 0
    pace.begin(100.0)
    for second in range(20):
        pace.went(100.0 + second)
    assert pace.per_second(120.0) == 1.0
    assert pace.per_second(160.0) == pytest.approx(20 / 60)
    assert pace.per_second(170.0) == pytest.approx(10 / 60)
    pace.begin(175.0)
    assert pace.per_second(180.0) == 0


def test_the_pace_of_a_fast_line_is_measured_over_what_is_remembered():
    pace = Pace()
    pace.begin(0.0)
    for number in range(50 * MOST_SEEN):
        pace.went(number / 1000)
    assert pace.per_second(50.0) == pytest.approx(1000, rel=0.01)
