"""The journal: durable, whole after a crash, and loud when it can't be written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from saia_engine.model import Drain, DrainKind, Instance, LaunchSpec, Override, State, Timing
from saia_engine.store import JournalError, ProxyWish, Store

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
    drain=Drain(DrainKind.HANDOVER, 1090.0),
    timing=Timing(drain_deadline_s=77),
)


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
    store.set_proxy("cloud", ProxyWish(3, True))
    again = Store(path)
    assert again.overrides() == {"chat": Override("chat", 4, 1000, 6.0)}
    assert again.proxies() == {"cloud": ProxyWish(3, True)}


def test_events_are_numbered_and_the_newest_come_last(path: Path) -> None:
    store = Store(path)
    for number in range(5):
        store.record(float(number), "code", "info", "subject", f"text {number}", uid=number or None)
    newest = Store(path).events(2)
    assert [(e.seq, e.text, e.uid) for e in newest] == [(4, "text 3", 3), (5, "text 4", 4)]


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
    with pytest.raises(JournalError, match="move it away"):
        Store(path)


def test_a_newer_schema_is_refused(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="another version"):
        Store(path)


def test_a_directory_that_is_not_there_is_a_journal_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        Store(tmp_path / "nowhere" / "state.db")
