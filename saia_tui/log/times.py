"""Times in log lines, and the places that an operator names: an offset, a share, so long ago."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from saia_engine.edge.durations import parse
from saia_engine.edge.sizes import parse_bytes

_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,]\d{1,9})?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_SHORT = re.compile(r"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b", re.ASCII)
"""Without a year, as vLLM writes it."""
_SEARCHED = 200
"""Characters; a time further on is part of the message."""
_SHARE = re.compile(r"(\d{1,3})(?:\.\d{1,3})?%", re.ASCII)
_AGO = re.compile(r"-(.+)|(.+?) ago")
_BARE = re.compile(r"\d{1,15}", re.ASCII)
_DAY_S = 86400.0


def time_of(text: str, now: float) -> float | None:
    """When a line was written, if it says so; without a zone it is taken for this host's time."""
    head = text[:_SEARCHED]
    try:
        if match := _ISO.search(head):
            year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
            return _with_zone(datetime(year, month, day, hour, minute, second), match[7])
        if match := _SHORT.search(head):
            month, day, hour, minute, second = (int(part) for part in match.groups())
            year = time.localtime(now).tm_year
            at = datetime(year, month, day, hour, minute, second).timestamp()
            # In January a line of December is of last year.
            return (
                at if at <= now + _DAY_S else datetime(year - 1, month, day, hour, minute, second).timestamp()
            )
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _with_zone(moment: datetime, zone: str | None) -> float:
    if zone is None:
        return moment.timestamp()
    if zone == "Z":
        return moment.replace(tzinfo=UTC).timestamp()
    sign = -1 if zone[0] == "-" else 1
    digits = zone[1:].replace(":", "")
    east_s = sign * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)
    return moment.replace(tzinfo=UTC).timestamp() - east_s


def place(words: str, size: int, now: float) -> int | float:
    """What `words` name in a log of `size` bytes: an offset (int), or a moment (float).

    `50%`, `1500000` (bytes), `1.5GiB`, `-10m` or `10m ago`. Raises ValueError, whose text is for the operator.
    """
    words = words.strip()
    if match := _SHARE.fullmatch(words):
        return min(size, int(float(words[:-1]) / 100 * size))
    if _BARE.fullmatch(words):
        return min(size, int(words))
    if match := _AGO.fullmatch(words):
        return now - float(parse(match[1] or match[2]))
    try:
        return min(size, parse_bytes(words))
    except ValueError:
        raise ValueError("write 50%, 1500000 (bytes), 1.5GiB or -10m (so long ago)") from None
