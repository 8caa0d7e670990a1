"""What Slurm's commands print, as values of the model. Pure.

Whoever may submit a job can put newlines and separators into its name, and so forge rows. Each poll therefore
has a fresh nonce in its format: a row's plain fields, then each text, end at the nonce, and a text holds
whatever it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from saia_engine.edge.text import clean
from saia_engine.model import Job, Node, Partition, Reservation
from saia_engine.slurm.commands import JOB_FIELDS, JOB_TEXTS, NODE_FIELDS, NODE_TEXTS

NODE_LIST_LIMIT = 65_536
ROWS_KEPT = 65_536
"""Most rows are the same from poll to poll: so many are remembered, for jobs and for nodes."""
_NO_TIME = frozenset({"", "0", "N/A", "n/a", "Unknown", "NONE", "None", "(null)"})
_NO_LIMIT = frozenset({"", "UNLIMITED", "infinite", "NOT_SET", "INVALID", "Partition_Limit", "N/A", "n/a"})
_NO_TEXT = frozenset({"", "N/A", "n/a", "(null)", "none", "None"})
_LIMIT = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")
_RESERVATION = re.compile(r"ReservationName=(.*?) StartTime=(\d+) EndTime=(\d+)(?: (.*))?")
_NAMED_FIELD = re.compile(r"(?:^| )(Nodes|Flags|Users|Accounts)=(\S*)")
_CLOSED_PARTITION = frozenset({"down", "drain", "inactive", "inact"})
_BOOT_TIME = re.compile(r"^BOOT_TIME\s*=\s*(\d+)\s*$", re.MULTILINE)
_CONFIG_TIME = re.compile(r"^Configuration data as of (\d+)\s*$", re.MULTILINE)
_JOB_ID = re.compile(r"(\d+)(?:;[\w.-]+)?")


class Unparsable(ValueError):
    """Slurm printed what this reader does not know; the text says what, sanitised."""


# ---------------------------------------------------------------- rows


def rows(output: str, nonce: str, fields: int, texts: int) -> Iterator[tuple[str, ...]]:
    """The rows of a nonce'd format, each `fields` plain values and `texts` free ones. Raises Unparsable."""
    return (_row(printed, fields) for printed in _printed_rows(output, nonce, texts))


def _printed_rows(output: str, nonce: str, texts: int) -> Iterator[tuple[str, ...]]:
    """Each row as its plain values in one piece and its free texts. Raises Unparsable."""
    *pieces, rest = output.split(f"|{nonce}|")
    if rest.strip("\n") or len(pieces) % (texts + 1):
        raise Unparsable(f"the last row is cut short: {_quoted(rest or pieces[-1])}")
    return zip(*[iter(pieces)] * (texts + 1), strict=True)


def _row(printed: tuple[str, ...], fields: int) -> tuple[str, ...]:
    head, *free = printed
    plain = head.removeprefix("\n").split("|")
    if len(plain) != fields:
        raise Unparsable(f"a row has {len(plain)} fields instead of {fields}: {_quoted(head)}")
    return (*plain, *free)


def jobs(output: str, nonce: str) -> tuple[Job, ...]:
    """squeue's answer to `commands.squeue(nonce)`. Raises Unparsable."""
    return tuple(map(_job, _printed_rows(output, nonce, len(JOB_TEXTS))))


def nodes(output: str, nonce: str) -> tuple[Node, ...]:
    """sinfo's answer to `commands.sinfo(nonce)`, one Node for all rows of its name. Raises Unparsable."""
    found: dict[str, tuple[str, ...]] = {}
    partitions: dict[str, list[str]] = {}
    for row in rows(output, nonce, len(NODE_FIELDS), len(NODE_TEXTS)):
        found[row[0]] = row
        partition = row[NODE_FIELDS.index("Partition")].rstrip("*")  # the default one is marked so
        if partition not in _NO_TEXT:
            partitions.setdefault(row[0], []).append(partition)
    return tuple(_node(row, tuple(partitions.get(name, ()))) for name, row in found.items())


def partitions(output: str, nonce: str) -> tuple[Partition, ...]:
    """The partitions in the same answer, as far as they have nodes. Raises Unparsable."""
    members: dict[tuple[str, str, str], list[str]] = {}
    for row in rows(output, nonce, len(NODE_FIELDS), len(NODE_TEXTS)):
        name, available, limit = (row[NODE_FIELDS.index(f)] for f in ("Partition", "Available", "Time"))
        if name not in _NO_TEXT:
            members.setdefault((name, available, limit), []).append(row[0])
    return tuple(
        Partition(
            name=name.rstrip("*"),
            up=available not in _CLOSED_PARTITION,
            max_time_s=time_limit(limit),
            nodes=tuple(dict.fromkeys(names)),
            default=name.endswith("*"),
        )
        for (name, available, limit), names in members.items()
    )


def reservations(output: str) -> tuple[Reservation, ...]:
    """From `scontrol --oneliner show reservation`; a line that is none, or that cannot be read, is left out.

    Only operators of the cluster make reservations, so what a name forges is no worse than what they may do.
    """
    lines = (_RESERVATION.fullmatch(line.rstrip()) for line in output.split("\n"))
    return tuple(_reservation(*found.groups("")) for found in lines if found)


def _reservation(name: str, start: str, end: str, rest: str) -> Reservation:
    told: dict[str, str] = {}
    for key, value in _NAMED_FIELD.findall(rest):
        told.setdefault(
            key, "" if value in _NO_TEXT else value
        )  # a comment, which is last, may look like one
    try:
        nodes = node_names(told.get("Nodes", ""))
    except Unparsable:
        nodes = ()
    flags, users, accounts = (
        tuple(word for word in told.get(key, "").split(",") if word) for key in ("Flags", "Users", "Accounts")
    )
    return Reservation(name, float(start), float(end), nodes, flags, users, accounts)


@lru_cache(maxsize=ROWS_KEPT)
def _job(printed: tuple[str, ...]) -> Job:
    row = _row(printed, len(JOB_FIELDS))
    (
        id_,
        state,
        submit,
        start,
        end,
        limit,
        restarts,
        node_count,
        cpus,
        priority,
        user,
        partition,
        node_list,
    ) = row[: len(JOB_FIELDS)]
    allocated, per_job, per_node, reason, name = row[len(JOB_FIELDS) :]
    state = job_state(state)
    count = _count(node_count) or 1
    return Job(
        id=_job_id(id_),
        name=name,
        user=user,
        state=state,
        reason="" if reason in _NO_TEXT else reason,
        partition=partition,
        submit_time=epoch(submit) or 0.0,
        start_time=epoch(start),
        # A pending job's end is the scheduler's guess, not a promise.
        end_time=None if state == "PENDING" else epoch(end),
        time_limit_s=time_limit(limit),
        restarts=_number(restarts, "RestartCnt"),
        nodes=node_names(node_list),
        node_count=count,
        gres=_gres(per_node) or _gres(per_job),
        gpus=gpus(allocated)[1] or gpus(per_job)[1] or count * gpus(per_node)[1],
        cpus=_count(cpus),
        priority=_count(priority),
    )


@lru_cache(maxsize=ROWS_KEPT)
def _node(row: tuple[str, ...], partitions: tuple[str, ...]) -> Node:
    name, state, address, cpu_states, memory = row[:5]
    gres, gres_used, reason = row[len(NODE_FIELDS) :]
    cpus = cpu_states.split("/")  # allocated/idle/other/total
    if len(cpus) != 4:
        raise Unparsable(f"CPUsState is {_quoted(cpu_states)}")
    gpu_type, gpu_count = gpus(gres)
    return Node(
        name=name,
        state=node_state(state),
        address=name if address in _NO_TEXT else address,
        partitions=partitions,
        reason="" if reason in _NO_TEXT else reason,
        cpus=_number(cpus[3], "CPUsState"),
        cpus_allocated=_number(cpus[0], "CPUsState"),
        memory_mib=_count(memory),
        gpu_type=gpu_type,
        gpus=gpu_count,
        gpus_allocated=gpus(gres_used)[1],
    )


# ---------------------------------------------------------------- single values


@lru_cache(maxsize=256)
def job_state(word: str) -> str:
    """The state in upper case, without what some commands append: `CANCELLED by 0`, `CANCELLED+`.

    Of several, as in `RUNNING,COMPLETING`, it is the one that squeue shows.
    """
    base, *flags = re.split(r"[ +,]", word.strip().upper())
    return "COMPLETING" if "COMPLETING" in flags else base


def node_state(word: str) -> str:
    """`IDLE+DRAIN+NOT_RESPONDING` as `idle+drain*`."""
    base, *flags = word.strip().lower().split("+")
    silent = "*" if "not_responding" in flags or base.endswith("*") else ""
    return "+".join([base.rstrip("*"), *(flag for flag in flags if flag != "not_responding")]) + silent


def epoch(word: str) -> float | None:
    """A time under SLURM_TIME_FORMAT=%s; None where Slurm has none. Raises Unparsable."""
    return None if word in _NO_TIME else float(_number(word, "a time"))


@lru_cache(maxsize=4096)
def time_limit(word: str) -> float | None:
    """`MM:SS`, `H:MM:SS` or `D-HH:MM:SS` in seconds; None for no or an unknown limit. Raises Unparsable."""
    if word in _NO_LIMIT:
        return None
    found = _LIMIT.fullmatch(word)
    if found is None or not word.isascii():
        raise Unparsable(f"the time limit is {_quoted(word)}")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


@lru_cache(maxsize=4096)
def node_names(compressed: str) -> tuple[str, ...]:
    """`gpu[01-03,07],a[1-2]b[3-4]` as single names, in Slurm's order. Raises Unparsable."""
    if compressed in _NO_TEXT:
        return ()
    parts = re.findall(r"(?:[^,\[\]]|\[[0-9,-]+\])+", compressed)  # the commas outside of brackets part them
    if ",".join(parts) != compressed:
        raise Unparsable(f"the node list is {_quoted(compressed)}")
    names = [name for part in parts for name in _expand(part)]
    if len(names) > NODE_LIST_LIMIT:
        raise Unparsable(f"more than {NODE_LIST_LIMIT} nodes in {_quoted(compressed)}")
    return tuple(names)


@lru_cache(maxsize=4096)
def gpus(text: str) -> tuple[str, int]:
    """(type, count) of the GPUs in any of Slurm's spellings; type is empty for none or several, count 0 for none.

    `gpu:2`, `gpu:a100:4(S:0-1)`, `gres:gpu:a100:2`, `gres/gpu:2`, `cpu=8,gres/gpu=2,gres/gpu:a100=2`, `N/A`.
    """
    total, typed = 0, {}
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        words = re.split("[:=]", re.sub(r"^gres[:/]", "", item))
        if words[0] != "gpu":
            continue
        number = words.pop() if len(words) > 1 and _is_number(words[-1]) else "1"
        kind = words[1] if len(words) > 1 else ""
        if "=" in item and not kind:
            total = int(number)  # already the sum of the typed ones beside it
        typed[kind] = typed.get(kind, 0) + int(number)
    kinds = [kind for kind in typed if kind]
    return (kinds[0] if len(kinds) == 1 else ""), total or sum(typed.values())


def boot_time(output: str) -> float:
    """From `scontrol show config`. Raises Unparsable."""
    found = _BOOT_TIME.search(output)
    if found is None:
        raise Unparsable("there is no BOOT_TIME in seconds")
    return float(found[1])


def controller_time(output: str) -> float:
    """The controller's clock, from `scontrol show config`; 0 where that does not tell it."""
    found = _CONFIG_TIME.search(output)
    return float(found[1]) if found else 0.0


def submitted_id(output: str) -> int:
    """From `sbatch --parsable`: `123` or `123;cluster`. Raises Unparsable."""
    found = _JOB_ID.fullmatch(output.strip())
    if found is None or not found[1].isascii() or int(found[1]) == 0:
        raise Unparsable(f"there is no job id in {_quoted(output)}")
    return int(found[1])


def first_line(text: str) -> str:
    """The first line that says something, sanitised, without the command's own name before it."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return clean(re.sub(r"^\S+: ((error|fatal): )?", "", line.strip()), 300)


# ---------------------------------------------------------------- refusals

# What the controller answers to a job it does not take, and what sbatch says before it asks.
_REFUSED = (
    "Access denied to requested reservation",
    "Access/permission denied",
    "Burst Buffer request invalid",
    "CPU count specification invalid",
    "Circular job dependency",
    "Duplicate generic resource (gres) specification",
    "Invalid GRES specification",
    "Invalid Trackable RESource",
    "Invalid account",
    "Invalid feature specification",
    "Invalid generic resource",
    "Invalid job array specification",
    "Invalid license specification",
    "Invalid mcs_label specified",
    "Invalid node name",
    "Invalid partition name",
    "Invalid preferred feature specification",
    "Invalid qos specification",
    "Invalid time-min specification",
    "Invalid user id",
    "Invalid wckey specification",
    "Job --batch option is invalid",
    "Job dependency problem",
    "Job size specification",
    "Job violates accounting/QOS policy",
    "Memory required by task is not available",
    "More processors requested than permitted",
    "Multiple partition job request not supported",
    "No partition specified",
    "Node count specification invalid",
    "Pathname of a file, directory or other parameter too long",
    "Requested GRES option unsupported",
    "Requested account has breached requested QOS usage threshold",
    "Requested more tasks than available processors",
    "Requested node configuration is not available",
    "Requested nodes not in this partition",
    "Requested partition configuration not available",
    "Requested reservation is invalid",
    "Requested reservation not usable now",
    "Requested time limit is invalid",
    "Required partition not available",
    "System submissions disabled",
    "Task count specification invalid",
    "Task distribution specification invalid",
    "Time limit specification required",
    "User's group not permitted",
)
_VERDICT = re.compile(r"^\S*sbatch: error: Batch job submission failed: (.*)$", re.MULTILINE)
_BEFORE_ASKING = re.compile(
    r"^\S*sbatch: (unrecognized |invalid |ambiguous )?option "
    r"|^\S*sbatch: (error|fatal): "
    r"(Unable to open file|Invalid --|Invalid generic resource|Batch script|This does not look like)",
    re.MULTILINE,
)
_DOUBTS = re.compile(
    "timed out|unable to contact|connect|temporarily|communication|zero bytes|authentication", re.IGNORECASE
)


def provably_refused(stderr: str) -> bool:
    """Whether a failed sbatch says that the controller, or sbatch itself, refused. When in doubt: no."""
    if _DOUBTS.search(stderr):
        return False
    verdicts = _VERDICT.findall(stderr)
    return all(verdict.startswith(_REFUSED) for verdict in verdicts) and bool(
        verdicts or _BEFORE_ASKING.search(stderr)
    )


_GONE = ("Invalid job id specified", "already completing or completed")


def is_gone(stderr: str) -> bool:
    """Whether a failed scancel says that there is nothing left to cancel."""
    return any(words in stderr for words in _GONE)


# ---------------------------------------------------------------- details


def _number(word: str, what: str) -> int:
    if not _is_number(word):
        raise Unparsable(f"{what} is {_quoted(word)}")
    return int(word)


def _job_id(word: str) -> int:
    """Of an array's task (`123_4`), or all that wait (`123_[1-5%2]`), and of a het job's part (`123+1`): 123."""
    return int(word) if _is_number(word) else _number(re.split(r"[_+]", word, maxsplit=1)[0], "JobID")


@lru_cache(maxsize=4096)
def _count(word: str) -> int:
    """A number that nothing is decided by: 0 where it can't be read, of `64000+` or `1-4` the first."""
    found = re.match(r"[0-9]{1,19}", word)
    return int(found[0]) if found else 0


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 20


@lru_cache(maxsize=4096)
def _gres(text: str) -> str:
    return "" if text in _NO_TEXT else re.sub(r"(^|,)gres[:/]", r"\1", text)


def _quoted(text: str) -> str:
    return f"`{clean(text, 80)}`"


def _expand(part: str) -> list[str]:
    """One name, or all that its brackets stand for."""
    names = [""]
    for literal, ranges in re.findall(r"([^\[\]]+)|\[([0-9,-]+)\]", part):
        endings = [literal] if literal else [each for one in ranges.split(",") for each in _range(one)]
        if len(names) * len(endings) > NODE_LIST_LIMIT:
            raise Unparsable(f"more than {NODE_LIST_LIMIT} nodes in {_quoted(part)}")
        names = [name + ending for name in names for ending in endings]
    return names


def _range(text: str) -> list[str]:
    """`01-03` as 01, 02, 03; the width is the first number's."""
    first, _, last = text.partition("-")
    low, high = _number(first, "a node number"), _number(last or first, "a node number")
    if high - low >= NODE_LIST_LIMIT or high < low:
        raise Unparsable(f"the node list holds the range {_quoted(text)}")
    return [str(number).zfill(len(first)) for number in range(low, high + 1)]
