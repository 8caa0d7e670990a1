"""Deadlines that are looked through: told when they have passed, not before, and not after they were taken out."""

from __future__ import annotations

import asyncio
import math
from time import monotonic

from saia_engine.wire.sweeper import PERIOD_S, Sweeper


class Member:
    def __init__(self, sweeper: Sweeper, in_s: float) -> None:
        self.deadline = monotonic() + in_s
        self.told_at: list[float] = []
        self.told = asyncio.Event()
        self.sweeper = sweeper
        sweeper.add(self)

    def late(self) -> None:
        self.told_at.append(monotonic())
        self.deadline = math.inf
        self.told.set()


async def test_each_is_told_after_its_deadline_and_once():
    sweeper = Sweeper()
    soon, later = Member(sweeper, 0.0), Member(sweeper, 3 * PERIOD_S)
    due = later.deadline
    await asyncio.wait_for(soon.told.wait(), 5)
    assert later.told_at == []
    await asyncio.wait_for(later.told.wait(), 5)
    assert later.told_at[0] >= due
    assert len(soon.told_at) == 1


async def test_who_was_taken_out_is_not_told_even_by_another():
    sweeper = Sweeper()

    class Remover(Member):
        def late(self) -> None:
            super().late()
            for other in others:
                if other is not self:
                    sweeper.discard(other)

    others = [Remover(sweeper, 0.0), Remover(sweeper, 0.0)]
    out = Member(sweeper, 0.0)
    sweeper.discard(out)
    last = Member(sweeper, PERIOD_S)
    await asyncio.wait_for(last.told.wait(), 5)
    assert sum(len(member.told_at) for member in others) == 1
    assert out.told_at == []


async def test_one_that_comes_after_a_rest_is_told():
    sweeper = Sweeper()
    first = Member(sweeper, 0.0)
    await asyncio.wait_for(first.told.wait(), 5)
    sweeper.discard(first)
    await asyncio.sleep(2.5 * PERIOD_S)
    second = Member(sweeper, 0.0)
    await asyncio.wait_for(second.told.wait(), 5)
