"""What is read of a record is what the hub held when the sample was taken, or nothing."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from saia_engine.api.hub import Hub
from saia_engine.record import files
from saia_engine.record.frames import RecordFault, Reel, difference
from saia_engine.record.index import Indexer
from saia_engine.record.reading import state_at
from saia_engine.record.recorder import Recorder
from saia_engine.record.writer import Limits
from saia_engine.view import AlarmView, EventView, InstanceView, JobView

STEP_S = 10.0


class Night:
    """A hub whose rows change at random, and its record; `seen` is what it held at each sample."""

    def __init__(self, directory: Path, seed: int, limits: Limits | None = None) -> None:
        self.directory = directory
        self.now = 1_795_000_000.0
        self.seen: dict[float, dict[str, dict[str, object]]] = {}
        self.held: list[tuple[float, dict[str, dict[str, object]]]] = []
        self._hub = Hub()
        self._dice = random.Random(seed)
        self._jobs: dict[str, JobView] = {}
        self._instances: dict[str, InstanceView] = {}
        self._limits = limits or Limits(step_s=STEP_S)
        self.restart()

    def restart(self) -> None:
        """As an engine that was killed and started again."""
        self._recorder = Recorder(self._hub, self.directory, self._limits, lambda: self.now)

    def step(self, seconds: float = STEP_S) -> None:
        dice = self._dice
        for _ in range(dice.randrange(4)):
            self._change()
        self.now += seconds
        self._recorder._writer.write(self._recorder.sample())
        self.seen[self.now] = decoded(self._hub.state())
        self.held.append((self.now, self.seen[self.now]))

    def _change(self) -> None:
        dice = self._dice
        for _ in range(dice.randrange(5)):
            number = dice.randrange(12)
            if dice.random() < 0.3:
                self._jobs.pop(str(number), None)
            else:
                self._jobs[str(number)] = JobView(number, f"job\n\x1b{dice.random()}", "anna", "RUNNING")
        name = f"i{dice.randrange(3)}"
        self._instances[name] = InstanceView(name, "chat", dice.choice(("ready", "failed")), self.now)
        self._hub.publish("jobs", self._jobs)
        self._hub.publish("instances", self._instances)
        if dice.random() < 0.2:
            alarm = AlarmView("no-ready", "critical", "chat", "none is ready", self.now)
            self._hub.publish("alarms", {"no-ready:chat": alarm} if dice.random() < 0.5 else {})
        if dice.random() < 0.2:
            event = EventView(int(self.now), self.now, "scale", "info", "chat", "to 3", uid=0)
            self._hub.publish("events", {str(event.seq): event})

    def segments(self) -> list[Path]:
        return [self.directory / name for name in files.names(self.directory)]


def decoded(state: bytes | object) -> dict[str, dict[str, object]]:
    raw = state if isinstance(state, bytes) else msgspec.json.encode(state)
    return msgspec.json.decode(raw)


@contextmanager
def night(seed: int, limits: Limits | None = None) -> Iterator[Night]:
    with tempfile.TemporaryDirectory() as directory:
        yield Night(Path(directory) / "record", seed, limits)


def check(night: Night, *, all_there: bool) -> int:
    """Every moment that can be read holds what the hub held; of how many the own sample could not be read."""
    index = Indexer(night.directory).index()
    missing = 0
    for at, state in night.seen.items():
        try:
            told, rows = state_at(night.directory, index, at + STEP_S / 2)
        except RecordFault:
            missing += 1
            continue
        assert decoded(rows) == night.seen[told], "these rows never were"
        missing += told != at
        if all_there:
            assert told == at and decoded(rows) == state
    assert not (all_there and missing)
    return missing


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 130))
def test_what_is_read_is_what_the_hub_held_over_several_segments(seed: int, steps: int) -> None:
    with night(seed) as one:
        for _ in range(steps):
            one.step()
        check(one, all_there=True)
        assert len(one.segments()) == -(-steps // 60)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_harmed_bytes_give_a_gap_and_never_wrong_rows(seed: int, data: st.DataObject) -> None:
    with night(seed) as one:
        for _ in range(70):
            one.step()
        victim = data.draw(st.sampled_from(one.segments()))
        content = bytearray(victim.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        victim.write_bytes(content)
        assert check(one, all_there=False) > 0
        index = Indexer(one.directory).index()
        assert index.gaps() or index.faults or any(span.fault for span in index.spans)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_a_torn_tail_costs_its_last_frame(seed: int, data: st.DataObject) -> None:
    with night(seed) as one:
        for _ in range(20):
            one.step()
        content = one.segments()[0].read_bytes()
        last = Reel(content).frames[-1]
        cut = data.draw(st.integers(1, last.length + 24))
        one.segments()[0].write_bytes(content[:-cut])
        found = Reel(one.segments()[0].read_bytes())
        assert len(found.frames) == 19 and found.fault == "cut short"
        check(one, all_there=False)
        one.restart()
        one.step(60.0)
        index = Indexer(one.directory).index()
        assert [round(gap.end - gap.begin) for gap in index.gaps()] == [70]
        assert state_at(one.directory, index, one.now)[0] == one.now


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([10.0, 10.0, 10.0, 9.5, 300.0, -500.0, -7.0]), max_size=80),
)
def test_jumps_of_the_clock_and_kills_break_nothing(seed: int, steps: list[float]) -> None:
    with night(seed) as one:
        for seconds in steps:
            if seconds == 9.5:
                one.restart()
            one.step(seconds)
        index = Indexer(one.directory).index()
        back = max((number for number, seconds in enumerate(steps) if seconds < 0), default=0)
        for number, (at, _) in enumerate(one.held):
            told, rows = state_at(one.directory, index, at)
            assert told <= at
            if number >= back:
                assert told == at
            assert (told, decoded(rows)) in one.held


def test_the_oldest_go_first_by_age_and_by_size(tmp_path: Path) -> None:
    aged = Night(tmp_path / "aged", 1, Limits(STEP_S, keep_s=3600.0))
    for _ in range(360 * 3):
        aged.step()
    began = Indexer(aged.directory).index().begin
    assert began is not None and 3600 <= aged.now - began <= 3600 + 1300
    small = Night(tmp_path / "small", 1, Limits(STEP_S, most_bytes=64 * 1024))
    for _ in range(360 * 3):
        small.step()
        assert sum(path.stat().st_size for path in small.segments()) <= 64 * 1024
    assert Indexer(small.directory).index().end == small.now
    assert (tmp_path / "small").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in small.segments()} == {0o600}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_a_difference_leads_from_any_state_to_any_other(seed: int, data: st.DataObject) -> None:
    with night(seed) as one:
        for _ in range(50):
            one.step()
        reel = Reel(one.segments()[0].read_bytes())
        numbers = st.integers(0, 49)
        state = reel.rows(data.draw(numbers))
        for number in data.draw(st.lists(numbers, max_size=6)):
            wanted = reel.rows(number)
            for change in difference(state, wanted):
                assert not change.reset
                for key in change.gone:
                    del state[change.table][key]
                state[change.table].update(change.set)
            assert state == wanted
