"""What squeue, sinfo and scontrol print of the simulated cluster, in the spelling of 22.05 or of 24.11. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from saia_engine.model import Job, Node, Reservation
from saia_engine.simulator.cluster import MAX_TIME_S
from saia_engine.slurm.commands import JOB_FIELDS, JOB_TEXTS, NODE_FIELDS, NODE_TEXTS

OLD, NEW = "22.05", "24.11"


def squeue(jobs: Iterable[Job], nonce: str, dialect: str) -> str:
    """In the format that `commands.squeue` asks for."""
    end = f"|{nonce}|"
    return "".join([_printed(_job_row(job, dialect), end) for job in jobs])


def sinfo(nodes: Iterable[Node], nonce: str, dialect: str) -> str:
    """In the format that `commands.sinfo` asks for: a row for each node in each partition."""
    end = f"|{nonce}|"
    return "".join(
        [
            _printed(_node_row(node, partition, dialect), end)
            for node in nodes
            for partition in node.partitions
        ]
    )


def show_config(boot: float, now: float) -> str:
    return (
        f"Configuration data as of {int(now)}\n"
        f"BOOT_TIME               = {int(boot)}\n"
        "MinJobAge               = 300 sec\n"
    )


def show_reservations(reservations: Iterable[Reservation]) -> str:
    """As `scontrol --oneliner show reservation` does under SLURM_TIME_FORMAT=%s."""
    lines = [
        f"ReservationName={r.name} StartTime={int(r.start)} EndTime={int(r.end)}"
        f" Duration={time_limit(r.end - r.start)} Nodes={','.join(r.nodes)} NodeCnt={len(r.nodes)} CoreCnt=64"
        f" Features=(null) PartitionName=(null) Flags={','.join(r.flags)} TRES=cpu=64 Users=root"
        " Groups=(null) Accounts=(null) Licenses=(null) State=INACTIVE BurstBuffer=(null) Watts=n/a"
        for r in reservations
    ]
    return "\n".join(lines) + "\n" if lines else "No reservations in the system\n"


@lru_cache(maxsize=4096)
def _job_row(job: Job, dialect: str) -> tuple[str, ...]:
    per_node = "N/A" if not job.gpus else f"gres:gpu:{job.gpus}" if dialect == OLD else f"gres/gpu:{job.gpus}"
    return _row(
        {
            "JobID": job.id,
            "State": job.state,
            "SubmitTime": _time(job.submit_time),
            "StartTime": _time(job.start_time),
            "EndTime": _time(job.end_time),
            "TimeLimit": time_limit(job.time_limit_s),
            "RestartCnt": job.restarts,
            "NumNodes": job.node_count,
            "NumCPUs": job.cpus,
            "PriorityLong": job.priority,
            "UserName": job.user,
            "Partition": job.partition,
            "NodeList": ",".join(job.nodes),
            "tres-alloc": f"cpu={job.cpus},node=1,billing=1" + (f",gres/gpu={job.gpus}" if job.gpus else ""),
            "tres-per-job": "N/A",
            "tres-per-node": per_node,
            "Reason": job.reason or "None",
            "Name": job.name,
        },
        JOB_FIELDS,
        JOB_TEXTS,
    )


@lru_cache(maxsize=4096)
def _node_row(node: Node, partition: str, dialect: str) -> tuple[str, ...]:
    idle = node.cpus - node.cpus_allocated
    without = "gpu:0" if dialect == OLD else "gres:0"
    return _row(
        {
            "NodeList": node.name,
            "StateComplete": _state(node.state),
            "NodeAddr": node.address,
            "CPUsState": f"{node.cpus_allocated}/{idle}/0/{node.cpus}",
            "Memory": node.memory_mib,
            "Partition": partition + ("*" if partition == "gpu" else ""),
            "Available": "up",
            "Time": time_limit(MAX_TIME_S),
            "Gres": f"gpu:a100:{node.gpus}" if node.gpus else "(null)",
            "GresUsed": f"gpu:a100:{node.gpus_allocated}(IDX:0-3)" if node.gpus else without,
            "Reason": "none",
        },
        NODE_FIELDS,
        NODE_TEXTS,
    )


def _row(values: Mapping[str, object], fields: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """The plain fields as one, then each text."""
    return "|".join([str(values[name]) for name in fields]), *(str(values[name]) for name in texts)


def _printed(row: tuple[str, ...], end: str) -> str:
    return end.join(row) + end + "\n"


def _time(at: float | None) -> str:
    return "N/A" if at is None else str(int(at))


def time_limit(seconds: float | None) -> str:
    """As Slurm prints limits: `MM:SS`, `H:MM:SS`, `D-HH:MM:SS` or `UNLIMITED`."""
    if seconds is None:
        return "UNLIMITED"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _state(state: str) -> str:
    """`idle+drain*` as `IDLE+DRAIN+NOT_RESPONDING`."""
    return state.rstrip("*").upper() + ("+NOT_RESPONDING" if state.endswith("*") else "")
