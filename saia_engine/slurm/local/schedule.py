"""Which pending job starts where: first in first out, first fit, no backfill. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from saia_engine.slurm.local.ledger import JobRecord, NodeRecord


@dataclass(frozen=True)
class Free:
    """What a node has left."""

    node: NodeRecord
    cpus: int
    memory_mib: int
    gpus: tuple[int, ...]


def place(nodes: Sequence[NodeRecord], jobs: Iterable[JobRecord], now: float) -> list[JobRecord]:
    """The jobs that change: those to start, placed and RUNNING, and those that wait, with a new reason."""
    jobs = list(jobs)
    running = [job for job in jobs if job.state == "RUNNING"]
    pending = sorted(
        (job for job in jobs if job.state == "PENDING"), key=lambda job: (job.submit_time, job.id)
    )
    changed: list[JobRecord] = []
    blocked = False
    for job in pending:
        chosen = (
            [] if blocked else _choose(job, [free_on(node, running) for node in nodes if not node.drained])
        )
        if chosen:
            started = _start(job, chosen, now)
            running.append(started)
            changed.append(started)
            continue
        reason = "Priority" if blocked else "Resources"
        blocked = True
        if job.reason != reason:
            changed.append(replace(job, reason=reason))
    return changed


def possible(job: JobRecord, nodes: Sequence[NodeRecord]) -> bool:
    """Whether it would fit if nothing else ran and nothing was drained."""
    return bool(_choose(job, [free_on(node, ()) for node in nodes]))


def free_on(node: NodeRecord, running: Iterable[JobRecord]) -> Free:
    cpus, memory, gpus = node.cpus, node.memory_mib, set(range(node.gpus))
    for job in running:
        for name, indexes in job.placed:
            if name == node.name:
                cpus -= job.cpus
                memory -= job.memory_mib
                gpus -= set(indexes)
    return Free(node, cpus, memory, tuple(sorted(gpus)))


def parse_gres(text: str) -> tuple[int, str]:
    """(count, type) of `gpu`, `gpu:2`, `gpu:a100` or `gpu:a100:2`. Raises ValueError for anything else."""
    if not text:
        return 0, ""
    match = re.fullmatch(r"(?:gres[:/])?gpu(?::([A-Za-z_][\w.-]*))?(?::(\d{1,4}))?", text)
    if match is None:
        raise ValueError(text)
    return int(match[2] or 1), match[1] or ""


def _choose(job: JobRecord, free: Iterable[Free]) -> list[Free]:
    """The first nodes that it fits on; empty if there are not enough."""
    fitting = [spare for spare in free if _fits(job, spare)]
    return fitting[: job.node_count] if len(fitting) >= job.node_count else []


def _fits(job: JobRecord, spare: Free) -> bool:
    return (
        spare.node.name not in job.exclude
        and spare.cpus >= job.cpus
        and spare.memory_mib >= job.memory_mib
        and len(spare.gpus) >= job.gpus
        and (not job.gpu_type or not job.gpus or spare.node.gpu_type in ("", job.gpu_type))
    )


def _start(job: JobRecord, chosen: Sequence[Free], now: float) -> JobRecord:
    return replace(
        job,
        state="RUNNING",
        reason="",
        start_time=now,
        end_time=now + job.time_limit_s,
        placed=tuple((spare.node.name, spare.gpus[: job.gpus]) for spare in chosen),
        supervisor=0,
        ending="",
    )
