"""One engine acts: a lock on this host's disk, and a fenced lease in the shared directory.

The lock dies with its process, so `kill -9` leaves nothing to clean. The lease names the host that may act;
on another host an engine refuses until an operator's `takeover` has raised the epoch.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from saia_engine.edge.files import write_atomically

SHARED_DELAY_S = 60.0
"""How long a network file system may hide a new lease from the old holder."""

STEPS = 1000
"""Where the clock is behind the last epoch, the next one counts on by so much at most."""


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


class Seat(Protocol):
    """Where an engine runs, as the lease sees it: its host's lock, and the lease that all hosts share."""

    host: str
    boot_id: str
    pid: int

    def time(self) -> float:
        """Seconds since 1970, by this host's clock."""
        ...

    def lock(self) -> None:
        """Until `unlock` or the end of the process. Raises LeaseRefused, OSError."""
        ...

    def unlock(self) -> None: ...

    def read(self) -> bytes:
        """The shared lease, as it can be seen from here. Raises OSError."""
        ...

    def write(self, data: bytes) -> None:
        """Replace it. Raises OSError."""
        ...

    @property
    def place(self) -> str:
        """The shared lease's name, for people."""
        ...


class Lease:
    """Held from `acquire` to `release`; `check` before each act."""

    def __init__(self, seat: Seat, holder: Holder) -> None:
        self._seat = seat
        self.holder = holder

    @classmethod
    def acquire(cls, state_dir: Path, shared_dir: Path, *, takeover: bool = False) -> Lease:
        """On this host. Raises LeaseRefused while another engine holds it, and OSError for a bad directory."""
        return cls.take(HostSeat(state_dir, shared_dir), takeover=takeover)

    @classmethod
    def take(cls, seat: Seat, *, takeover: bool = False) -> Lease:
        """Raises LeaseRefused while another engine holds it, LeaseUnreadable, OSError."""
        seat.lock()
        try:
            before = _read(seat)
            if before is not None and before.host != seat.host and not takeover:
                raise LeaseRefused(
                    f"the engine on host {before.host} holds the lease ({seat.place}); if that host is lost,"
                    " run: saia-engine takeover --config FILE"
                )
            last, now = (before.epoch if before else 0), int(seat.time())
            # The clock's is new also where the shared file system still hides the last one: see SHARED_DELAY_S.
            epoch = now if now > last else last + 1 + _own_step(seat)
            holder = Holder(seat.host, seat.boot_id, epoch, seat.pid)
            seat.write(json.dumps(asdict(holder)).encode())
        except BaseException:
            seat.unlock()
            raise
        return cls(seat, holder)

    def check(self) -> None:
        """Raises LeaseLost when the shared lease is not ours any more, LeaseUnreadable."""
        now = _read(self._seat)
        if now is None:
            raise LeaseUnreadable(f"{self._seat.place} is gone; if it does not come back, restart the engine")
        if now != self.holder:
            raise LeaseLost(f"{self._seat.place} names the engine on {now.host} (epoch {now.epoch})")

    def release(self) -> None:
        self._seat.unlock()


class HostSeat:
    """This host: a lock that dies with its process in `state_dir`, the lease in `shared_dir`."""

    def __init__(self, state_dir: Path, shared_dir: Path) -> None:
        self.host = socket.gethostname()
        self.boot_id = _boot_id()
        self.pid = os.getpid()
        self._lock_file = state_dir / "engine.lock"
        self._lock: IO[str] | None = None
        self._shared_file = shared_dir / "lease.json"

    @property
    def place(self) -> str:
        return str(self._shared_file)

    def time(self) -> float:
        return time.time()

    def lock(self) -> None:
        lock = self._lock_file.open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read(20).strip() or "unknown"
            lock.close()
            raise LeaseRefused(
                f"another engine runs on this host (pid {pid}, lock {self._lock_file}); stop it first, or use it"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{self.pid}\n")
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def read(self) -> bytes:
        return self._shared_file.read_bytes()

    def write(self, data: bytes) -> None:
        write_atomically(self._shared_file, data, mode=0o600)


def _read(seat: Seat) -> Holder | None:
    try:
        data = json.loads(seat.read())
        return Holder(str(data["host"]), str(data["boot_id"]), int(data["epoch"]), int(data["pid"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LeaseUnreadable(
            f"{seat.place} cannot be read ({exc}); if no other host runs an engine, remove it and start again"
        ) from exc


def _own_step(seat: Seat) -> int:
    """So that two that count on from the same epoch, neither seeing the other's yet, part ways."""
    return zlib.crc32(f"{seat.host} {seat.boot_id} {seat.pid}".encode()) % STEPS


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
