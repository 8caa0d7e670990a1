"""A record's directory: which segments there are, by the times in their names, and reading one.

Names are `20261127T031200Z-000042.rec`: when the segment begins (UTC), and a number that grows, so that a clock set
back overwrites nothing.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from saia_engine.record.frames import RecordFault

NAME = re.compile(r"\d{8}T\d{6}Z-\d{6,12}\.rec", re.ASCII)
LARGEST_SEGMENT = 128 * 1024**2
"""Bytes; a larger file is none of ours."""
MOST_SEGMENTS = 20_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def name_of(at: float, number: int) -> str:
    moment = datetime.fromtimestamp(max(0.0, at), UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{number:06d}.rec"


def number_of(name: str) -> int:
    return int(name[17:-4])


def time_of(name: str) -> float:
    """When the segment begins, to the second; 0.0 for a time that is none."""
    try:
        return datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def names(directory: Path) -> list[str]:
    """Of all segments, the oldest first as they were written. Raises OSError."""
    found = [entry.name for entry in os.scandir(directory) if NAME.fullmatch(entry.name)]
    return sorted(found, key=number_of)[-MOST_SEGMENTS:]


def read(directory: Path, name: str) -> bytes:
    """A whole segment. Raises RecordFault for what is none, OSError."""
    with opened(directory, name) as (file, size):
        return b"".join(pieces(file, size))


@contextmanager
def opened(directory: Path, name: str) -> Iterator[tuple[int, int]]:
    """A segment's descriptor and its size now. Raises RecordFault for what is none, OSError."""
    if not NAME.fullmatch(name):
        raise RecordFault("no segment has such a name")
    place = os.open(directory, _DIRECTORY)
    try:
        file = os.open(name, _FILE, dir_fd=place)
    finally:
        os.close(place)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if found.st_size > LARGEST_SEGMENT:
            raise RecordFault(f"it is larger than {LARGEST_SEGMENT} bytes")
        yield file, found.st_size
    finally:
        os.close(file)


def pieces(file: int, size: int, most: int = 1 << 20) -> Iterator[bytes]:
    """The first `size` bytes, piece by piece; fewer where the file was cut short meanwhile."""
    at = 0
    while at < size and (piece := os.pread(file, min(most, size - at), at)):
        yield piece
        at += len(piece)
