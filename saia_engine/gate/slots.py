"""How many relays of one proxy run on this host: each holds a locked file, which the kernel frees with the process."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
DIRECTORY = "slots"


class SlotsFault(Exception):
    """There is no place for the slot files; the text says where it was sought."""


class NoSlot(Exception):
    """As many relays run as this proxy may have."""


def take(routes: Path, installation: str, proxy: str, relays: int) -> int:
    """A descriptor that holds one of the slots while it is open. Raises NoSlot, SlotsFault."""
    directory = _directory(routes.parent / DIRECTORY, installation)
    for number in range(relays):
        descriptor = _open(directory / f"{proxy}.{number}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    raise NoSlot


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SlotsFault(f"{path}: {exc.strerror}") from None


def _directory(beside: Path, installation: str) -> Path:
    """`slots/` beside the routes where we may write it, else one of our own in memory."""
    try:
        beside.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        pass
    if os.access(beside, os.W_OK | os.X_OK):
        return beside
    own = SHARED_MEMORY / f"saia-gate-{os.geteuid()}-{installation}"
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        found = own.lstat()
    except OSError as exc:
        raise SlotsFault(f"{own}: {exc.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SlotsFault(f"{own} is not ours alone")
    return own
