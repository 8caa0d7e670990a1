"""Each planted bug has its place, and those that a seed shows quickly are shown again: `make sim-planted` hunts all."""

from __future__ import annotations

import pytest

from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.hunt import known, run_apart
from tests.simulation.planted.soil import fits

PROMISES = range(1, 25)
ROOM_H = 1.0
"""A change of the engine may show a bug a little later than it was found."""
REPLAYED_WITHIN_H = 15.0
"""Longer catches are left to the hunt."""

KNOWN = known()
QUICK = [name for name, catches in KNOWN.items() if catches[0].hours <= REPLAYED_WITHIN_H]


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_fits_its_source(name: str) -> None:
    fits(BUGS[name])


def test_there_are_enough_of_every_kind() -> None:
    assert len(BUGS) >= 30
    assert {bug.promises[0] for bug in BUGS.values()} == set(PROMISES)
    assert sum(bug.race for bug in BUGS.values()) >= 6
    assert not [bug.name for bug in BUGS.values() if bug.module.startswith("saia_engine.simulator")]


def test_enough_are_replayed() -> None:
    assert KNOWN.keys() <= BUGS.keys()
    assert len(QUICK) >= 10


@pytest.mark.parametrize("name", QUICK)
def test_a_known_seed_shows_it_again(name: str) -> None:
    found = (run_apart(name, known.seed, known.hours + ROOM_H) for known in KNOWN[name])
    assert any(catch.promise in BUGS[name].promises for catch in found)
