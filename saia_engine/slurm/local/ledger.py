"""The cluster's memory: one JSON file of nodes and jobs, changed only under a lock.

The engine and every job's supervisor change it through `transaction`; nobody keeps a copy between two of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saia_engine.edge.files import write_atomically

VERSION = 1
LOCK_POLL_S = 0.005


class LedgerBroken(Exception):
    """The file can't be read; the text says which file and what to do."""


class LedgerBusy(Exception):
    """The lock was not free within the deadline; nothing was done."""


@dataclass(frozen=True)
class NodeRecord:
    name: str
    cpus: int
    memory_mib: int
    gpus: int
    gpu_type: str = ""
    drained: bool = False
    reason: str = ""


@dataclass(frozen=True)
class JobRecord:
    id: int
    name: str
    user: str
    output: str
    workdir: str
    submit_time: float
    time_limit_s: float
    cpus: int = 1
    memory_mib: int = 0
    """Per node, as cpus and gpus are."""
    gpus: int = 0
    gpu_type: str = ""
    gres: str = ""
    node_count: int = 1
    exclude: tuple[str, ...] = ()
    partition: str = ""
    state: str = "PENDING"
    reason: str = ""
    restarts: int = 0
    start_time: float | None = None
    end_time: float | None = None
    """When it will end, while it runs; when it did, after that."""
    placed: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Each of its nodes with the indexes of its GPUs there."""
    supervisor: int = 0
    """Pid; 0 until it has said so. It lives exactly as long as it holds the job's lock."""
    ending: str = ""
    """The state it will have when its last process is gone, or REQUEUE; empty while nobody ends it."""
    exit_code: int | None = None

    @property
    def ended(self) -> bool:
        return self.state not in ("PENDING", "RUNNING")


@dataclass
class Ledger:
    created_at: float
    next_id: int = 1
    kill_wait_s: float = 2.0
    """From SIGTERM to SIGKILL."""
    min_job_age_s: float = 60.0
    """How long an ended job is still shown."""
    nodes: tuple[NodeRecord, ...] = ()
    jobs: dict[int, JobRecord] = field(default_factory=dict)


class Files:
    """Where things lie in the cluster's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = directory / "ledger.json"
        self.lock = directory / "ledger.lock"
        self.log = directory / "supervisors.log"

    def script(self, job_id: int) -> Path:
        """The copy made at submit: what runs is what was submitted."""
        return self.directory / f"job-{job_id}.sh"

    def job_lock(self, job_id: int) -> Path:
        return self.directory / f"job-{job_id}.lock"

    def forget(self, job_id: int) -> None:
        self.script(job_id).unlink(missing_ok=True)
        self.job_lock(job_id).unlink(missing_ok=True)


@contextmanager
def transaction(files: Files, *, deadline_s: float | None = None) -> Iterator[Ledger]:
    """The ledger, locked; what was changed is durable at the end of the block, or not at all after an exception.

    Raises LedgerBusy, LedgerBroken, OSError.
    """
    with files.lock.open("a") as lock:
        _lock(lock.fileno(), deadline_s, files.lock)
        before = _read(files.ledger)
        ledger = _parse(before, files.ledger) if before else Ledger(created_at=time.time())
        yield ledger
        after = _serialise(ledger)
        if after != before:
            write_atomically(files.ledger, after, mode=0o600)


def _lock(descriptor: int, deadline_s: float | None, path: Path) -> None:
    if deadline_s is None:
        return fcntl.flock(descriptor, fcntl.LOCK_EX)
    give_up_at = time.monotonic() + deadline_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up_at:
                raise LedgerBusy(f"{path} was locked for {deadline_s:g} s") from None
            time.sleep(LOCK_POLL_S)


def take_job_lock(files: Files, job_id: int) -> int | None:
    """A descriptor that holds the job's lock, or None while a supervisor holds it.

    The lock belongs to the open file: handed to a new process, it is free when that process is gone, however it
    ended. So it tells a dead supervisor from a living one, and no pid can be mistaken for another's.
    """
    descriptor = os.open(files.job_lock(job_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _serialise(ledger: Ledger) -> bytes:
    document = {"version": VERSION, **vars(ledger), "jobs": list(ledger.jobs.values())}
    return json.dumps(document, default=vars).encode()


def _parse(data: bytes, path: Path) -> Ledger:
    try:
        document: dict[str, Any] = json.loads(data)
        version = document.pop("version")
        if version != VERSION:
            raise ValueError(f"version {version}, not {VERSION}")
        document["nodes"] = tuple(NodeRecord(**node) for node in document["nodes"])
        document["jobs"] = {job["id"]: _job(job) for job in document["jobs"]}
        return Ledger(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise LedgerBroken(
            f"{path} cannot be read ({exc}); end its jobs by hand, then move the file away to start anew"
        ) from exc


def _job(row: dict[str, Any]) -> JobRecord:
    row["exclude"] = tuple(row["exclude"])
    row["placed"] = tuple((node, tuple(indexes)) for node, indexes in row["placed"])
    return JobRecord(**row)
