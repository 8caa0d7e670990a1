"""What of note happened between two samples: where one wants to go in a replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any

from saia_engine.model import Severity
from saia_engine.record.frames import Note

MOST = 40
"""In one sample."""
LONGEST = 200


class NoteTaker:
    """Compares each sample with the one before; the first one only tells that the engine is there."""

    def __init__(self) -> None:
        self._critical: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._last_event: int | None = None

    def take(self, tables: Mapping[str, Mapping[str, Any]], touched: Mapping[str, Set[str]]) -> list[Note]:
        """`tables` by name with their rows; of `touched` are alarms, events and instances looked at."""
        first = self._last_event is None
        notes = [Note("engine", "engine", "the engine starts")] if first else []
        notes += self._alarms(tables["alarms"])
        notes += self._acts(tables["events"], tables["events"].keys() if first else touched["events"], first)
        changed = tables["instances"].keys() if first else touched["instances"]
        states = list(self._instances(tables["instances"], changed))
        return [_short(note) for note in (notes + ([] if first else states))[:MOST]]

    def _alarms(self, alarms: Mapping[str, Any]) -> Iterator[Note]:
        now = {key: alarm.text for key, alarm in alarms.items() if alarm.severity == Severity.CRITICAL}
        before, self._critical = self._critical, now
        yield from (Note("alarm", key, text) for key, text in now.items() if key not in before)
        yield from (Note("alarm-end", key, text) for key, text in before.items() if key not in now)

    def _acts(self, events: Mapping[str, Any], changed: Set[str], first: bool) -> Iterator[Note]:
        last = self._last_event or 0
        fresh = sorted(
            (events[key] for key in changed if key in events and events[key].seq > last),
            key=lambda event: event.seq,
        )
        self._last_event = fresh[-1].seq if fresh else last
        for event in () if first else fresh:
            if event.uid is not None:
                yield Note("act", event.subject, f"uid {event.uid}: {event.text}")

    def _instances(self, instances: Mapping[str, Any], changed: Set[str]) -> Iterator[Note]:
        for key in sorted(changed):
            row, before = instances.get(key), self._states.get(key, "")
            if row is None:
                self._states.pop(key, None)
            elif row.state != before:
                self._states[key] = row.state
                yield Note("instance", key, f"{before} -> {row.state}" if before else row.state)


def _short(note: Note) -> Note:
    return Note(note.kind, note.subject[:LONGEST], note.text[:LONGEST])
