"""The journal: SQLite on a local disk, one writer. An intent is durable here before its act.

`journal_mode=DELETE, synchronous=EXTRA`: WAL is not safe on network file systems, and a commit that the
disk may forget is no intent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from saia_engine import journal_schema
from saia_engine.model import Ack, Exclusion, Instance, Override, Pause, Pin, Revision, WaitSample
from saia_engine.wire.messages import KeyOrder

EVENTS_KEPT = 100_000
EVENTS_SEARCHED = 20_000
"""By one question for older ones: so it holds up nobody, however few are wanted."""
SAMPLES_KEPT = 2000
"""Of each service."""
REVISIONS_KEPT = 10
"""Of each service."""
BUSY_S = 2.0
Record = TypeVar("Record")
_EVENT = "seq, at, code, severity, subject, text, uid, detail"
_decode_instance = msgspec.json.Decoder(Instance).decode
_decode_override = msgspec.json.Decoder(Override).decode
_decode_ack = msgspec.json.Decoder(Ack).decode
_decode_pause = msgspec.json.Decoder(Pause).decode
_decode_sample = msgspec.json.Decoder(WaitSample).decode
_decode_revision = msgspec.json.Decoder(Revision).decode
_decode_pin = msgspec.json.Decoder(Pin).decode
_decode_exclusion = msgspec.json.Decoder(Exclusion).decode


class JournalError(Exception):
    """The journal can't be read or written: the engine must stop acting (promise 19)."""


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What an operator wants of one API key of a proxy."""

    order: KeyOrder
    uid: int
    at: float


@dataclass(frozen=True, slots=True)
class ProxyWish:
    """What the operators want of one proxy; the revision grows with each change, the last of which was then."""

    revision: int = 0
    maintenance: bool = False
    keys: dict[str, KeyWish] = field(default_factory=dict)
    """By name; of all others their configuration."""
    at: float = 0.0


_decode_keys = msgspec.json.Decoder(dict[str, KeyWish]).decode


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
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Of an act: its rule, the inputs that decided it, and the alternatives that were refused."""


Connect = Callable[[Path | str], sqlite3.Connection]
"""Opens a database for this process alone to write; commits by hand."""


class Store:
    """All methods raise JournalError. Once a write has failed, all that follow do: half a story would mislead."""

    def __init__(
        self,
        path: Path | str,
        on_commit: Callable[[str], None] = lambda what: None,
        *,
        connect: Connect | None = None,
    ) -> None:
        """`path` may be a `file:` URI of SQLite's; `connect` opens it in another way.

        `on_commit` is called with 'before save', 'after save', ... around each durable write. What it raises
        before a write undoes it; an `sqlite3.Error` counts as the write's own.
        """
        self.path = path
        self._on_commit = on_commit
        self._failed = ""
        with self._guard("open"):
            self._db = (connect or _connect)(path)
            self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.execute("PRAGMA synchronous=EXTRA")
            damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > journal_schema.VERSION:
                raise JournalError(f"{path}: made by another version of saia (schema {version})")
        if version < journal_schema.VERSION:
            with self._write("migrate"):
                for statement in journal_schema.steps_from(version):
                    self._db.execute(statement)

    # -- instances

    def save(self, *instances: Instance) -> None:
        """Durable when it returns."""
        with self._write("save"):
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

    def instance(self, name: str) -> Instance | None:
        """Its record, whenever it ended; None where there is none any more."""
        with self._guard("read"):
            row = self._db.execute("SELECT record FROM instances WHERE id = ?", (name,)).fetchone()
            return _decode_instance(row[0]) if row else None

    def instances_of(self, service: str) -> list[Instance]:
        """All records of one service, the one made first at the top."""
        with self._guard("read"):
            rows = self._db.execute("SELECT record FROM instances WHERE id LIKE ?", (f"%.{service}.%",))
            found = [_decode_instance(row[0]) for row in rows.fetchall()]
            return sorted((i for i in found if i.service == service), key=lambda i: i.created_at)

    def known_instances(self) -> list[str]:
        """The ids of all that have a record, or at least a story."""
        with self._guard("read"):
            rows = self._db.execute(
                "SELECT id FROM instances UNION SELECT DISTINCT subject FROM events"
                " WHERE subject LIKE '%.%.%.%' ORDER BY 1"
            ).fetchall()
            return [row[0] for row in rows]

    def forget_ended(self, before: float) -> list[str]:
        """Drop the records of instances that ended before; returns their ids."""
        with self._write("forget_ended"):
            rows = self._db.execute(
                "DELETE FROM instances WHERE ended_at IS NOT NULL AND ended_at < ? RETURNING id", (before,)
            ).fetchall()
            return [row[0] for row in rows]

    # -- what operators want

    def set_override(self, override: Override) -> None:
        self._put("set_override", "overrides", override.service, override)

    def clear_override(self, service: str) -> None:
        with self._write("clear_override"):
            self._db.execute("DELETE FROM overrides WHERE service = ?", (service,))

    def overrides(self) -> dict[str, Override]:
        return {o.service: o for o in self._all("overrides", _decode_override)}

    def set_pause(self, pause: Pause) -> None:
        self._put("set_pause", "pauses", pause.service, pause)

    def clear_pause(self, service: str) -> None:
        with self._write("clear_pause"):
            self._db.execute("DELETE FROM pauses WHERE service = ?", (service,))

    def pauses(self) -> dict[str, Pause]:
        return {pause.service: pause for pause in self._all("pauses", _decode_pause)}

    def set_ack(self, ack: Ack) -> None:
        self._put("set_ack", "acks", ack.alarm, ack)

    def clear_ack(self, alarm: str) -> None:
        with self._write("clear_ack"):
            self._db.execute("DELETE FROM acks WHERE alarm = ?", (alarm,))

    def acks(self) -> dict[str, Ack]:
        return {ack.alarm: ack for ack in self._all("acks", _decode_ack)}

    def set_pin(self, pin: Pin) -> None:
        self._put("set_pin", "pins", pin.service, pin)

    def clear_pin(self, service: str) -> None:
        with self._write("clear_pin"):
            self._db.execute("DELETE FROM pins WHERE service = ?", (service,))

    def pins(self) -> dict[str, Pin]:
        return {pin.service: pin for pin in self._all("pins", _decode_pin)}

    def set_exclusion(self, exclusion: Exclusion) -> None:
        self._put("set_exclusion", "exclusions", exclusion.node, exclusion)

    def clear_exclusion(self, node: str) -> None:
        with self._write("clear_exclusion"):
            self._db.execute("DELETE FROM exclusions WHERE node = ?", (node,))

    def exclusions(self) -> dict[str, Exclusion]:
        return {exclusion.node: exclusion for exclusion in self._all("exclusions", _decode_exclusion)}

    def set_proxy(self, name: str, wish: ProxyWish) -> None:
        with self._write("set_proxy"):
            self._db.execute(
                "INSERT OR REPLACE INTO proxies (name, revision, maintenance, keys, at)"
                " VALUES (?, ?, ?, ?, ?)",
                (name, wish.revision, wish.maintenance, msgspec.json.encode(wish.keys), wish.at),
            )

    def proxies(self) -> dict[str, ProxyWish]:
        with self._guard("read"):
            rows = self._db.execute("SELECT name, revision, maintenance, keys, at FROM proxies").fetchall()
            return {
                name: ProxyWish(revision, bool(maintenance), _decode_keys(keys), at)
                for name, revision, maintenance, keys, at in rows
            }

    def set_mark(self, name: str, at: float) -> None:
        """A small durable fact: when something last happened."""
        with self._write("set_mark"):
            self._db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, at))

    def marks(self) -> dict[str, float]:
        with self._guard("read"):
            return dict(self._db.execute("SELECT name, at FROM marks").fetchall())

    # -- what was learned

    def add_sample(self, sample: WaitSample) -> None:
        """Of each service only the newest `SAMPLES_KEPT` stay."""
        with self._write("add_sample"):
            self._db.execute(
                "INSERT INTO samples (at, service, record) VALUES (?, ?, ?)",
                (sample.at, sample.service, msgspec.json.encode(sample)),
            )
            self._db.execute(
                "DELETE FROM samples WHERE service = ?1 AND seq <= (SELECT seq FROM samples"
                " WHERE service = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                (sample.service, SAMPLES_KEPT),
            )

    def samples(self, after: float) -> tuple[WaitSample, ...]:
        """Those taken after that time, oldest first."""
        with self._guard("read"):
            rows = self._db.execute("SELECT record FROM samples WHERE at > ? ORDER BY at, seq", (after,))
            return tuple(_decode_sample(row[0]) for row in rows.fetchall())

    def save_revision(self, revision: Revision, keep: frozenset[str] = frozenset()) -> None:
        """Its spec is redacted here. Of its service only the newest `REVISIONS_KEPT` stay, with those in
        `keep` (in use) and the last good one, however old."""
        record = replace(revision, spec=revision.spec.redacted())
        with self._write("save_revision"):
            self._db.execute(
                "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?)",
                (record.service, record.revision, record.since, msgspec.json.encode(record)),
            )
            history = self.revisions_of(record.service)
            wanted = {r.revision for r in history[-REVISIONS_KEPT:]} | keep | {record.revision}
            good = [r for r in history if r.good_at is not None and (r.failed_at or 0.0) < r.good_at]
            wanted |= {max(good, key=lambda r: r.good_at or 0.0).revision} if good else set()
            self._db.executemany(
                "DELETE FROM revisions WHERE service = ? AND revision = ?",
                [(r.service, r.revision) for r in history if r.revision not in wanted],
            )

    def revisions_of(self, service: str) -> tuple[Revision, ...]:
        """The one asked for longest ago first."""
        with self._guard("read"):
            rows = self._db.execute(
                "SELECT record FROM revisions WHERE service = ? ORDER BY since, rowid", (service,)
            )
            return tuple(_decode_revision(row[0]) for row in rows.fetchall())

    def revisions(self) -> dict[str, tuple[Revision, ...]]:
        """Of each service, the one asked for longest ago first."""
        found: dict[str, list[Revision]] = {}
        for revision in self._all("revisions", _decode_revision, "ORDER BY since, rowid"):
            found.setdefault(revision.service, []).append(revision)
        return {service: tuple(history) for service, history in found.items()}

    # -- events

    def record(
        self,
        at: float,
        code: str,
        severity: str,
        subject: str,
        text: str,
        uid: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Event:
        """Append an event and return it with its number."""
        detail = detail or {}
        with self._write("record"):
            cursor = self._db.execute(
                "INSERT INTO events (at, code, severity, subject, text, uid, detail)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (at, code, severity, subject, text, uid, msgspec.json.encode(detail).decode()),
            )
            seq = cursor.lastrowid or 0
            if seq % 1000 == 0:
                self._db.execute("DELETE FROM events WHERE seq <= ?", (seq - EVENTS_KEPT,))
        return Event(seq, at, code, severity, subject, text, uid, detail)

    def events(self, newest: int = 500) -> list[Event]:
        """The newest ones, oldest first."""
        return self._events("ORDER BY seq DESC LIMIT ?", (newest,))[::-1]

    def events_before(
        self, before: int, most: int, *, operators: bool = False, severities: Sequence[str] = ()
    ) -> tuple[list[Event], int]:
        """The newest before that number, newest first: at most so many, of operators only or of these severities where
        asked; and the number to go on before, 0 at the end. It looks through a bounded piece of the journal."""
        with self._guard("read"):
            oldest, newest = self._db.execute("SELECT min(seq), max(seq) FROM events").fetchone()
        before = min(before, (newest or 0) + 1)
        first = max(0, before - EVENTS_SEARCHED)
        which, values = "WHERE seq < ? AND seq >= ?", [before, first]
        if operators:
            which += " AND uid IS NOT NULL"
        if severities:
            which += f" AND severity IN ({', '.join('?' * len(severities))})"
        found = self._events(f"{which} ORDER BY seq DESC LIMIT ?", (*values, *severities, most))
        if len(found) == most:
            return found, found[-1].seq
        return found, first if first > (oldest or 0) else 0

    def events_of(self, subject: str, newest: int) -> list[Event]:
        """The newest ones of one service, node or instance, oldest first."""
        return self._events("WHERE subject = ? ORDER BY seq DESC LIMIT ?", (subject, newest))[::-1]

    def story(self, instance: str) -> list[Event]:
        """All that happened to it, oldest first."""
        return self._events("WHERE subject = ? ORDER BY seq", (instance,))

    def _events(self, which: str, values: tuple[object, ...]) -> list[Event]:
        with self._guard("read"):
            rows = self._db.execute(f"SELECT {_EVENT} FROM events {which}", values).fetchall()
            return [Event(*row[:-1], detail=msgspec.json.decode(row[-1])) for row in rows]

    # -- the file

    def read_all(self) -> None:
        """Whether every record can be read. Raises JournalError."""
        self.instances(0.0)
        self.overrides()
        self.pauses()
        self.acks()
        self.pins()
        self.exclusions()
        self.proxies()
        self.marks()
        self.samples(0.0)
        self.revisions()
        self.events(EVENTS_KEPT)

    def close(self) -> None:
        self._db.close()

    def _put(self, what: str, table: str, key: str, record: object) -> None:
        with self._write(what):
            self._db.execute(
                f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (key, msgspec.json.encode(record))
            )

    def _all(self, table: str, decode: Callable[[bytes], Record], order: str = "") -> list[Record]:
        with self._guard("read"):
            rows = self._db.execute(f"SELECT record FROM {table} {order}").fetchall()
            return [decode(row[0]) for row in rows]

    @contextmanager
    def _write(self, what: str) -> Iterator[None]:
        """One transaction: all of it is durable at the end, or nothing."""
        if self._failed:
            raise JournalError(self._failed)
        try:
            with self._guard("write"):
                self._on_commit(f"before {what}")
                with self._transaction():
                    yield
                self._on_commit(f"after {what}")
        except JournalError as exc:
            self._failed = str(exc)
            raise

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


def _connect(path: Path | str) -> sqlite3.Connection:
    name = str(path)
    is_uri = name.startswith("file:")
    db = sqlite3.connect(name, isolation_level=None, timeout=BUSY_S, uri=is_uri)
    if not is_uri and name != ":memory:":
        Path(name).chmod(0o600)
    return db


def _advice(fault: Exception) -> str:
    if isinstance(fault, sqlite3.OperationalError | OSError):
        return ""  # a full or read-only disk, a lock: it says so itself
    return (
        "; if it is damaged, run: saia-engine rebuild --config FILE"
        " (it moves this file aside and makes a new one from Slurm and the instance directories)"
    )
