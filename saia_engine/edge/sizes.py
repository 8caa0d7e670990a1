"""Sizes as people and Slurm write them; inside they are MiB, or bytes where that is too coarse."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))? ?(KiB|MiB|GiB|TiB|K|M|G|T|)")
_POWER = {"K": 1, "": 2, "M": 2, "G": 3, "T": 4}
_HOW = 'write it with a unit: "512MiB", "64GiB", or Slurm\'s "64G"'
LARGEST_BYTES = 1024**5


def parse_bytes(value: object) -> int:
    """Bytes of `64GiB`, `512MiB`, `64KiB`, or Slurm's `64G` (binary too; a bare number in quotes is MiB).

    Raises ValueError, whose text is a sentence for the operator.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'a number without a unit; write "{value}MiB" or "{value}GiB"')
    if not isinstance(value, str):
        raise ValueError(f"not a size; {_HOW}")
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"not a size; {_HOW}")
    whole, fraction, unit = match.groups()
    scale = 1024 ** _POWER[unit[:1]]
    size = int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    if size > LARGEST_BYTES:
        raise ValueError("larger than 1024TiB")
    return size


def parse_mib(value: object) -> int:
    """The same in MiB, rounded up."""
    return -(-parse_bytes(value) // 1024**2)


def show_mib(mib: int) -> str:
    """For people: `64GiB`, `1.5GiB`, `512MiB`."""
    for unit, scale in (("TiB", 1024**2), ("GiB", 1024)):
        if mib >= scale:
            return f"{mib / scale:.1f}".removesuffix(".0") + unit
    return f"{mib}MiB"
