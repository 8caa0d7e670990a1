"""The tables of the journal, and how a journal of an older saia becomes one of today's."""

from __future__ import annotations

_FIRST = (
    "CREATE TABLE instances (id TEXT PRIMARY KEY, ended_at REAL, record BLOB NOT NULL)",
    "CREATE INDEX instances_ended ON instances (ended_at)",
    "CREATE TABLE overrides (service TEXT PRIMARY KEY, record BLOB NOT NULL)",
    "CREATE TABLE proxies (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, maintenance INTEGER NOT NULL)",
    "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, code TEXT NOT NULL,"
    " severity TEXT NOT NULL, subject TEXT NOT NULL, text TEXT NOT NULL, uid INTEGER)",
)
_SECOND = (
    "ALTER TABLE events ADD COLUMN detail TEXT NOT NULL DEFAULT '{}'",
    "CREATE INDEX events_subject ON events (subject, seq)",
    "CREATE TABLE samples (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, service TEXT NOT NULL,"
    " record BLOB NOT NULL)",
    "CREATE INDEX samples_service ON samples (service, seq)",
    "CREATE TABLE revisions (service TEXT NOT NULL, revision TEXT NOT NULL, since REAL NOT NULL,"
    " record BLOB NOT NULL, PRIMARY KEY (service, revision))",
    "CREATE TABLE pins (service TEXT PRIMARY KEY, record BLOB NOT NULL)",
    "CREATE TABLE exclusions (node TEXT PRIMARY KEY, record BLOB NOT NULL)",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, at REAL NOT NULL)",
)
_THIRD = (
    "ALTER TABLE proxies ADD COLUMN keys BLOB NOT NULL DEFAULT '{}'",
    "ALTER TABLE proxies ADD COLUMN at REAL NOT NULL DEFAULT 0",
)
_FOURTH = ("CREATE TABLE pauses (service TEXT PRIMARY KEY, record BLOB NOT NULL)",)
_FIFTH = ("CREATE TABLE acks (alarm TEXT PRIMARY KEY, record BLOB NOT NULL)",)
_STEPS = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
"""Step n makes a journal of schema n+1 out of one of schema n; 0 is an empty file."""
VERSION = len(_STEPS)


def steps_from(version: int) -> tuple[str, ...]:
    """The statements that bring a journal of that schema to `VERSION`; to be run in one transaction."""
    return (*(s for step in _STEPS[version:] for s in step), f"PRAGMA user_version={VERSION}")
