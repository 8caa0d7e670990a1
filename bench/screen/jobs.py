"""A busy cluster's queue that changes as it is told, as squeue prints it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from bench import tick

NONCE = "@@"
"""In place of the nonce, which each call brings along."""
REASONS = ("Priority", "Resources", "Dependency", "QOSMaxJobsPerUserLimit", "ReqNodeNotAvail")
HOUR_S = 3600


@dataclass(slots=True)
class QueuedJob:
    id: int
    name: str
    user: str
    submitted: int
    running: bool
    reason: str = ""
    node: int = 0
    start: int = 0
    end: int = 0

    def line(self) -> str:
        gpus = 1 + self.id % 4
        tres = f"cpu=16,mem=64000M,node=1,billing=16,gres/gpu={gpus},gres/gpu:a100={gpus}"
        plain = (
            self.id,
            "RUNNING" if self.running else "PENDING",
            self.submitted,
            self.start or "N/A",
            self.end or "N/A",
            "1-00:00:00",
            0,
            1,
            16,
            4_294_900_000 - self.id,
            self.user,
            "gpu",
            f"gpu{self.node:04}" if self.running else "",
        )
        texts = (tres if self.running else "", "", f"gres:gpu:a100:{gpus}", self.reason or "None", self.name)
        return tick.row(plain, texts, NONCE) + "\n"


class Queue:
    """So many jobs, the newer half of them running. Times are whole hours, so that no label changes by itself."""

    def __init__(self, size: int, seed: int = 1) -> None:
        self._dice = random.Random(seed)
        # Times are half an hour away from a change of their labels, all of them.
        self._hour = int(time.time()) // HOUR_S * HOUR_S
        self._next = 1
        self._jobs: dict[int, QueuedJob] = {}
        self._lines: dict[int, str] = {}
        for number in range(size):
            self._put(self._new(running=number >= size // 2))

    def __len__(self) -> int:
        return len(self._jobs)

    def text(self) -> str:
        return "".join(self._lines.values())

    def shown(self, count: int) -> list[int]:
        """Ids of the first rows of the screen, in its order: running, the newest first."""
        running = [job.id for job in self._jobs.values() if job.running]
        return sorted(running, reverse=True)[:count]

    def change(self, share: float, *, unseen: int = 0, moved: float = 0.0) -> None:
        """So much of the queue: rows in place (a reason, an end), but `moved` of them come, start or end.

        `unseen`: rows at the head of the screen that nothing happens to.
        """
        spared = set(self.shown(unseen))
        candidates = [job for job in self._jobs.values() if job.id not in spared]
        for job in self._dice.sample(candidates, min(len(candidates), round(share * len(self._jobs)))):
            if self._dice.random() >= moved:
                self._change_in_place(job)
            elif job.running:
                self._remove(job)
                self._put(self._new(running=False))
            else:
                self._start(job)
                self._put(job)

    def _change_in_place(self, job: QueuedJob) -> None:
        if job.running:
            job.end += self._dice.choice((-1, 1, 2)) * HOUR_S
            job.end = max(job.end, self._hour + 30 * HOUR_S)
        else:
            job.reason = self._dice.choice([reason for reason in REASONS if reason != job.reason])
        self._put(job)

    def _new(self, *, running: bool) -> QueuedJob:
        job = QueuedJob(
            id=self._next,
            name=f"{self._dice.choice(('train', 'eval-run', 'sweep', 'nf-align'))}_{self._next}",
            user=f"user{self._dice.randrange(300)}",
            submitted=self._hour - self._dice.randrange(30, 90) * HOUR_S,
            running=False,
            reason=self._dice.choice(REASONS),
        )
        self._next += 1
        if running:
            self._start(job)
        return job

    def _start(self, job: QueuedJob) -> None:
        job.running, job.reason = True, ""
        job.node = self._dice.randrange(1, tick.NODES)
        job.start = self._hour - self._dice.randrange(25, 29) * HOUR_S
        job.end = self._hour + self._dice.randrange(30, 72) * HOUR_S

    def _put(self, job: QueuedJob) -> None:
        self._jobs[job.id] = job
        self._lines[job.id] = job.line()

    def _remove(self, job: QueuedJob) -> None:
        del self._jobs[job.id], self._lines[job.id]
