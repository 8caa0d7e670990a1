"""The processes of a job: which they are, their environment, and the start of their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from saia_engine.slurm.local.ledger import Files, JobRecord

KEPT = ("PATH", "HOME", "USER", "LANG")
MARK = "SAIA_LOCAL_JOB"
LIFELINE = "SAIA_LIFELINE_FD"
NO_LIFELINE = -1
LAUNCH_DEADLINE_S = 10.0
GONE_DEADLINE_S = 5.0


def mark(files: Files, job: JobRecord) -> str:
    return f"{files.directory}#{job.id}.{job.restarts}"


def environment(files: Files, job: JobRecord, lifeline: int) -> dict[str, str]:
    """What Slurm would set, of what a job of ours may look at, and nothing of the engine's."""
    names = [name for name, _ in job.placed]
    nodes, count = ",".join(names), str(len(names))
    variables = {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "USER": job.user,
        "SLURM_JOB_ID": str(job.id),
        "SLURM_JOB_NAME": job.name,
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_NODELIST": nodes,
        "SLURM_JOB_NUM_NODES": count,
        "SLURM_NNODES": count,
        "SLURMD_NODENAME": names[0],
        MARK: mark(files, job),
    }
    if job.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in job.placed[0][1])
    if job.restarts:
        variables["SLURM_RESTART_COUNT"] = str(job.restarts)
    if lifeline != NO_LIFELINE:
        variables[LIFELINE] = str(lifeline)
    return variables


def start_supervisor(files: Files, job: JobRecord, lock: int, lifeline: int) -> None:
    """Hands the job's lock to a new supervisor, which waits for the ledger's. Raises OSError if it can't start."""
    program = Path(__file__).with_name("supervisor.py")
    inherited = [lock] if lifeline == NO_LIFELINE else [lock, lifeline]
    with files.log.open("ab") as log:
        try:
            ended = subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(program),
                    str(files.directory),
                    str(job.id),
                    str(lock),
                    str(lifeline),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={name: os.environ[name] for name in KEPT if name in os.environ},
                pass_fds=inherited,
                start_new_session=True,
                timeout=LAUNCH_DEADLINE_S,
            )
        except subprocess.TimeoutExpired as exc:
            raise OSError(str(exc)) from exc
    if ended.returncode != 0:
        raise OSError(f"the supervisor of job {job.id} ended with {ended.returncode}; see {files.log}")


def members(marked: str, root: int | None = None) -> list[int]:
    """Live processes that carry the job's mark, and all below those or below `root`, which is not one itself.

    The mark finds them when their supervisor is gone; the tree finds those that cleared their environment.
    """
    wanted = f"{MARK}={marked}".encode()
    children: dict[int, list[int]] = {}
    found: list[int] = [] if root is None else [root]
    zombies: set[int] = set()
    for pid in [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]:
        try:
            state, parent = _state_and_parent(pid)
            children.setdefault(parent, []).append(pid)
            if state in "ZX":
                zombies.add(pid)
            elif wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    seen: set[int] = set()
    while found:
        pid = found.pop()
        if pid not in seen:
            seen.add(pid)
            found += children.get(pid, [])
    return sorted(seen - zombies - {root, os.getpid()})


def _state_and_parent(pid: int) -> tuple[str, int]:
    # The command's name, in parentheses, may hold anything; the fields follow its last one.
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[1])


def send(pids: list[int], signal_number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except OSError:
            continue


def kill_all(marked: str) -> None:
    """SIGKILL for what a dead supervisor has left, until nothing is left or a deadline passes."""
    give_up_at = time.monotonic() + GONE_DEADLINE_S
    while (left := members(marked)) and time.monotonic() < give_up_at:
        send(left, signal.SIGKILL)
        time.sleep(0.01)
