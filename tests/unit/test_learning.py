"""What past starts took: kept in the journal, over restarts, and only what was really seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine.learning import Learning
from saia_engine.model import Instance, State
from saia_engine.planner.lead import HALF_LIFE_S, Learned
from saia_engine.store import Store
from tests.unit.planner_support import CHAT, NOW, POLL_S, instance

EMBED = replace(CHAT, name="embed")


class Bench:
    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.path = path
        self.start()

    def start(self) -> None:
        self.store = Store(self.path / "state.db")
        self.learning = Learning(self.store, lambda: self.now, POLL_S)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def learned(self, service=CHAT) -> Learned:
        return self.learning.learned({service.name: service})[service.name]

    def starts(self, name: str = "a", queue_s: float = 60, load_s: float = 120, **fields) -> Instance:
        """One instance's way from the queue to readiness, as the engine sees it."""
        known = {"created_at": self.now, "submit_time": self.now, "state_since": self.now, **fields}
        waiting = instance(name, State.PENDING, **known)
        self.now += queue_s
        started = replace(waiting, state=State.STARTING, started_at=self.now, state_since=self.now, reason="")
        self.learning.note(waiting, started)
        self.now += load_s
        return self.gets_ready(started)

    def gets_ready(self, started: Instance) -> Instance:
        ready = replace(started, state=State.READY, first_ready_at=self.now, served=True)
        self.learning.note(started, ready)
        return ready


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


def test_a_start_is_learned_and_kept_over_a_restart(bench: Bench) -> None:
    assert bench.learned() == Learned()
    bench.starts()
    assert bench.learned() == Learned(60, 120, 1)
    bench.restart()
    assert bench.learned() == Learned(60, 120, 1)


def test_a_service_of_the_same_shape_learns_the_wait_but_not_the_load(bench: Bench) -> None:
    assert bench.learned(EMBED) == Learned()
    bench.starts()
    assert bench.learned(EMBED) == Learned(60, None, 0)


def test_readiness_again_teaches_nothing_new(bench: Bench) -> None:
    ready = bench.starts()
    bench.learning.note(replace(ready, state=State.UNREADY), ready)
    bench.learning.note(ready, replace(ready, state=State.STOPPED, ended_at=bench.now))
    assert len(bench.store.samples(0)) == 1


def test_one_that_failed_before_it_was_ready_teaches_its_wait(bench: Bench) -> None:
    failing = instance("a", State.STARTING, created_at=NOW - 400, submit_time=NOW - 400, started_at=NOW - 100)
    bench.learning.note(failing, replace(failing, state=State.FAILED, ended_at=NOW))
    assert bench.learned() == Learned(300, None, 0)


def test_a_start_that_began_before_the_engine_did_teaches_no_load(bench: Bench) -> None:
    started = instance(
        "a",
        State.STARTING,
        created_at=NOW - 90,
        submit_time=NOW - 90,
        started_at=NOW - 60,
        state_since=NOW - 60,
    )
    bench.now += 7200
    bench.restart()
    bench.gets_ready(started)
    assert bench.learned().load_s is None


def test_nor_does_one_that_slurms_silence_hid_or_that_was_adopted(bench: Bench) -> None:
    seen_late = instance(
        "a", State.STARTING, created_at=NOW, submit_time=NOW, started_at=NOW + 10, state_since=NOW + 10 + 31
    )
    bench.now += 60
    bench.gets_ready(seen_late)
    assert bench.learned().load_s is None


@pytest.mark.parametrize("restarts", [False, True])
def test_a_held_job_teaches_nothing(bench: Bench, restarts: bool) -> None:
    held = instance("a", State.PENDING, reason="JobHeldUser", created_at=NOW, submit_time=NOW)
    bench.learning.note(None, held)
    if restarts:
        bench.restart()
    bench.now += 86_400
    waiting = replace(held, reason="Priority")
    bench.learning.note(held, waiting)
    started = replace(waiting, state=State.STARTING, started_at=bench.now, state_since=bench.now)
    bench.learning.note(waiting, started)
    bench.gets_ready(started)
    assert bench.learned() == Learned()


def test_a_slow_time_is_forgotten_as_quick_starts_come_in(bench: Bench) -> None:
    for n in range(20):
        bench.starts(f"s{n}", queue_s=1000)
    assert bench.learned().queue_s == 1000
    bench.now += 6 * HALF_LIFE_S
    for n in range(5):
        bench.starts(f"f{n}", queue_s=10)
    assert bench.learned().queue_s == 10


def test_another_shape_is_another_lesson(bench: Bench) -> None:
    bench.starts()
    moved = replace(CHAT, launch=replace(CHAT.launch, partition="big"))
    assert bench.learned() == Learned(60, 120, 1)
    assert bench.learned(moved) == Learned(None, 120, 1)
