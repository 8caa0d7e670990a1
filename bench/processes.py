"""What processes cost, from /proc: processor time, and memory in use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.slurm.keeper import descendants

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024

Groups = Mapping[str, Iterable[int]]
"""What a part is called -> its process ids."""


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended; 0 if it is gone."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / TICKS_PER_S if fields else 0.0


def rss_mib(pid: int) -> float:
    """Memory in use; 0 if it is gone."""
    fields = _stat(pid)
    return int(fields[21]) * PAGE / MIB if fields else 0.0


def cpu_by_part(groups: Groups) -> dict[str, float]:
    return {part: sum(map(cpu_s, pids)) for part, pids in groups.items()}


def rss_by_part(groups: Groups) -> dict[str, float]:
    return {part: sum(map(rss_mib, pids)) for part, pids in groups.items()}


def below(root: int, *words: str) -> list[int]:
    """Processes that descend from `root` and have all of these in their command line."""
    return [pid for pid in descendants(root) if all(word in _command_line(pid) for word in words)]


def of_user(uid: int) -> Iterator[tuple[int, str]]:
    """(pid, command line) of all that runs as this user."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid:
                yield int(entry.name), _command_line(int(entry.name))
        except OSError:
            continue


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Its fields from the third on: a command's name may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return []
