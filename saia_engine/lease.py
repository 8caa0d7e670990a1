"""One engine acts: a lock on this host's disk, and a fenced lease in the shared directory.

The lock dies with its process, so `kill -9` leaves nothing to clean. The lease names the host that may act;
on another host an engine refuses until an operator's `takeover` has raised the epoch.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from saia_engine.edge.files import write_atomically

SHARED_DELAY_S = 60.0
"""How long a network file system may hide a new lease from the old holder."""


class LeaseRefused(Exception):
    """Another engine may act; the text says which, and what to do."""


class LeaseLost(Exception):
    """Another engine took over: stop acting for good."""


class LeaseUnreadable(Exception):
    """Who may act can't be told now: don't act until it can."""


@dataclass(frozen=True, slots=True)
class Holder:
    host: str
    boot_id: str
    epoch: int
    pid: int


class Lease:
    """Held from `acquire` to `release`; `check` before each act."""

    def __init__(self, lock: IO[str], shared_file: Path, holder: Holder) -> None:
        self._lock = lock
        self._shared_file = shared_file
        self.holder = holder

    @classmethod
    def acquire(cls, state_dir: Path, shared_dir: Path, *, takeover: bool = False) -> Lease:
        """Raises LeaseRefused while another engine holds it, and OSError for a bad directory."""
        lock = (state_dir / "engine.lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read(20).strip() or "unknown"
            lock.close()
            raise LeaseRefused(
                f"another engine runs on this host (pid {pid}, lock {state_dir / 'engine.lock'});"
                " stop it first, or use it"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        shared_file = shared_dir / "lease.json"
        try:
            before = _read(shared_file)
        except LeaseUnreadable:
            lock.close()
            raise
        if before is not None and before.host != socket.gethostname() and not takeover:
            lock.close()
            raise LeaseRefused(
                f"the engine on host {before.host} holds the lease ({shared_file}); if that host is lost,"
                " run: saia-engine takeover --config FILE"
            )
        holder = Holder(socket.gethostname(), _boot_id(), (before.epoch if before else 0) + 1, os.getpid())
        write_atomically(shared_file, json.dumps(asdict(holder)).encode(), mode=0o600)
        return cls(lock, shared_file, holder)

    def check(self) -> None:
        """Raises LeaseLost when the shared lease is not ours any more, LeaseUnreadable."""
        now = _read(self._shared_file)
        if now is None:
            raise LeaseUnreadable(
                f"{self._shared_file} is gone; if it does not come back, restart the engine"
            )
        if now != self.holder:
            raise LeaseLost(f"{self._shared_file} names the engine on {now.host} (epoch {now.epoch})")

    def release(self) -> None:
        self._lock.close()


def _read(path: Path) -> Holder | None:
    try:
        data = json.loads(path.read_bytes())
        return Holder(str(data["host"]), str(data["boot_id"]), int(data["epoch"]), int(data["pid"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LeaseUnreadable(
            f"{path} cannot be read ({exc}); if no other host runs an engine, remove it and start again"
        ) from exc


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
