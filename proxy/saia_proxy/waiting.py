"""Who waits for a place, and who goes next: in the order of arrival, as many as there are places. Pure."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

WINDOW_S = 60.0
MOST_SEEN = 1000
RETRY_MOST_S = 600
"""However long the queue is: it may move much faster later."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True, eq=False)
class Ticket(Generic[P]):
    """One request in a line."""

    rank: int
    """By arrival: the lowest goes first."""
    alike: Hashable
    """Where one finds no place, no other with the same value does."""
    find: Callable[[], P | None]
    """Takes a place, where there is one for it."""
    tell: Callable[[P | None], None]
    """Told once: the place, or None where it was turned away."""


class Pace:
    """How fast a line moves, since it was last empty; by a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._since = 0.0
        self._went: deque[float] = deque(maxlen=MOST_SEEN)

    def begin(self, now: float) -> None:
        """It was empty until now."""
        self._since = now
        self._went.clear()

    def went(self, now: float) -> None:
        """One more got its place."""
        self._went.append(now)

    def per_second(self, now: float) -> float:
        """In the last minute."""
        start = max(self._since, now - WINDOW_S)
        while self._went and self._went[0] < start:
            self._went.popleft()
        if len(self._went) == MOST_SEEN:
            start = self._went[0]
        return len(self._went) / max(now - start, 1.0)


class Line(Generic[P]):
    """Those who wait for one service; at most `most` of them."""

    def __init__(self, most: int) -> None:
        self.pace = Pace()
        self.turn = 0
        """When one of it was last given a place, in the order of all lines."""
        self._most = most
        self._tickets: list[Ticket[P]] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def enter(self, ticket: Ticket[P]) -> None:
        """By its rank. If the line gets too long, its last one is turned away, which may be this one."""
        insort(self._tickets, ticket, key=_rank)
        if len(self._tickets) > self._most:
            self._tickets.pop().tell(None)

    def leave(self, ticket: Ticket[P]) -> None:
        """If it still waits."""
        at = bisect_left(self._tickets, ticket.rank, key=_rank)
        if at < len(self._tickets) and self._tickets[at] is ticket:
            del self._tickets[at]

    def close(self) -> None:
        """All are turned away."""
        while self._tickets:
            self._tickets.pop().tell(None)

    def serving(self) -> Iterator[None]:
        """Gives one after the other its place; each step is one place given."""
        stuck: set[Hashable] = set()
        for ticket in tuple(self._tickets):
            if ticket.alike in stuck:
                continue
            place = ticket.find()
            if place is None:
                stuck.add(ticket.alike)
            else:
                self.leave(ticket)
                self.turn = next(_turns)
                ticket.tell(place)
                yield


def serve(lines: Iterable[Line[P]]) -> None:
    """Gives all places that there are, one to each line in turn: a long one takes nothing from a short one."""
    turns = [line.serving() for line in sorted(lines, key=_turn)]
    while turns:
        turns = [turn for turn in turns if next(turn, _END) is not _END]


def retry_after_s(waiting: int, per_second: float) -> int | None:
    """When as many will have gone as wait now, in whole seconds up to RETRY_MOST_S; None while nobody goes."""
    if per_second <= 0:
        return None
    return max(1, math.ceil(min(waiting / per_second, RETRY_MOST_S)))


_END = object()
_turns = itertools.count(1)


def _turn(line: Line[P]) -> int:
    return line.turn


def _rank(ticket: Ticket[P]) -> int:
    return ticket.rank
