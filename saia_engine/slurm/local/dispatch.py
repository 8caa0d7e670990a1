"""Brings the ledger forward: starts what fits, ends what lost its supervisor. The caller holds the ledger's lock."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace

from saia_engine.slurm.local import processes
from saia_engine.slurm.local.ledger import Files, JobRecord, Ledger, take_job_lock
from saia_engine.slurm.local.schedule import place

REQUEUE = "REQUEUE"


def start_waiting(files: Files, ledger: Ledger, lifeline: int) -> None:
    """Starts each pending job that may start now.

    The supervisors start before the ledger says so, and wait for its lock: one that finds its job still pending
    was started by somebody who died before the commit, and does nothing.
    """
    for job in place(ledger.nodes, ledger.jobs.values(), time.time()):
        if job.state != "RUNNING":
            ledger.jobs[job.id] = job
            continue
        lock = take_job_lock(files, job.id)
        if lock is None:
            return  # such a supervisor has not gone yet; the next call starts the job
        try:
            processes.start_supervisor(files, job, lock, lifeline)
            ledger.jobs[job.id] = job
        except OSError as exc:
            ledger.jobs[job.id] = replace(
                job, state="FAILED", reason="JobLaunchFailure", end_time=time.time()
            )
            sys.stderr.write(f"job {job.id} could not start: {exc}\n")
        finally:
            os.close(lock)


def end_unsupervised(files: Files, ledger: Ledger) -> None:
    """Ends jobs whose supervisor is dead, as Slurm ends those of a dead node."""
    for job in list(ledger.jobs.values()):
        if job.state != "RUNNING" or (lock := take_job_lock(files, job.id)) is None:
            continue
        try:
            processes.kill_all(processes.mark(files, job))
        finally:
            os.close(lock)
        ledger.jobs[job.id] = finished(job, job.ending or "NODE_FAIL", None, time.time())


def ask_to_end(job: JobRecord, ending: str, now: float) -> JobRecord:
    """The job as it is from now on, its supervisor told; a job that ends already is left alone."""
    if job.ended or job.ending:
        return job
    if job.state == "PENDING":
        return finished(job, ending, None, now)
    if job.supervisor:
        # Sure to be that supervisor: it can't end its job while we hold the ledger's lock.
        processes.send([job.supervisor], signal.SIGUSR1)
    return replace(job, ending=ending, end_time=now)


def finished(job: JobRecord, ending: str, exit_code: int | None, now: float) -> JobRecord:
    if ending == REQUEUE:
        return replace(
            job,
            state="PENDING",
            ending="",
            placed=(),
            supervisor=0,
            submit_time=now,
            start_time=None,
            end_time=None,
            restarts=job.restarts + 1,
        )
    return replace(job, state=ending, ending="", reason="", exit_code=exit_code, supervisor=0, end_time=now)


def forget_old(files: Files, ledger: Ledger, now: float) -> None:
    for job in list(ledger.jobs.values()):
        if job.ended and (job.end_time or 0) + ledger.min_job_age_s <= now:
            del ledger.jobs[job.id]
            files.forget(job.id)
