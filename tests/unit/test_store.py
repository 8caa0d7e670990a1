"""The journal: durable, whole after a crash, and loud when it can't be written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from saia_engine import journal_schema
from saia_engine.model import (
    Ack,
    Drain,
    DrainKind,
    Exclusion,
    Instance,
    LaunchSpec,
    Override,
    Pause,
    Pin,
    Revision,
    State,
    Timing,
    WaitSample,
)
from saia_engine.store import JournalError, KeyWish, ProxyWish, Store
from saia_engine.wire.messages import KeyOrder

JOURNALS = Path(__file__).parent / "journals"

FULL = Instance(
    "k.hpc.chat.ab12",
    "chat",
    LaunchSpec(command=("serve", "--x"), environment=(("TOKEN", ""),), time_limit_s=600),
    "r1",
    1000.5,
    state=State.DRAINING,
    state_since=1100.0,
    replaces="k.hpc.chat.ab11",
    generation=2,
    job_id=42,
    submit_time=1001.0,
    user="svc",
    reason="Priority",
    node="gpu01",
    started_at=1010.0,
    end_time=2000.0,
    ready_since=1020.0,
    served=True,
    first_ready_at=1020.0,
    replace_asked=True,
    drain=Drain(DrainKind.HANDOVER, 1090.0),
    end_state="TIMEOUT",
    log_tail="out of memory\n",
    timing=Timing(drain_deadline_s=77),
)


PIN = Pin("chat", "aa", "bb", "its rollout failed", 5.0)
WISH = ProxyWish(3, True, {"alice": KeyWish(KeyOrder(True, 4, 0), 1000, 5.5)}, 6.5)
EXCLUSION = Exclusion("gpu01", 900.0, "2 failures in an hour", 5.0, 1000)


def revision(name: str, since: float, **more: float) -> Revision:
    return Revision("chat", name, LaunchSpec(command=(name,)), since, **more)


def ended(name: str, at: float) -> Instance:
    return Instance(name, "chat", LaunchSpec(), "r", 1.0, state=State.STOPPED, ended_at=at)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_what_was_saved_is_there_after_a_restart(path: Path) -> None:
    Store(path).save(FULL)
    assert Store(path).instances(0) == {FULL.id: FULL}


def test_the_newest_record_counts(path: Path) -> None:
    store = Store(path)
    store.save(FULL)
    store.save(ended(FULL.id, 50.0))
    assert store.instances(0)[FULL.id].state is State.STOPPED
    assert store.instances(50.0) == {}


def test_ended_ones_are_kept_for_a_while_then_forgotten(path: Path) -> None:
    store = Store(path)
    store.save(FULL, ended("old", 10.0), ended("new", 20.0))
    assert set(store.instances(ended_after=15.0)) == {FULL.id, "new"}
    assert store.forget_ended(before=15.0) == ["old"]
    assert set(store.instances(ended_after=0.0)) == {FULL.id, "new"}


def test_overrides_and_wishes_survive_until_cleared(path: Path) -> None:
    store = Store(path)
    store.set_override(Override("chat", 3, 1000, 5.0))
    store.set_override(Override("chat", 4, 1000, 6.0))
    store.set_override(Override("embed", 1, 0, 7.0))
    store.clear_override("embed")
    store.set_proxy("cloud", WISH)
    again = Store(path)
    assert again.overrides() == {"chat": Override("chat", 4, 1000, 6.0)}
    assert again.proxies() == {"cloud": WISH}


def test_pins_exclusions_and_marks_survive_until_cleared(path: Path) -> None:
    store = Store(path)
    store.set_pin(Pin("chat", "zz", "bb", "", 1.0))
    store.set_pin(PIN)
    store.set_pin(Pin("embed", "aa", "bb", "by hand", 1.0, 1000))
    store.clear_pin("embed")
    store.set_exclusion(EXCLUSION)
    store.set_exclusion(Exclusion("gpu02", 1.0, "", 0.0))
    store.clear_exclusion("gpu02")
    store.set_mark("thawed", 1.0)
    store.set_mark("thawed", 2.0)
    again = Store(path)
    assert again.pins() == {"chat": PIN}
    assert again.exclusions() == {"gpu01": EXCLUSION}
    assert again.marks() == {"thawed": 2.0}


def test_the_newest_samples_of_each_service_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saia_engine.store.SAMPLES_KEPT", 3)
    store = Store(path)
    store.add_sample(WaitSample(1.0, "embed", "gpu", 9.0))
    chat = [WaitSample(float(at), "chat", "gpu", at / 2, None if at % 2 else 60.0) for at in range(2, 8)]
    for sample in chat:
        store.add_sample(sample)
    again = Store(path)
    assert again.samples(after=0.0) == (WaitSample(1.0, "embed", "gpu", 9.0), *chat[-3:])
    assert again.samples(after=5.0) == tuple(chat[-2:])


def test_a_revision_is_one_row_and_the_oldest_comes_first(path: Path) -> None:
    store = Store(path)
    store.save_revision(revision("aa", 1.0))
    store.save_revision(revision("bb", 2.0))
    store.save_revision(revision("aa", 3.0, good_at=4.0))
    store.save_revision(Revision("embed", "cc", LaunchSpec(), 1.0, failed_at=2.0, failure="never ready"))
    assert Store(path).revisions() == {
        "chat": (revision("bb", 2.0), revision("aa", 3.0, good_at=4.0)),
        "embed": (Revision("embed", "cc", LaunchSpec(), 1.0, failed_at=2.0, failure="never ready"),),
    }


def test_a_revision_keeps_no_value_of_an_environment(path: Path) -> None:
    secret = LaunchSpec(environment=(("TOKEN", "hunter2"),))
    Store(path).save_revision(Revision("chat", secret.revision, secret, 1.0))
    assert Store(path).revisions()["chat"][0].spec == secret.redacted()
    assert b"hunter2" not in path.read_bytes()


def test_ten_revisions_are_kept_and_beyond_them_the_good_one_and_those_in_use(path: Path) -> None:
    store = Store(path)
    store.save_revision(revision("good", 1.0, good_at=2.0))
    store.save_revision(revision("broken", 2.0, good_at=3.0, failed_at=4.0))
    store.save_revision(revision("used", 3.0))
    for number in range(20):
        store.save_revision(revision(f"r{number}", 10.0 + number), keep=frozenset({"used", "unheard"}))
    newest = [f"r{number}" for number in range(10, 20)]
    assert [r.revision for r in store.revisions()["chat"]] == ["good", "used", *newest]
    store.save_revision(revision("better", 40.0, good_at=41.0))
    assert [r.revision for r in store.revisions()["chat"]] == [*newest[1:], "better"]


def test_events_are_numbered_and_the_newest_come_last(path: Path) -> None:
    store = Store(path)
    for number in range(5):
        store.record(float(number), "code", "info", "subject", f"text {number}", uid=number or None)
    newest = Store(path).events(2)
    assert [(e.seq, e.text, e.uid) for e in newest] == [(4, "text 3", 3), (5, "text 4", 4)]


def test_a_services_instances_are_its_own(path: Path) -> None:
    store = Store(path)
    for name, service, at in (
        ("k.c.chat.b", "chat", 2.0),
        ("k.c.chat.a", "chat", 1.0),
        ("k.chat.x.c", "x", 1.0),
    ):
        store.save(Instance(name, service, LaunchSpec(), "r", at, ended_at=3.0))
    assert [i.id for i in Store(path).instances_of("chat")] == ["k.c.chat.a", "k.c.chat.b"]


def test_an_event_keeps_what_decided_it(path: Path) -> None:
    detail = {"rule": "fill", "inputs": {"replicas": 2, "until": 1.5}, "refused": [["wait", "too late"]]}
    event = Store(path).record(1.0, "launch", "info", "chat", "t", detail=detail)
    plain = Store(path).record(1.0, "scale", "info", "chat", "t", 1000)
    assert Store(path).events() == [event, plain]
    assert (event.detail, plain.detail) == (detail, {})


def test_the_story_of_an_instance_is_its_own_and_whole(path: Path) -> None:
    store = Store(path)
    for number in range(6):
        store.record(float(number), "code", "info", f"k.hpc.chat.{number % 2}", str(number))
    assert [e.text for e in store.story("k.hpc.chat.1")] == ["1", "3", "5"]
    assert [e.text for e in store.events_of("k.hpc.chat.0", newest=2)] == ["2", "4"]
    assert store.story("k.hpc.chat") == []


def test_an_instance_is_known_while_its_record_or_its_story_is(path: Path) -> None:
    store = Store(path)
    store.save(FULL, ended("k.hpc.chat.old1", 5.0))
    store.record(1.0, "launch", "info", "k.hpc.chat.old1", "t")
    store.record(1.0, "scale", "info", "chat", "t")
    assert store.instance(FULL.id) == FULL
    assert store.instance("k.hpc.chat.none") is None
    store.forget_ended(before=10.0)
    assert store.instance("k.hpc.chat.old1") is None
    assert store.known_instances() == [FULL.id, "k.hpc.chat.old1"]


def test_a_flood_of_events_does_not_fill_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saia_engine.store.EVENTS_KEPT", 500)
    store = Store(path)
    store._db.execute("PRAGMA synchronous=OFF")
    for number in range(2000):
        store.record(0.0, "code", "info", "subject", str(number))
    kept = store.events(10_000)
    assert (len(kept), kept[0].seq) == (500, 1501)


def test_only_its_owner_may_read_it(path: Path) -> None:
    Store(path)
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import os, sys
from saia_engine.model import Instance, LaunchSpec
from saia_engine.store import Store
store = Store(sys.argv[1])
for number in range(100000):
    store.save(*(Instance(f"{kind}{number}", "chat", LaunchSpec(), "r", 1.0) for kind in "ij"))
    os.write(1, f"{number}\\n".encode())
"""


def test_after_kill_9_nothing_that_was_saved_is_missing_and_nothing_is_half(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(40)]
        os.kill(writer.pid, signal.SIGKILL)
        said += writer.stdout.read().splitlines()
    last = int(said[-1])
    found = set(Store(path).instances(0))
    assert {f"i{n}" for n in range(last + 1)} <= found
    assert {name[1:] for name in found if name[0] == "i"} == {name[1:] for name in found if name[0] == "j"}


def test_a_failed_write_leaves_the_old_record(path: Path) -> None:
    store = Store(path)
    store.save(FULL)
    store._db.execute("PRAGMA max_page_count = 1")  # the smallest it can be now: the disk is full
    big = Instance("big", "chat", LaunchSpec(script="x" * 500_000), "r", 1.0)
    with pytest.raises(JournalError, match="full"):
        store.save(ended(FULL.id, 1.0), big)
    assert store.instances(0) == {FULL.id: FULL}
    assert Store(path).instances(0) == {FULL.id: FULL}


def test_once_a_write_has_failed_all_do_until_it_is_opened_again(path: Path) -> None:
    store = Store(path)
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError, match="readonly"):
        store.save(FULL)
    store._db.execute("PRAGMA query_only = OFF")
    with pytest.raises(JournalError, match="readonly"):
        store.record(0.0, "c", "info", "s", "t")
    assert store.instances(0) == {}
    Store(path).save(FULL)


def test_a_read_only_journal_is_an_error_at_each_write(path: Path) -> None:
    store = Store(path)
    store._db.execute("PRAGMA query_only = ON")
    for write in (
        lambda: store.save(FULL),
        lambda: store.record(0.0, "c", "info", "s", "t"),
        lambda: store.set_override(Override("chat", 1, 0, 0.0)),
        lambda: store.clear_override("chat"),
        lambda: store.set_proxy("cloud", ProxyWish(1, True)),
        lambda: store.forget_ended(1e12),
        lambda: store.set_pin(PIN),
        lambda: store.clear_pin("chat"),
        lambda: store.set_exclusion(EXCLUSION),
        lambda: store.clear_exclusion("gpu01"),
        lambda: store.add_sample(WaitSample(1.0, "chat", "gpu", 2.0)),
        lambda: store.save_revision(revision("aa", 1.0)),
        lambda: store.set_mark("thawed", 1.0),
    ):
        with pytest.raises(JournalError, match=str(path)):
            write()


@pytest.mark.parametrize(
    "damage", [b"this is no database, but it is long enough to look like one" * 20, None]
)
def test_a_damaged_journal_is_refused_and_the_way_out_is_named(path: Path, damage: bytes | None) -> None:
    store = Store(path)
    store.save(*(Instance(f"i{n}", "chat", LaunchSpec(), "r", 1.0) for n in range(200)))
    store.close()
    whole = bytearray(path.read_bytes())
    path.write_bytes(damage or whole[:4096] + os.urandom(len(whole) - 8192) + whole[-4096:])
    with pytest.raises(JournalError, match="saia-engine rebuild --config FILE"):
        Store(path)


def test_a_newer_schema_is_refused_and_left_as_it_is(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another version"):
        Store(path)
    assert path.read_bytes() == before


def journal_of_schema(version: int, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.executescript((JOURNALS / f"schema-{version}.sql").read_text(encoding="utf-8"))


def schema_of(path: Path) -> list[tuple[str, ...]]:
    with sqlite3.connect(path) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        rows = db.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
        return [(str(version),), *rows]


def test_a_journal_of_the_first_schema_becomes_one_of_today_with_all_it_held(path: Path) -> None:
    journal_of_schema(1, path)
    store = Store(path)
    found = store.instances(ended_after=0.0)
    assert {name: i.state for name, i in found.items()} == {
        "k1.hpc.chat.aa01": State.READY,
        "k1.hpc.chat.aa02": State.DRAINING,
        "k1.hpc.embed.bb01": State.INTENDED,
        "k1.hpc.chat.aa00": State.FAILED,
    }
    first = found["k1.hpc.chat.aa01"]
    assert (first.job_id, first.end_time, first.timing.lead_floor_s) == (41, 8210.0, 700.0)
    assert (first.first_ready_at, first.replace_asked, first.log_tail) == (None, False, "")
    assert first.timing.startup_deadline_s == Timing().startup_deadline_s
    assert found["k1.hpc.chat.aa02"].drain == Drain(DrainKind.OPERATOR, 2400.0)
    assert store.overrides() == {"chat": Override("chat", 3, 1000, 1500.0)}
    assert store.proxies() == {"cloud": ProxyWish(2, True)}
    assert [(e.seq, e.code, e.uid, e.detail) for e in store.events()] == [
        (1, "launch", None, {}),
        (2, "scale", 1000, {}),
    ]
    store.save_revision(revision("aa", 1.0))
    store.record(1.0, "code", "info", "s", "t", detail={"rule": "fill"})
    store.save(FULL)
    store.close()
    new = path.with_name("new.db")
    Store(new).close()
    assert schema_of(path) == schema_of(new)
    assert Store(path).instances(0.0) == {**found, FULL.id: FULL}


def test_a_journal_of_the_second_schema_keeps_its_proxies_and_takes_orders_for_keys(path: Path) -> None:
    journal_of_schema(2, path)
    store = Store(path)
    assert store.proxies() == {"cloud": ProxyWish(2, True)}
    assert (store.marks(), [e.uid for e in store.events()]) == ({"unfrozen": 5.0}, [1000])
    store.set_proxy("cloud", WISH)
    assert Store(path).proxies() == {"cloud": WISH}


def test_a_journal_of_the_third_schema_takes_pauses(path: Path) -> None:
    journal_of_schema(3, path)
    store = Store(path)
    assert store.overrides() == {"chat": Override("chat", 3, 1000, 1500.0)}
    assert (store.pauses(), store.proxies()["cloud"].revision) == ({}, 2)
    pause = Pause("chat", 1000, 1600.0, "no GPUs")
    store.set_pause(pause)
    assert Store(path).pauses() == {"chat": pause}
    store.clear_pause("chat")
    assert Store(path).pauses() == {}
    new = path.with_name("new.db")
    Store(new).close()
    assert schema_of(path) == schema_of(new)


def test_a_journal_of_the_fourth_schema_takes_acknowledgements(path: Path) -> None:
    journal_of_schema(4, path)
    store = Store(path)
    assert (store.pauses(), store.acks()) == ({"chat": Pause("chat", 1000, 1600.0)}, {})
    ack = Ack("proxy-away:cloud", 1000, 1700.0, "warning", "the cloud is upgraded")
    store.set_ack(ack)
    assert Store(path).acks() == {ack.alarm: ack}
    store.clear_ack(ack.alarm)
    assert Store(path).acks() == {}
    new = path.with_name("new.db")
    Store(new).close()
    assert schema_of(path) == schema_of(new)


def test_a_migration_that_fails_half_way_leaves_the_old_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal_of_schema(1, path)
    before = schema_of(path)
    steps = journal_schema.steps_from(1)
    monkeypatch.setattr(journal_schema, "steps_from", lambda version: (*steps[:4], "no SQL at all"))
    with pytest.raises(JournalError, match="syntax error"):
        Store(path)
    assert schema_of(path) == before
    monkeypatch.undo()
    assert len(Store(path).instances(0.0)) == 4


def test_a_journal_in_memory_lives_while_one_connection_does() -> None:
    name = "file:journal-in-memory?mode=memory&cache=shared"
    first = Store(name)
    first.save(FULL)
    second = Store(name)
    first.close()
    assert second.instances(0.0) == {FULL.id: FULL}
    second.close()
    assert Store(name).instances(0.0) == {}


class Crash(Exception):
    pass


def test_a_crash_before_a_write_loses_it_and_one_after_keeps_it(path: Path) -> None:
    seen: list[str] = []
    crash_at = ""

    def hook(what: str) -> None:
        seen.append(what)
        if what == crash_at:
            raise Crash(what)

    Store(path, hook).save(FULL)
    assert seen == ["before migrate", "after migrate", "before save", "after save"]
    crash_at = "before save"
    with pytest.raises(Crash):
        Store(path, hook).save(ended(FULL.id, 9.0))
    assert Store(path).instances(0.0) == {FULL.id: FULL}
    crash_at = "after save"
    with pytest.raises(Crash):
        Store(path, hook).save(ended(FULL.id, 9.0))
    assert Store(path).instances(0.0)[FULL.id].state is State.STOPPED


def test_a_disk_that_a_hook_calls_full_is_a_journal_error(path: Path) -> None:
    def full(what: str) -> None:
        if what == "before record":
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(JournalError, match=r"disk is full$"):
        Store(path, full).record(0.0, "c", "info", "s", "t")


def test_a_directory_that_is_not_there_is_a_journal_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        Store(tmp_path / "nowhere" / "state.db")
