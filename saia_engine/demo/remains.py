"""What is there of a demo: jobs, and processes that hold its lifeline or carry the mark of one of its jobs."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from saia_engine.slurm.local.dispatch import ask_to_end
from saia_engine.slurm.local.ledger import Files, LedgerBroken, LedgerBusy, transaction
from saia_engine.slurm.local.processes import MARK

LOCK_S = 2.0
LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Remains:
    cluster: Path
    """Directory of the local cluster."""
    lifeline: str
    """As /proc shows it: `pipe:[inode]`."""

    def cancel_jobs(self) -> None:
        """Ask all jobs to end."""
        try:
            with transaction(Files(self.cluster), deadline_s=LOCK_S) as ledger:
                for job in list(ledger.jobs.values()):
                    ledger.jobs[job.id] = ask_to_end(job, "CANCELLED", time.time())
        except (OSError, LedgerBroken, LedgerBusy):
            pass  # no cluster yet; or the end of the lifeline takes them

    def jobs(self) -> int:
        """How many have not ended."""
        try:
            with transaction(Files(self.cluster), deadline_s=LOCK_S) as ledger:
                return sum(1 for job in ledger.jobs.values() if not job.ended)
        except (OSError, LedgerBroken, LedgerBusy):
            return 0

    def wait_for_jobs(self, timeout_s: float) -> int:
        """Until all have ended, or the time is over; how many have not."""
        deadline = time.monotonic() + timeout_s
        while (left := self.jobs()) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        return left

    def processes(self) -> list[int]:
        """All but this one."""
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return [pid for pid in pids if pid != os.getpid() and self._is_ours(Path(f"/proc/{pid}"))]

    def _is_ours(self, process: Path) -> bool:
        mark = os.fsencode(f"{MARK}={self.cluster}#")
        try:
            if any(word.startswith(mark) for word in (process / "environ").read_bytes().split(b"\0")):
                return True
            return any(str(file.readlink()) == self.lifeline for file in (process / "fd").iterdir())
        except OSError:
            return False  # gone, or another user's

    def wait_for_processes(self, timeout_s: float) -> list[int]:
        """Until all have gone, or the time is over; those that are there after all."""
        deadline = time.monotonic() + timeout_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(LOOK_S)
        return left


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
