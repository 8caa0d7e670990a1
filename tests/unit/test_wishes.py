"""What is wanted beyond the file: overrides, rollbacks, revisions, exclusions; durable, or refused with words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine.model import Exclusion, LaunchSpec, Override, Pause, Pin, Service
from saia_engine.revision_files import RevisionFiles
from saia_engine.store import REVISIONS_KEPT, Store
from saia_engine.wishes import EXCLUSION_KEPT_S, Wishes, WishRefused
from tests.unit.planner_support import CHAT, NOW, POLL_S


def version(number: int, **fields) -> Service:
    """The service with another launch spec."""
    spec = LaunchSpec(
        ("serve", f"v{number}"), environment=(("TOKEN", "s3cret"),), time_limit_s=86400, **fields
    )
    return replace(CHAT, launch=spec)


def rev(number: int) -> str:
    return version(number).launch.revision


class Bench:
    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.path = path
        self.services: Mapping[str, Service] = {"chat": version(1)}
        self.start()

    def start(self) -> None:
        self.store = Store(self.path / "state.db")
        self.files = RevisionFiles(self.path / "revisions")
        self.wishes = Wishes(self.store, self.files, self.services, POLL_S, lambda: self.now)

    def restart(self) -> None:
        self.store.close()
        self.start()

    def asks(self, *services: Service) -> list[Pin]:
        """The file is changed, and the next plan follows it."""
        self.now += 60
        self.services = {s.name: s for s in services}
        self.wishes.configure(self.services)
        cleared = self.wishes.clear_obsolete_pins()
        self.wishes.note_revisions()
        return cleared

    def goes_well(self, number: int) -> None:
        self.asks(version(number))
        self.now += 60
        self.wishes.settle("chat", rev(number))

    @property
    def runs(self) -> str:
        return self.wishes.desired.services["chat"].launch.revision

    def history(self) -> list[str]:
        return [r.revision for r in self.wishes.revisions["chat"]]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


# ---------------------------------------------------------------- revisions


def test_what_is_asked_for_is_noted_once_without_its_secrets(bench: Bench) -> None:
    (noted,) = bench.wishes.note_revisions()
    assert (noted.revision, noted.since, noted.good_at) == (rev(1), NOW, None)
    assert bench.wishes.note_revisions() == []
    bench.restart()
    assert bench.wishes.note_revisions() == []
    assert b"s3cret" not in (bench.path / "state.db").read_bytes()
    assert bench.files.load("chat", rev(1)) == version(1).launch


def test_a_change_that_needs_no_relaunch_is_no_revision(bench: Bench) -> None:
    bench.wishes.note_revisions()
    bench.asks(replace(version(1), replicas=5))
    assert bench.history() == [rev(1)]


def test_one_that_was_good_stays_so_when_it_is_asked_for_again(bench: Bench) -> None:
    bench.goes_well(1)
    good_at = bench.wishes.revisions["chat"][-1].good_at
    bench.asks(version(2))
    bench.asks(version(1))
    assert bench.history() == [rev(2), rev(1)]
    newest = bench.wishes.revisions["chat"][-1]
    assert (newest.since, newest.good_at) == (bench.now, good_at)


def test_one_that_failed_gets_another_chance_when_it_is_asked_for_again(bench: Bench) -> None:
    bench.goes_well(1)
    bench.asks(version(2))
    bench.wishes.revert("chat", rev(2), rev(1), "exit code 1")
    bench.wishes.note_revisions()
    bench.wishes.clear_pin("chat")
    bench.now += 1
    bench.wishes.note_revisions()
    newest = bench.wishes.revisions["chat"][-1]
    assert (newest.revision, newest.failed_at, newest.since) == (rev(2), None, bench.now)


def test_so_does_a_service_that_was_removed_and_comes_back(bench: Bench) -> None:
    bench.wishes.note_revisions()
    bench.wishes.revert("chat", rev(1), "", "exit code 1")
    bench.asks()
    bench.asks(version(1))
    (record,) = bench.wishes.revisions["chat"]
    assert (record.failed_at, record.since) == (None, bench.now)


def test_the_history_is_of_ten_with_the_last_good_one_and_their_files(bench: Bench) -> None:
    bench.goes_well(0)
    for number in range(1, 15):
        bench.asks(version(number))
    assert bench.history() == [rev(0), *(rev(n) for n in range(5, 15))]
    assert len(bench.history()) == REVISIONS_KEPT + 1
    assert set(bench.files.saved()["chat"]) == set(bench.history())


def test_a_file_that_cannot_be_written_is_told_of_and_stops_nothing(bench: Bench) -> None:
    (bench.path / "revisions").write_text("in the way")
    bench.wishes.note_revisions()
    assert rev(1) in bench.wishes.fault
    assert bench.history() == [rev(1)]
    (bench.path / "revisions").unlink()
    bench.asks(version(2))
    assert bench.wishes.fault == ""


def test_a_thousand_services_are_noted_in_good_time(bench: Bench) -> None:
    bench.asks(*(replace(version(1), name=f"s{n}") for n in range(300)))
    assert len(bench.wishes.revisions) == 300


# ---------------------------------------------------------------- back to another


def test_a_failed_rollout_goes_back_and_stays_there_over_a_restart(bench: Bench) -> None:
    bench.goes_well(1)
    bench.asks(version(2))
    pin = bench.wishes.revert("chat", rev(2), rev(1), "exit code 1")
    assert pin == Pin("chat", rev(1), rev(2), "exit code 1", bench.now)
    assert bench.runs == rev(1)
    assert bench.wishes.desired.services["chat"].launch == version(1).launch, "its environment, too"
    bench.restart()
    assert (bench.runs, bench.wishes.pins["chat"]) == (rev(1), pin)
    assert next(r for r in bench.wishes.revisions["chat"] if r.revision == rev(2)).failure == "exit code 1"


def test_a_crash_in_the_middle_of_going_back_leaves_nobody_on_the_failed_one(bench: Bench) -> None:
    bench.goes_well(1)
    bench.asks(version(2))

    class Crash(BaseException):
        pass

    def crash(record: object, keep: object = None) -> None:
        raise Crash

    bench.store.save_revision = crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        bench.wishes.revert("chat", rev(2), rev(1), "exit code 1")
    bench.restart()
    assert bench.runs == rev(1)


def test_a_failure_with_nowhere_to_go_is_remembered(bench: Bench) -> None:
    bench.wishes.note_revisions()
    assert bench.wishes.revert("chat", rev(1), "", "exit code 1") is None
    assert (bench.runs, bench.wishes.revisions["chat"][-1].failure) == (rev(1), "exit code 1")


def test_a_failed_rollback_to_an_untried_one_ends_at_what_the_file_asks_for(bench: Bench) -> None:
    bench.asks(version(1))
    bench.goes_well(2)
    bench.wishes.rollback("chat", rev(1), 1000)
    bench.wishes.note_revisions()
    assert bench.runs == rev(1)
    bench.wishes.revert("chat", rev(1), rev(2), "exit code 1")
    assert (bench.runs, bench.wishes.pins) == (rev(2), {})


def test_an_operator_goes_back_to_the_last_good_one_or_to_a_named_one(bench: Bench) -> None:
    for number in (1, 2, 3):
        bench.goes_well(number)
    assert bench.wishes.rollback("chat", None, 1000).revision == rev(2)
    bench.wishes.note_revisions()
    pin = bench.wishes.rollback("chat", rev(1)[:5], 1000)
    assert (pin.revision, pin.instead_of, pin.uid) == (rev(1), rev(3), 1000)


@pytest.mark.parametrize(
    ("service", "revision", "words"),
    [
        ("nobody", None, "there is no service nobody"),
        ("chat", None, "no earlier revision that has proven itself"),
        ("chat", "ffff", "no revision ffff"),
    ],
)
def test_a_rollback_without_an_aim_is_refused(
    bench: Bench, service: str, revision: str | None, words: str
) -> None:
    bench.goes_well(1)
    with pytest.raises(WishRefused, match=words):
        bench.wishes.rollback(service, revision, 0)


def test_a_rollback_whose_spec_is_gone_or_does_not_fit_is_refused(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    (bench.path / "revisions" / f"chat.{rev(1)}.json").unlink()
    with pytest.raises(WishRefused, match="not on this host any more"):
        bench.wishes.rollback("chat", rev(1), 0)
    short = replace(version(3), launch=replace(version(3).launch, time_limit_s=1000))
    bench.asks(short)
    bench.asks(replace(version(4), timing=replace(CHAT.timing, drain_deadline_s=3000)))
    with pytest.raises(WishRefused, match="no room for the timeline"):
        bench.wishes.rollback("chat", short.launch.revision, 0)


def test_back_to_what_the_file_asks_for_is_an_unpin(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    bench.wishes.rollback("chat", None, 0)
    bench.wishes.note_revisions()
    with pytest.raises(WishRefused, match="unpin"):
        bench.wishes.rollback("chat", rev(2), 0)
    bench.wishes.clear_pin("chat")
    assert bench.runs == rev(2)


def test_a_file_that_asks_for_something_new_puts_the_pin_aside(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    pin = bench.wishes.rollback("chat", None, 0)
    assert bench.asks(replace(version(2), replicas=3)) == [], "not for a change of something else"
    assert bench.runs == rev(1)
    assert bench.asks(version(3)) == [pin]
    assert (bench.runs, bench.wishes.pins, bench.store.pins()) == (rev(3), {}, {})


def test_also_when_it_was_changed_while_no_engine_ran(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    pin = bench.wishes.rollback("chat", None, 0)
    bench.services = {"chat": version(3)}
    bench.restart()
    assert bench.runs == rev(3)
    assert bench.wishes.clear_obsolete_pins() == [pin]


def test_the_pin_of_a_removed_service_waits_for_it(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    bench.wishes.rollback("chat", None, 0)
    assert bench.asks() == []
    bench.asks(version(2))
    assert bench.runs == rev(1)


# ---------------------------------------------------------------- overrides, exclusions, marks


def test_overrides_and_pins_work_together_and_last(bench: Bench) -> None:
    bench.goes_well(1)
    bench.goes_well(2)
    bench.wishes.set_override(Override("chat", 7, 1000, bench.now))
    bench.wishes.rollback("chat", None, 0)
    bench.restart()
    service = bench.wishes.desired.services["chat"]
    assert (service.replicas, service.launch.revision) == (7, rev(1))
    bench.wishes.clear_override("chat")
    assert bench.wishes.desired.services["chat"].replicas == 1


def test_a_paused_service_has_none_until_the_number_from_before_comes_back(bench: Bench) -> None:
    bench.asks(replace(version(1), replicas=2))
    before = bench.wishes.all_of_them()
    pause = Pause("chat", 1000, NOW, "no GPUs")
    bench.wishes.pause(pause)
    assert bench.wishes.all_of_them() != before, "a new plan is due"
    assert bench.wishes.desired.services["chat"].replicas == 0
    bench.restart()
    assert bench.wishes.pauses == {"chat": pause}
    assert bench.wishes.desired.services["chat"].replicas == 0
    bench.wishes.resume("chat")
    assert bench.wishes.desired.services["chat"].replicas == 2
    bench.wishes.set_override(Override("chat", 5, 1000, NOW))
    bench.wishes.pause(pause)
    bench.asks(replace(version(2), replicas=3))
    assert bench.wishes.desired.services["chat"].replicas == 0, "a changed file resumes nothing"
    assert bench.wishes.unpaused(bench.services["chat"]) == 5
    bench.wishes.resume("chat")
    bench.restart()
    assert bench.wishes.desired.services["chat"].replicas == 5


def test_an_exclusion_ends_by_an_operators_word_and_is_remembered_for_a_while(bench: Bench) -> None:
    bench.wishes.exclude(Exclusion("gpu01", NOW + 3600, "bad", NOW))
    bench.now += 10
    bench.wishes.include("gpu01")
    assert bench.wishes.exclusions["gpu01"].until == bench.now
    with pytest.raises(WishRefused, match="is not excluded"):
        bench.wishes.include("gpu01")
    bench.now += EXCLUSION_KEPT_S
    bench.wishes.forget_old()
    assert "gpu01" in bench.wishes.exclusions
    bench.now += 1
    bench.wishes.forget_old()
    bench.restart()
    assert bench.wishes.exclusions == {}


def test_an_operators_word_against_a_freeze_lasts(bench: Bench) -> None:
    bench.wishes.unfreeze()
    bench.restart()
    assert bench.wishes.unfrozen_at == NOW
