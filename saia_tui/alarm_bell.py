"""When to ring: once for each critical alarm that is new and that nobody has taken up."""

from __future__ import annotations

from collections.abc import Mapping

from saia_engine.model import Severity
from saia_engine.view import AlarmView


class AlarmBell:
    """What stands on the screen when it opens is read there, and does not ring."""

    def __init__(self) -> None:
        self._known: set[str] | None = None

    def rings(self, alarms: Mapping[str, AlarmView]) -> bool:
        """Whether one of these is worth a ring; to be asked at each change. One that clears may ring again."""
        critical = {key for key, alarm in alarms.items() if alarm.severity == Severity.CRITICAL}
        new = critical - (critical if self._known is None else self._known)
        self._known = critical
        return any(alarms[key].acked_by is None for key in new)
