"""Times as an operator reads them: countdowns and ages, seconds only where they matter."""

from __future__ import annotations

import time

SECONDS_SHOWN_BELOW_S = 120
"""Above it a quiet screen changes at most once a minute."""


def countdown(seconds: float | None) -> str:
    """`1:35` under two minutes, then `12m`, `5h 10m`, `2d 4h`; `now` once it has passed, `` if unknown."""
    if seconds is None:
        return ""
    if seconds <= 0:
        return "now"
    if seconds < SECONDS_SHOWN_BELOW_S:
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
    return _coarse(seconds)


def age(seconds: float | None) -> str:
    """`<1m`, `12m`, `5h 10m`, `2d 4h`; `` if unknown."""
    if seconds is None:
        return ""
    return "<1m" if seconds < 60 else _coarse(seconds)


def exact(seconds: float) -> str:
    """For what is urgent: `12 s`, then as `age`."""
    return f"{max(0, int(seconds))} s" if seconds < SECONDS_SHOWN_BELOW_S else _coarse(seconds)


def clock(at: float, now: float) -> str:
    """Local time of day; the date where it is not today's. Eight cells wide."""
    moment = time.localtime(at)
    if moment[:3] == time.localtime(now)[:3]:
        return time.strftime("%H:%M:%S", moment)
    return time.strftime("%d %b", moment).rjust(8)


def hour(at: float) -> str:
    """Local time of day without seconds."""
    return time.strftime("%H:%M", time.localtime(at))


def stamp(at: float) -> str:
    """Local date and time, whole."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _coarse(seconds: float) -> str:
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h" if days < 100 else f"{days}d"
