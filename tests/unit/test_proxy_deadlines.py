"""How long a request may take: in all, and in each phase."""

from __future__ import annotations

from time import monotonic

import pytest

from saia_proxy import deadlines
from saia_proxy.deadlines import Deadlines


class Watched:
    """A Sweeper by hand, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = monotonic()
        self.members: set[object] = set()
        self.said: list[str] = []
        monkeypatch.setattr(deadlines, "monotonic", lambda: self.now)
        self.deadlines = Deadlines(self, 100.0, self.said.append)  # type: ignore[arg-type]

    def add(self, member: object) -> None:
        self.members.add(member)

    def discard(self, member: object) -> None:
        self.members.discard(member)

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        if self.deadlines in self.members and self.deadlines.deadline <= self.now:
            self.deadlines.late()
        return self.said


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_the_time_in_all(watched: Watched):
    assert watched.after(99) == []
    assert watched.after(2) == ["in all"]


def test_a_phase_ends_sooner_and_counts_anew_where_something_was_heard(watched: Watched):
    heard = watched.now
    watched.deadlines.enter("to begin", lambda: heard + 10 - watched.now)
    assert watched.after(9) == []
    heard = watched.now
    assert watched.after(2) == [], "its deadline had passed, but something was heard"
    assert watched.after(7) == []
    assert watched.after(2) == ["to begin"]


def test_no_phase_outlasts_the_whole_unless_it_is_endless(watched: Watched):
    watched.deadlines.enter("idle", lambda: 50.0)
    assert watched.after(60) == []
    assert watched.after(41) == ["in all"]
    watched.deadlines.endless()
    watched.deadlines.enter("idle", lambda: 50.0)
    assert watched.after(1000) == ["in all"]


def test_after_a_phase_only_the_whole_counts(watched: Watched):
    watched.deadlines.enter("to begin", lambda: 10.0)
    watched.deadlines.leave()
    assert watched.after(50) == []
    watched.deadlines.close()
    assert watched.after(100) == []
    assert watched.members == set()
