"""Which alarms hold now, and since when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from saia_engine.model import Alarm, Severity

Record = Callable[[str, Severity, str, str], None]
"""Takes an event: code, severity, subject, text."""


class Alarms:
    """The planner's alarms, which come anew with each plan, and those that others raise and clear."""

    def __init__(self, now: Callable[[], float], record: Record) -> None:
        self.current: dict[tuple[str, str], Alarm] = {}
        """By code and subject."""
        self._now = now
        self._record = record
        self._planned: tuple[Alarm, ...] = ()
        self._raised: dict[tuple[str, str], Alarm] = {}

    def plan(self, planned: tuple[Alarm, ...]) -> None:
        """All that the newest plan worries about."""
        if planned != self._planned:
            self._planned = planned
            self._compare()

    def worry(self, code: str, subject: str, text: str, severity: Severity = Severity.WARNING) -> None:
        """Raise an alarm, until `calm`."""
        alarm = Alarm(code, severity, subject, text)
        if self._raised.get((code, subject)) != alarm:
            self._raised[code, subject] = alarm
            self._compare()

    def calm(self, code: str, subject: str) -> None:
        if self._raised.pop((code, subject), None):
            self._compare()

    def calm_all_but(self, code: str, subjects: set[str]) -> None:
        """Clear the alarms of this code whose subject is not among these."""
        for raised, subject in list(self._raised):
            if raised == code and subject not in subjects:
                self.calm(code, subject)

    def _compare(self) -> None:
        now = self._now()
        wanted = {(a.code, a.subject): a for a in (*self._planned, *self._raised.values())}
        for key in [key for key in self.current if key not in wanted]:
            cleared = self.current.pop(key)
            self._record("alarm-cleared", Severity.INFO, cleared.subject, f"no longer: {cleared.text}")
        for key, alarm in wanted.items():
            before = self.current.get(key)
            self.current[key] = replace(alarm, since=before.since if before else now)
            if before is None:
                self._record(alarm.code, alarm.severity, alarm.subject, alarm.text)
