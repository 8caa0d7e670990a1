"""What squeue, sinfo and scontrol print of the simulated cluster, in the spelling of 22.05 or of 24.11. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from saia_engine.model import Job, Node

OLD, NEW = "22.05", "24.11"


def squeue(jobs: Iterable[Job], nonce: str, dialect: str) -> str:
    """In the format that `commands.squeue` asks for."""
    return "".join([_job_row(job, nonce, dialect) for job in jobs])


def sinfo(nodes: Iterable[Node], nonce: str, dialect: str) -> str:
    """In the format that `commands.sinfo` asks for: a row for each node in each partition."""
    return "".join(
        _node_row(node, partition, nonce, dialect) for node in nodes for partition in node.partitions
    )


def show_config(boot: float) -> str:
    return (
        "Configuration data as of 1795516645\n"
        f"BOOT_TIME               = {int(boot)}\n"
        "MinJobAge               = 300 sec\n"
    )


def _job_row(job: Job, nonce: str, dialect: str) -> str:
    fields = (
        job.id,
        job.state,
        _time(job.submit_time),
        _time(job.start_time),
        _time(job.end_time),
        time_limit(job.time_limit_s),
        job.restarts,
        job.node_count,
        job.cpus,
        job.priority,
        job.user,
        job.partition,
        ",".join(job.nodes),
    )
    allocated = f"cpu={job.cpus},node=1,billing=1" + (f",gres/gpu={job.gpus}" if job.gpus else "")
    per_node = "N/A" if not job.gpus else f"gres:gpu:{job.gpus}" if dialect == OLD else f"gres/gpu:{job.gpus}"
    texts = (allocated, "N/A", per_node, job.reason or "None", job.name)
    return _row(fields, texts, nonce)


def _node_row(node: Node, partition: str, nonce: str, dialect: str) -> str:
    idle = node.cpus - node.cpus_allocated
    fields = (
        node.name,
        _state(node.state),
        node.address,
        f"{node.cpus_allocated}/{idle}/0/{node.cpus}",
        node.memory_mib,
        partition + ("*" if partition == "gpu" else ""),
    )
    gres = f"gpu:a100:{node.gpus}" if node.gpus else "(null)"
    used = f"gpu:a100:{node.gpus_allocated}(IDX:0-3)" if node.gpus else "gpu:0"
    if dialect == NEW and not node.gpus:
        used = "gres:0"
    return _row(fields, (gres, used, "none"), nonce)


def _row(fields: Iterable[object], texts: Iterable[str], nonce: str) -> str:
    end = f"|{nonce}|"
    return "|".join(map(str, fields)) + end + end.join(texts) + end + "\n"


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
