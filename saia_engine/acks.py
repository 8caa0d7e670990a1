"""Who has taken up which alarm. An acknowledgement lasts as long as its alarm, also through a restart of the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from saia_engine.model import Ack, Severity
from saia_engine.store import Store
from saia_engine.view import AlarmView

COMES_BACK_WITHIN_S = 900.0
"""After a start an alarm may take so long to be raised again, and is still the same."""


class Acks:
    """Writes raise JournalError."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._held = store.acks()
        self._started_at = now()
        self._shown: set[str] = set()

    def acknowledge(self, alarm: AlarmView, uid: int, because: str) -> Ack:
        key = f"{alarm.code}:{alarm.subject}"
        ack = Ack(key, uid, self._now(), alarm.severity, because)
        self._store.set_ack(ack)
        self._held[key] = ack
        return ack

    def withdraw(self, key: str) -> bool:
        """False where nobody had taken it up."""
        if key not in self._held:
            return False
        self._store.clear_ack(key)
        del self._held[key]
        return True

    def settle(self, alarms: Mapping[str, AlarmView]) -> None:
        """Forget what was taken up and is over; to be told of all alarms that hold, at each change."""
        over = (self._shown - alarms.keys()) & self._held.keys()
        if self._now() - self._started_at > COMES_BACK_WITHIN_S:
            over |= self._held.keys() - alarms.keys()
        over |= {key for key in self._held.keys() & alarms.keys() if self._is_worse(alarms[key])}
        for key in over:
            self.withdraw(key)
        self._shown = set(alarms)

    def marked(self, alarms: Mapping[str, AlarmView]) -> dict[str, AlarmView]:
        """Each with who took it up."""
        return {key: self._marked(key, alarm) for key, alarm in alarms.items()}

    def _is_worse(self, alarm: AlarmView) -> bool:
        """Who took up a warning has not taken up that it became critical."""
        ack = self._held[f"{alarm.code}:{alarm.subject}"]
        return alarm.severity == Severity.CRITICAL and ack.severity != Severity.CRITICAL

    def _marked(self, key: str, alarm: AlarmView) -> AlarmView:
        ack = self._held.get(key)
        if ack is None:
            return alarm
        return replace(alarm, acked_by=ack.uid, acked_at=ack.at, acked_because=ack.because)
