"""The Slurm port on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from saia_engine.edge.files import write_atomically
from saia_engine.edge.text import clean
from saia_engine.model import Job, Node, Snapshot
from saia_engine.slurm.local import dispatch, processes
from saia_engine.slurm.local.ledger import (
    Files,
    JobRecord,
    Ledger,
    LedgerBroken,
    LedgerBusy,
    NodeRecord,
    transaction,
)
from saia_engine.slurm.local.schedule import free_on, parse_gres, possible
from saia_engine.slurm.port import JobRequest, SlurmError, SlurmUnavailable, SubmitRejected
from saia_engine.slurm.text import Unparsable, node_names

PARTITION = "local"
ADDRESS = "127.0.0.1"
LOCK_DEADLINE_S = 10.0
MAX_SCRIPT = 4 << 20

Answer = TypeVar("Answer")


def declare_nodes(
    count: int, *, cpus: int, memory_mib: int, gpus: int, gpu_type: str = ""
) -> tuple[Node, ...]:
    """`count` like nodes: node01, node02, ..."""
    return tuple(
        Node(
            f"node{number:02}",
            "idle",
            ADDRESS,
            cpus=cpus,
            memory_mib=memory_mib,
            gpus=gpus,
            gpu_type=gpu_type,
        )
        for number in range(1, count + 1)
    )


class LocalCluster:
    """Jobs as processes of this machine on declared nodes; first in first out, first fit, no backfill.

    All state lies in `directory`, on a local disk: jobs go on without this object and are found again by the next
    one. `lifeline_fd`, if given, is the read end of a pipe that every supervisor and job inherits
    ($SAIA_LIFELINE_FD): when its last writer is gone, so are they.
    """

    def __init__(
        self,
        directory: Path,
        nodes: Sequence[Node],
        user: str,
        lifeline_fd: int | None = None,
        *,
        kill_wait_s: float = 2.0,
        min_job_age_s: float = 60.0,
    ) -> None:
        self._files = Files(directory.absolute())
        self._nodes = tuple(NodeRecord(n.name, n.cpus, n.memory_mib, n.gpus, n.gpu_type) for n in nodes)
        self._user = user
        self._lifeline = processes.NO_LIFELINE if lifeline_fd is None else lifeline_fd
        self._kill_wait_s = kill_wait_s
        self._min_job_age_s = min_job_age_s

    async def observe(self) -> Snapshot:
        """Raises SlurmUnavailable."""
        return await self._change(self._observe, SlurmUnavailable)

    async def submit(self, request: JobRequest) -> int:
        """Raises SubmitRejected, also where the ledger could not be written: then nothing runs."""
        return await self._change(lambda ledger: self._submit(ledger, request), SubmitRejected)

    async def cancel(self, job_id: int, name: str) -> None:
        """Silent, as scancel is, about a job that is not there or has another name. Raises SlurmError."""

        def act(ledger: Ledger) -> None:
            job = ledger.jobs.get(job_id)
            if job is not None and job.name == name:
                ledger.jobs[job_id] = dispatch.ask_to_end(job, "CANCELLED", time.time())

        await self._change(act, SlurmError)

    async def requeue(self, job_id: int) -> None:
        """Ends a running job and queues it again: the same id, one restart more. Raises SlurmError."""

        def act(ledger: Ledger) -> None:
            job = ledger.jobs.get(job_id)
            if job is None or job.state != "RUNNING" or job.ending:
                raise SlurmError(f"job {job_id} is not running")
            ledger.jobs[job_id] = dispatch.ask_to_end(job, dispatch.REQUEUE, time.time())

        await self._change(act, SlurmError)

    async def set_node_state(self, name: str, state: str, reason: str = "") -> None:
        """`drain`: start nothing more on it; `idle`: do so again. Raises SlurmError."""

        def act(ledger: Ledger) -> None:
            if state not in ("drain", "idle") or name not in {node.name for node in ledger.nodes}:
                raise SlurmError(f"no node {name!r}, or not a state it can be set to: {state!r}")
            ledger.nodes = tuple(
                replace(node, drained=state == "drain", reason=reason) if node.name == name else node
                for node in ledger.nodes
            )

        await self._change(act, SlurmError)

    async def close(self) -> None:
        """Nothing is held between two calls."""

    async def _change(self, act: Callable[[Ledger], Answer], failure: type[SlurmError]) -> Answer:
        return await asyncio.to_thread(self._change_now, act, failure)

    def _change_now(self, act: Callable[[Ledger], Answer], failure: type[SlurmError]) -> Answer:
        try:
            self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with transaction(self._files, deadline_s=LOCK_DEADLINE_S) as ledger:
                self._configure(ledger)
                return act(ledger)
        except (OSError, LedgerBroken, LedgerBusy) as exc:
            raise failure(clean(f"the local cluster: {exc}")) from exc

    def _configure(self, ledger: Ledger) -> None:
        known = {node.name: node for node in ledger.nodes}
        ledger.nodes = tuple(
            replace(node, drained=known[node.name].drained, reason=known[node.name].reason)
            if node.name in known
            else node
            for node in self._nodes
        )
        ledger.kill_wait_s = self._kill_wait_s
        ledger.min_job_age_s = self._min_job_age_s

    def _observe(self, ledger: Ledger) -> Snapshot:
        dispatch.end_unsupervised(self._files, ledger)
        dispatch.forget_old(self._files, ledger, time.time())
        dispatch.start_waiting(self._files, ledger, self._lifeline)
        jobs = tuple(ledger.jobs.values())
        return Snapshot(
            taken_at=time.time(),
            jobs=tuple(_shown(job) for job in jobs),
            nodes=tuple(_shown_node(node, jobs) for node in ledger.nodes),
        )

    def _submit(self, ledger: Ledger, request: JobRequest) -> int:
        job = _job_of(request, ledger.next_id, self._user)
        if not possible(job, ledger.nodes):
            raise SubmitRejected("Requested node configuration is not available")
        write_atomically(self._files.script(job.id), _script_of(request.script), mode=0o600)
        ledger.jobs[job.id] = job
        ledger.next_id += 1
        dispatch.start_waiting(self._files, ledger, self._lifeline)
        return job.id


def _script_of(path: Path) -> bytes:
    script = path.read_bytes()
    if not script.startswith(b"#!") or not script[2:].split(b"\n", 1)[0].strip():
        raise SubmitRejected(
            clean(f"{path} is no batch script: its first line must be #! and an interpreter")
        )
    return script


def _job_of(request: JobRequest, job_id: int, user: str) -> JobRecord:
    spec = request.spec
    try:
        gpus, gpu_type = parse_gres(spec.gres)
    except ValueError:
        raise SubmitRejected(
            clean(f"Invalid generic resource (gres) specification: {spec.gres!r}; it has only gpu[:TYPE][:N]")
        ) from None
    if min(spec.cpus, spec.nodes, spec.time_limit_s) < 1 or spec.memory_mib < 0:
        raise SubmitRejected("cpus, nodes and time limit must be positive")
    # Nothing is ever reserved here: every job gets its whole limit, which Slurm may shorten to time_min.
    if spec.time_min_s > spec.time_limit_s:
        raise SubmitRejected("Invalid time-min specification (exceeds job's time or other limits)")
    try:
        exclude = node_names(spec.exclude.replace(" ", ""))
    except Unparsable as exc:
        raise SubmitRejected(f"Invalid node name specified: {exc}") from exc
    return JobRecord(
        id=job_id,
        name=request.name,
        user=user,
        output=str(request.output),
        workdir=str(request.workdir),
        submit_time=time.time(),
        time_limit_s=spec.time_limit_s,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        gpus=gpus,
        gpu_type=gpu_type,
        gres=spec.gres,
        node_count=spec.nodes,
        exclude=exclude,
        partition=spec.partition or PARTITION,
    )


def _shown(job: JobRecord) -> Job:
    return Job(
        id=job.id,
        name=job.name,
        user=job.user,
        state="COMPLETING" if job.ending else job.state,
        reason=job.reason,
        partition=job.partition,
        submit_time=job.submit_time,
        start_time=job.start_time,
        end_time=job.end_time,
        time_limit_s=job.time_limit_s,
        restarts=job.restarts,
        nodes=tuple(name for name, _ in job.placed),
        node_count=job.node_count,
        gres=job.gres,
        gpus=job.gpus * job.node_count,
        cpus=job.cpus * job.node_count,
    )


def _shown_node(node: NodeRecord, jobs: Sequence[JobRecord]) -> Node:
    free = free_on(node, [job for job in jobs if job.state == "RUNNING"])
    state = "idle" if free.cpus == node.cpus else "mixed" if free.cpus > 0 else "allocated"
    return Node(
        name=node.name,
        state=f"{state}+drain" if node.drained else state,
        address=ADDRESS,
        partitions=(PARTITION,),
        reason=node.reason,
        cpus=node.cpus,
        cpus_allocated=node.cpus - free.cpus,
        memory_mib=node.memory_mib,
        gpu_type=node.gpu_type,
        gpus=node.gpus,
        gpus_allocated=node.gpus - len(free.gpus),
    )
