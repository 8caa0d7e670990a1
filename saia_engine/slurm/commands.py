"""The argument lists of Slurm's commands. Pure; every value stays one argument, for no shell reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from saia_engine.model import TOKEN_PREFIX
from saia_engine.slurm.port import JobRequest

# Width 0 prints a field whole; without a width it is cut at 20 characters.
# What a user can choose comes behind the nonce, so that nothing in it can pass for a field or a row.
JOB_FIELDS = (
    "JobID State SubmitTime StartTime EndTime TimeLimit RestartCnt NumNodes NumCPUs PriorityLong"
    " UserName Partition NodeList"
).split()
JOB_TEXTS = "tres-alloc tres-per-job tres-per-node Reason Name".split()
NODE_FIELDS = "NodeList StateComplete NodeAddr CPUsState Memory Partition Available Time".split()
NODE_TEXTS = "Gres GresUsed Reason".split()


def squeue(nonce: str) -> list[str]:
    """Every user's jobs in every state, hidden partitions included: one RPC."""
    form = _row_format(JOB_FIELDS, JOB_TEXTS, nonce)
    return ["squeue", "--noheader", "--noconvert", "--all", "--local", "--states=all", "-O", form]


def sinfo(nonce: str) -> list[str]:
    """One row for each node in each partition."""
    form = _row_format(NODE_FIELDS, NODE_TEXTS, nonce)
    return ["sinfo", "--noheader", "--noconvert", "--all", "--local", "--Node", "-O", form]


def show_reservations() -> list[str]:
    """One line for each reservation, of fields that have a name."""
    return ["scontrol", "--oneliner", "show", "reservation"]


def show_config() -> list[str]:
    """Prints BOOT_TIME, which tells a restart of the controller, and the controller's own time."""
    return ["scontrol", "show", "config"]


def sbatch(request: JobRequest) -> list[str]:
    """The job starts in the login environment of its user on the node, plus SAIA_INSTANCE: nothing of ours."""
    spec = request.spec
    wanted = {
        "cpus-per-task": str(spec.cpus),
        "gres": spec.gres,
        "mem": f"{spec.memory_mib}M" if spec.memory_mib else "",
        "partition": spec.partition,
        "account": spec.account,
        "qos": spec.qos,
        "constraint": spec.constraint,
        "reservation": spec.reservation,
        "exclude": spec.exclude,
    }
    return [
        "sbatch",
        "--propagate=NONE",  # the engine's resource limits are not the job's
        *spec.sbatch_options,  # before ours: of an option given twice, the last counts
        "--parsable",
        f"--job-name={request.name}",
        f"--output={_literal_path(str(request.output))}",
        "--open-mode=append",
        f"--chdir={request.workdir}",
        f"--time={math.ceil(spec.time_limit_s / 60)}",
        f"--nodes={spec.nodes}",
        "--ntasks-per-node=1",
        *([f"--time-min={math.ceil(spec.time_min_s / 60)}"] if spec.time_min_s > 0 else []),
        *(f"--{option}={value}" for option, value in wanted.items() if value),
        f"--export=SAIA_INSTANCE={request.name.removeprefix(f'{TOKEN_PREFIX}.')}",
        "--requeue",
        str(request.script),
    ]


def scancel(job_id: int, name: str, user: str) -> list[str]:
    """Slurm itself refuses where name or user do not match."""
    return ["scancel", f"--name={name}", f"--user={user}", str(job_id)]


def _row_format(fields: Sequence[str], texts: Sequence[str], nonce: str) -> str:
    """`field|field|NONCE|text|NONCE|text|NONCE|`: see `text.rows`."""
    columns = [f"{field}:0|" for field in fields[:-1]]
    columns += [f"{field}:0|{nonce}|" for field in (fields[-1], *texts)]
    return ",".join(columns)


def _literal_path(path: str) -> str:
    """Slurm fills in `%j` and its kin in output paths; `%%` is a plain `%`."""
    return path.replace("%", "%%")
