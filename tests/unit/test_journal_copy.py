"""Reading the journal without its engine leaves it as it is."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from saia_engine.journal_copy import copied
from saia_engine.model import Instance, LaunchSpec
from saia_engine.store import JournalError, Store
from tests.unit.test_store import JOURNALS


def record(name: str) -> Instance:
    return Instance(name, "chat", LaunchSpec(), "r", 1.0)


def test_a_copy_holds_what_the_journal_holds_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    store.save(record("a"))
    before = path.read_bytes()
    with copied(path) as copy:
        store.save(record("b"))  # the engine is not held up
        assert set(copy.instances(0.0)) == {"a"}
        copy.save(record("c"))
    assert path.read_bytes() != before
    assert set(store.instances(0.0)) == {"a", "b"}


def test_an_older_journal_can_be_read_and_stays_old(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.executescript((JOURNALS / "schema-1.sql").read_text(encoding="utf-8"))
    before = path.read_bytes()
    with copied(path) as copy:
        assert len(copy.instances(0.0)) == 4
    assert path.read_bytes() == before


CUT_SHORT = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
for number in range(2000):
    db.execute("INSERT INTO marks VALUES (?, ?)", (f"half {number} " + "x" * 500, 1.0))
os.write(1, b"written\\n")
sys.stdin.read()
"""


def test_a_write_that_was_cut_short_by_kill_9_is_undone_in_the_copy_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    store.save(record("a"))
    store.close()
    with subprocess.Popen(
        [sys.executable, "-c", CUT_SHORT, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as writer:
        assert writer.stdout
        writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
    cut = path.read_bytes()
    assert b"half 7 " in cut
    with copied(path) as copy:
        assert (set(copy.instances(0.0)), copy.marks()) == ({"a"}, {})
    assert path.read_bytes() == cut


def test_a_damaged_or_absent_journal_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError, match=f"{path}.*saia-engine rebuild"), copied(path):
        pass
    with pytest.raises(FileNotFoundError), copied(tmp_path / "absent.db"):
        pass
