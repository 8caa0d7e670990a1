"""The few things the engine asks of Slurm. Adapters: `cli` (the real one) and `local` (this machine)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from saia_engine.model import LaunchSpec, Snapshot


class SlurmError(Exception):
    """Base of all; the text is one sentence for the operator, already sanitised."""


class SlurmUnavailable(SlurmError):
    """No good snapshot: a command failed, timed out or printed what does not parse (promise 5)."""


class SubmitRejected(SlurmError):
    """Slurm refused the job, so it provably does not run."""


class SubmitUnknown(SlurmError):
    """The submit failed or timed out and may have run all the same (promise 4)."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One batch job, one launch of an instance."""

    name: str
    """The token: `saia.<instance id>`."""
    script: Path
    """A shell script on the shared file system; runs on the job's first node."""
    output: Path
    """Job's stdout and stderr, appended to across requeues."""
    workdir: Path
    spec: LaunchSpec


class Slurm(Protocol):
    """One cluster. Every method has a deadline of its own and never blocks the loop."""

    async def observe(self) -> Snapshot:
        """All jobs (of every user, in every state), nodes, partitions and reservations.

        Raises SlurmUnavailable.
        """
        ...

    async def submit(self, request: JobRequest) -> int:
        """Submit and return the job id. Raises SubmitRejected or SubmitUnknown."""
        ...

    async def cancel(self, job_id: int, name: str) -> None:
        """Ask for a job's end; `name` is passed on as a second belt. Raises SlurmError."""
        ...

    async def close(self) -> None:
        """Release what the adapter holds; jobs go on."""
        ...
