"""Where a demo keeps its files: a directory of its own, which the next demo removes if this one could not."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PARENT = Path("/tmp")
"""Whatever $TMPDIR says: the paths of sockets must be short."""
PREFIX = "saia-demo-"
LOCK = "lock"


class Place:
    """A new directory, locked for as long as this process lives. Raises OSError."""

    def __init__(self) -> None:
        remove_forsaken()
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
        draft = self.directory / f"{LOCK}.draft"
        self._lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.directory / LOCK)  # so it is never there unlocked while we live

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)

    def keep(self) -> None:
        """Leave it for somebody to look at."""
        (self.directory / LOCK).unlink(missing_ok=True)
        os.close(self._lock)


def remove_forsaken() -> None:
    """Remove our user's directories whose demo was killed."""
    for directory in PARENT.glob(f"{PREFIX}*"):
        try:
            if directory.lstat().st_uid == os.geteuid() and _is_free(directory / LOCK):
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            continue


def _is_free(lock: Path) -> bool:
    """Raises OSError where there is no lock: one that is kept, or is being made."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
