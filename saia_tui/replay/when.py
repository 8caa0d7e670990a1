"""The moments that an operator names: `03:12`, `-8h`, `2026-11-27T03:12`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from saia_engine.edge.durations import parse

_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII)
_AGO = re.compile(r"-(.*[a-z:].*)|(.*[a-z:].*) ago")
"""With a unit: nobody should have to know what a bare number is."""
LAST_NIGHT_S = 8 * 3600.0
HOW = "write 03:12, -8h (so long ago) or 2026-11-27T03:12"


def when(words: str, now: float) -> float:
    """The moment meant, in this host's time; a time of day is the last one that has been. Raises ValueError."""
    words = words.strip()
    try:
        if match := _CLOCK.fullmatch(words):
            hour, minute, second = (int(part or 0) for part in match.groups())
            return _time_of_day(hour, minute, second, now)
        if match := _AGO.fullmatch(words):
            return now - parse(match[1] or match[2])
        return datetime.fromisoformat(words).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"that is no moment: {HOW}") from None


def _time_of_day(hour: int, minute: int, second: int, now: float) -> float:
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
    moment = today if today.timestamp() <= now else today - timedelta(days=1)
    return moment.timestamp()
