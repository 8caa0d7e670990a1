"""What a word of a configuration file must look like to be passed on: to Slurm, a job, a client or a path.

Each rule returns the word, or raises ValueError with a sentence for the operator. None repeats a value
that may be secret.
"""

from __future__ import annotations

import re
from pathlib import Path

from saia_engine.edge.faults import did_you_mean

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_GRES = re.compile(r"[a-z][a-z0-9_]*(?::[A-Za-z][A-Za-z0-9_.-]*)?(?::[1-9][0-9]{0,5})?")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,10}")
_OPTION = re.compile(r"(--[a-z][a-z0-9-]*)(?:=(.*))?", re.DOTALL)

SBATCH_OPTIONS = {
    "--comment": True,
    "--contiguous": False,
    "--core-spec": True,
    "--cpus-per-gpu": True,
    "--distribution": True,
    "--exclusive": None,
    "--gpu-bind": True,
    "--gpu-freq": True,
    "--gres-flags": True,
    "--hint": True,
    "--licenses": True,
    "--mem-bind": True,
    "--mem-per-gpu": True,
    "--network": True,
    "--nice": None,
    "--oversubscribe": False,
    "--prefer": True,
    "--switches": True,
    "--threads-per-core": True,
    "--tmp": True,
    "--wckey": True,
}
"""What may be in `sbatch_options`: True needs a value, False takes none, None leaves it open."""

_KEYS = {
    "--account": "account",
    "--constraint": "constraint",
    "--cpus-per-task": "cpus",
    "--exclude": "exclude",
    "--gpus": "gpus",
    "--gpus-per-node": "gpus",
    "--gres": "gres",
    "--mem": "memory",
    "--nodes": "nodes",
    "--partition": "partition",
    "--qos": "qos",
    "--reservation": "reservation",
    "--time": "time_limit",
}
_REFUSED = {
    "--array": "each instance is one job",
    "--begin": "saia decides when a replacement is needed",
    "--chdir": "the job runs in its instance directory",
    "--dependency": "saia decides when a replacement is needed",
    "--error": "the log is in the instance directory",
    "--export": "the job's environment is saia's; use the key environment",
    "--export-file": "the job's environment is saia's; use the key environment",
    "--hold": "a held job never becomes ready",
    "--job-name": "saia knows its jobs by their names",
    "--no-requeue": "saia follows a requeue and needs it",
    "--output": "the log is in the instance directory",
    "--parsable": "saia reads sbatch's answer",
    "--signal": "saia drains an instance before its job ends",
    "--wait": "saia follows its jobs itself",
    "--wrap": "use the key command or script",
}


def name(word: str, longest: int = 40) -> str:
    if len(word) > longest:
        raise ValueError(f"is longer than {longest} characters")
    if not _NAME.fullmatch(word):
        raise ValueError("must be made of a-z, 0-9 and -, with no - at either end")
    return word


def slurm_word(word: str) -> str:
    """A value of an sbatch option, such as a partition; empty leaves the option out."""
    if word.startswith("-"):
        raise ValueError("must not begin with -")
    if len(word) > 500 or not all("!" <= char <= "~" and char not in "\"'`\\$;" for char in word):
        raise ValueError("must be printable ASCII without spaces, quotes, ;, $ or \\")
    return word


def gres(word: str) -> str:
    if word and not all(_GRES.fullmatch(item) for item in word.split(",")):
        raise ValueError('must be such as "gpu:2" or "gpu:a100:2", several separated by commas')
    return word


def gpu_count(gres: str) -> int:
    """GPUs per node that a well-formed gres asks for."""
    counts = [item.split(":")[1:] for item in gres.split(",") if item.split(":")[0] == "gpu"]
    return sum(int(rest[-1]) if rest and rest[-1].isdigit() else 1 for rest in counts)


def is_gpus(gres: str) -> bool:
    """Whether a well-formed gres asks for GPUs of one kind and nothing else."""
    return gres.split(":")[0] == "gpu" and "," not in gres


def sbatch_option(word: str) -> str:
    """One of SBATCH_OPTIONS, as `--name=value` or a bare flag."""
    match = _OPTION.fullmatch(word)
    if match is None:
        raise ValueError('must be "--name=value" or "--name", in its long form')
    option, value = match.groups()
    if option in _KEYS:
        raise ValueError(f"{option} has a key of its own: {_KEYS[option]}")
    if option in _REFUSED:
        raise ValueError(f"{option} is not allowed: {_REFUSED[option]}")
    if option not in SBATCH_OPTIONS:
        hint = did_you_mean(option, SBATCH_OPTIONS) or "docs/configuration.md lists those that are"
        raise ValueError(f"{option} is not among the allowed options; {hint}")
    needs_value = SBATCH_OPTIONS[option]
    if needs_value and not value:
        raise ValueError(f"{option} needs a value: {option}=...")
    if needs_value is False and value is not None:
        raise ValueError(f"{option} takes no value")
    if value is not None and (len(value) > 500 or not all(" " <= char <= "~" for char in value)):
        raise ValueError(f"the value of {option} must be printable ASCII")
    return word


def environment_name(word: str) -> str:
    if not _ENVIRONMENT.fullmatch(word):
        raise ValueError("must be made of letters, digits and _, with no digit first")
    if word.startswith(("SLURM_", "SBATCH_", "SAIA_")):
        raise ValueError("names that begin with SLURM_, SBATCH_ or SAIA_ are set by Slurm and saia")
    return word


def without_nul(word: str) -> str:
    if "\0" in word:
        raise ValueError("must not hold a NUL character")
    return word


def model(word: str) -> str:
    if not _MODEL.fullmatch(word):
        raise ValueError("must be made of letters, digits and . _ : / @ + -, at most 200 characters")
    return word


def method(word: str) -> str:
    if not re.fullmatch(r"[A-Z]{1,20}", word):
        raise ValueError('must be an HTTP method in capitals, such as "POST"')
    if word in ("CONNECT", "TRACE"):
        raise ValueError(f"{word} is never passed on")
    return word


def http_path(word: str) -> str:
    """A path that means the same to everyone who reads it: nothing encoded, no dot segments."""
    if len(word) > 500 or not _PATH.fullmatch(word):
        raise ValueError("must begin with / and hold plain path characters only (no %, ?, # or \\)")
    if "//" in word or any(segment in (".", "..") for segment in word.split("/")):
        raise ValueError("must not hold //, /./ or /../")
    return word


def group(word: str) -> str:
    if word and not _GROUP.fullmatch(word):
        raise ValueError("must be the name of a group")
    return word


def file_path(word: str) -> str:
    """A path that no program on its way reads as more than a path: sbatch expands % and \\ in file names."""
    if not word.isprintable() or any(char in "%\\\"'`$" for char in word):
        raise ValueError("must not hold control characters, quotes, %, $ or \\")
    try:
        Path(word).expanduser()
    except RuntimeError:
        raise ValueError("names the home directory of a user who is not there") from None
    return word


def host(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}|[0-9A-Fa-f:.]{2,45}", word):
        raise ValueError("must be a host name or an address")
    return word
