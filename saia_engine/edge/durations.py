"""Durations as people and Slurm write them; inside they are seconds."""

from __future__ import annotations

import math
import re

LONGEST_S = 3650 * 86400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WITH_UNITS = re.compile(r"(?: ?[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")
_SLURM = re.compile(r"(?:([0-9]{1,5})-)?([0-9]{1,9})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_HOW = 'write it with a unit ("90s", "10m", "1h30m", "2d") or as Slurm does ("H:MM:SS", "D-HH:MM:SS")'


def parse(value: object) -> float:
    """Seconds of `90s`, `1h30m`, `250ms`, or Slurm's `MM`, `MM:SS`, `H:MM:SS`, `D-HH[:MM[:SS]]`.

    Raises ValueError, whose text is a sentence for the operator; a bare number is refused, a bare number
    in quotes is minutes, as Slurm reads it.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'a number without a unit; write "{value}s", "{value}m" or "{value}h"')
    if not isinstance(value, str):
        raise ValueError(f"not a duration; {_HOW}")
    text = value.strip()
    seconds = _with_units(text) if _WITH_UNITS.fullmatch(text) else _slurm(text)
    if seconds > LONGEST_S:
        raise ValueError("longer than ten years")
    return seconds


def _with_units(text: str) -> float:
    parts = [(float(number), unit) for number, unit in _PART.findall(text)]
    sizes = [_UNITS[unit] for _, unit in parts]
    if sizes != sorted(set(sizes), reverse=True):
        raise ValueError('write the units from the largest to the smallest, each once: "1h30m"')
    return math.fsum(number * _UNITS[unit] for number, unit in parts)


def _slurm(text: str) -> float:
    match = _SLURM.fullmatch(text)
    if match is None:
        if text.upper() in ("UNLIMITED", "INFINITE"):
            raise ValueError("must be finite")
        raise ValueError(f"not a duration; {_HOW}")
    days, *rest = match.groups()
    fields = [int(field) for field in rest if field is not None]
    limits = (24, 60, 60) if days is not None else (math.inf, 60, 60)
    if any(field >= limit for field, limit in zip(fields, limits, strict=False)):
        raise ValueError("hours after days end at 23, minutes and seconds at 59")
    if days is None and len(fields) < 3:
        return fields[0] * 60.0 + (fields[1] if len(fields) == 2 else 0)
    return int(days or 0) * 86400.0 + sum(
        field * size for field, size in zip(fields, (3600, 60, 1), strict=False)
    )


def show(seconds: float) -> str:
    """For people, to two units: `3d 04h`, `2h 05m`, `4m 10s`, `45s`, `4.5s`, `250ms`."""
    return " ".join(_parts(seconds)[:2])


def spell(seconds: float) -> str:
    """The same to the last second: `1d 02h 05m 20s`; for sums that must add up to the reader."""
    return " ".join(_parts(seconds))


def _parts(seconds: float) -> list[str]:
    if not math.isfinite(seconds):
        return ["unknown"]
    if seconds < 0:
        first, *rest = _parts(-seconds)
        return [f"-{first}", *rest]
    if seconds == 0:
        return ["0s"]
    if seconds < 0.9995:
        return [f"{seconds * 1000:.0f}ms"]
    if seconds < 59.95:
        return [f"{seconds:.1f}".removesuffix(".0") + "s"]
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if parts:
            parts.append(f"{count:02d}{unit}")
        elif count:
            parts.append(f"{count}{unit}")
    while parts[-1].startswith("00"):
        parts.pop()
    return parts


def slurm_time(seconds: float) -> str:
    """For `sbatch --time`: `D-HH:MM:SS`, rounded up to the minute, which is Slurm's grain; at least one."""
    minutes = max(1, math.ceil(seconds / 60))
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}-{hour:02d}:{minute:02d}:00"
