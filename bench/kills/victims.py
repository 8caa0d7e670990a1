"""What is killed, and by what one tells afterwards whose requests may have died with it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench import proxy
from bench.kills.site import Whole
from saia_engine.slurm.local import processes
from saia_engine.slurm.local.ledger import transaction
from tests.ssh.sshd import descendants

GATE, SSHD, ENGINE, INSTANCE, WORKER = "gate", "sshd connection", "engine", "instance", "proxy worker"
RESTART_S = 2.0
"""Until the engine is started again, as systemd would."""
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Kill:
    kind: str
    at: float
    """By the monotonic clock; no later than the first of its processes died."""
    wall_at: float
    instance: str = ""
    ports: frozenset[int] = frozenset()
    """Of clients whose connection the killed worker had."""
    gone_at: float = 0.0
    """Who connects to a worker between its kill and this moment may meet its end."""


def kill(site: Whole, kind: str, dice: random.Random) -> Kill:
    return KINDS[kind](site, dice)


def _gate(site: Whole, dice: random.Random) -> Kill:
    return _one_of(GATE, site.gates(site.account), dice)


def _sshd(site: Whole, dice: random.Random) -> Kill:
    return _one_of(SSHD, site.sessions(site.account), dice)


def _one_of(kind: str, pids: list[int], dice: random.Random) -> Kill:
    killed = Kill(kind, perf_counter(), time.time())
    os.kill(dice.choice(pids), signal.SIGKILL)
    return killed


def _engine(site: Whole, _: random.Random) -> Kill:
    killed = Kill(ENGINE, perf_counter(), time.time())
    site.daemons.kill("engine")
    time.sleep(RESTART_S)
    site.start_engine()
    return killed


def _instance(site: Whole, dice: random.Random) -> Kill:
    """Agent and service and all that is theirs, at once."""
    name = dice.choice(site.ready())
    with transaction(site.cluster) as ledger:
        job = next(job for job in ledger.jobs.values() if job.name.endswith(name) and not job.ended)
    marked = processes.mark(site.cluster, job)
    killed = Kill(INSTANCE, perf_counter(), time.time(), instance=name)
    processes.kill_all(marked)
    return killed


def _worker(site: Whole, dice: random.Random) -> Kill:
    """Stopped first: what connects meanwhile would be nobody's."""
    every = proxy.processes_of(site)
    keeper = next(pid for pid in every if set(every) & set(descendants(pid)))
    victim = dice.choice([pid for pid in every if pid != keeper])
    at, wall_at = perf_counter(), time.time()
    os.kill(victim, signal.SIGSTOP)
    others = [pid for pid in every if pid != victim]
    ports = clients_of(site.target.port, others)
    os.kill(victim, signal.SIGKILL)
    while victim in descendants(keeper):
        time.sleep(0.001)
    return Kill(WORKER, at, wall_at, ports=ports, gone_at=perf_counter())


KINDS: Mapping[str, Callable[[Whole, random.Random], Kill]] = {
    ENGINE: _engine,
    GATE: _gate,
    SSHD: _sshd,
    INSTANCE: _instance,
    WORKER: _worker,
}


def clients_of(port: int, others: Iterable[int]) -> frozenset[int]:
    """The ports of the clients that are connected to `port` and to none of these processes: to the remaining one."""
    theirs = {inode for pid in others for inode in _sockets(pid)}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return frozenset(
        int(row[2].rpartition(":")[2], 16)
        for row in rows
        if row[3] == ESTABLISHED and int(row[1].rpartition(":")[2], 16) == port and row[9] not in theirs
    )


def _sockets(pid: int) -> set[str]:
    """By inode."""
    found: set[str] = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            kind, _, inode = str(entry.readlink()).partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    return found
