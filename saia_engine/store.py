"""The journal: SQLite on a local disk, one writer. An intent is durable here before its act.

`journal_mode=DELETE, synchronous=EXTRA`: WAL is not safe on network file systems, and a commit that the
disk may forget is no intent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from saia_engine.model import Instance, Override

SCHEMA_VERSION = 1
EVENTS_KEPT = 100_000
_SCHEMA = """
CREATE TABLE instances (id TEXT PRIMARY KEY, ended_at REAL, record BLOB NOT NULL);
CREATE INDEX instances_ended ON instances (ended_at);
CREATE TABLE overrides (service TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE proxies (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, maintenance INTEGER NOT NULL);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, code TEXT NOT NULL,
    severity TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL, uid INTEGER);
"""
_decode_instance = msgspec.json.Decoder(Instance).decode
_decode_override = msgspec.json.Decoder(Override).decode


class JournalError(Exception):
    """The journal can't be read or written: the engine must stop acting (promise 19)."""


@dataclass(frozen=True, slots=True)
class ProxyWish:
    """What the operators want of one proxy; the revision grows with each change."""

    revision: int = 0
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for operators and audit. `uid` is who caused it; None is the engine."""

    seq: int
    at: float
    code: str
    severity: str
    subject: str
    text: str
    uid: int | None = None


Connect = Callable[[Path | str], sqlite3.Connection]
"""Opens a database for this process alone to write; commits by hand."""


def _open(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=2.0)
    if path != ":memory:":
        Path(path).chmod(0o600)
    return database


class Store:
    """All methods raise JournalError."""

    def __init__(self, path: Path | str, connect: Connect = _open) -> None:
        self.path = path
        with self._guard("open"):
            self._db = connect(path)
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=EXTRA")
            damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with self._transaction():
                    for statement in _SCHEMA.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise JournalError(f"{path}: made by another version of saia (schema {version})")

    def save(self, *instances: Instance) -> None:
        """Durable when it returns."""
        with self._guard("write"), self._transaction():
            self._db.executemany(
                "INSERT INTO instances VALUES (?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET ended_at = excluded.ended_at, record = excluded.record",
                [(i.id, i.ended_at, msgspec.json.encode(i)) for i in instances],
            )

    def instances(self, ended_after: float) -> dict[str, Instance]:
        """All live ones, and those that ended after that time."""
        with self._guard("read"):
            rows = self._db.execute(
                "SELECT record FROM instances WHERE ended_at IS NULL OR ended_at > ?", (ended_after,)
            ).fetchall()
            return {i.id: i for i in (_decode_instance(row[0]) for row in rows)}

    def forget_ended(self, before: float) -> list[str]:
        """Drop the records of instances that ended before; returns their ids."""
        with self._guard("write"), self._transaction():
            rows = self._db.execute(
                "DELETE FROM instances WHERE ended_at IS NOT NULL AND ended_at < ? RETURNING id", (before,)
            ).fetchall()
            return [row[0] for row in rows]

    def set_override(self, override: Override) -> None:
        with self._guard("write"):
            self._db.execute(
                "INSERT OR REPLACE INTO overrides VALUES (?, ?)",
                (override.service, msgspec.json.encode(override)),
            )

    def clear_override(self, service: str) -> None:
        with self._guard("write"):
            self._db.execute("DELETE FROM overrides WHERE service = ?", (service,))

    def overrides(self) -> dict[str, Override]:
        with self._guard("read"):
            rows = self._db.execute("SELECT record FROM overrides").fetchall()
            return {o.service: o for o in (_decode_override(row[0]) for row in rows)}

    def set_proxy(self, name: str, wish: ProxyWish) -> None:
        with self._guard("write"):
            self._db.execute(
                "INSERT OR REPLACE INTO proxies VALUES (?, ?, ?)", (name, wish.revision, wish.maintenance)
            )

    def proxies(self) -> dict[str, ProxyWish]:
        with self._guard("read"):
            rows = self._db.execute("SELECT name, revision, maintenance FROM proxies").fetchall()
            return {name: ProxyWish(revision, bool(maintenance)) for name, revision, maintenance in rows}

    def record(
        self, at: float, code: str, severity: str, subject: str, text: str, uid: int | None = None
    ) -> Event:
        """Append an event and return it with its number."""
        with self._guard("write"):
            cursor = self._db.execute(
                "INSERT INTO events (at, code, severity, subject, text, uid) VALUES (?, ?, ?, ?, ?, ?)",
                (at, code, severity, subject, text, uid),
            )
            seq = cursor.lastrowid or 0
            if seq % 1000 == 0:
                self._db.execute("DELETE FROM events WHERE seq <= ?", (seq - EVENTS_KEPT,))
            return Event(seq, at, code, severity, subject, text, uid)

    def events(self, newest: int = 500) -> list[Event]:
        """The newest ones, oldest first."""
        with self._guard("read"):
            rows = self._db.execute(
                "SELECT seq, at, code, severity, subject, text, uid FROM events ORDER BY seq DESC LIMIT ?",
                (newest,),
            ).fetchall()
            return [Event(*row) for row in reversed(rows)]

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself at a full disk
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _guard(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as exc:
            raise JournalError(f"cannot {verb} the journal {self.path}: {exc}{_advice(exc)}") from exc


def _advice(fault: Exception) -> str:
    if isinstance(fault, sqlite3.OperationalError | OSError):
        return ""  # a full or read-only disk, a lock: it says so itself
    return (
        "; if it is damaged, move it away and start the engine again:"
        " it adopts its jobs from Slurm and the instance directories"
    )
