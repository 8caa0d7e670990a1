"""A real Slurm of one's own on this machine: munged, slurmctld and a slurmd a node, with GPUs that are not there.

All of it lives in one temporary directory and on ports of its own, beside any munge or Slurm that the machine
has. `python -m tests.slurm.cluster` (`make cluster`) runs one until Ctrl-C. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import clean_login
from tests.slurm.versions import LATER, NATIVE, Version, chosen

# Below the kernel's ephemeral range, so that no outgoing connection takes one first.
PORTS = range(21_000, 32_000)
START_LIMIT_S = 40.0

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/socket
StateSaveLocation={dir}/state
SlurmctldPidFile={dir}/slurmctld.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmdLogFile={dir}/slurmd.%n.log
SlurmdSpoolDir={dir}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
KillWait={kill_wait_s}
MinJobAge={min_job_age_s}
MessageTimeout={message_timeout_s}
{version}
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=short Nodes={first_node} MaxTime=30 State=UP
"""


class ClusterUnavailable(Exception):
    """This machine cannot run the cluster; the text says why."""


class Cluster:
    """One running cluster; a context manager. Raises ClusterUnavailable where it cannot run.

    Nodes are `gpu01`, ...; partitions `gpu` (default) and `short` (gpu01 only, at most 30 minutes).
    """

    def __init__(
        self,
        nodes: int = 4,
        *,
        gpus: int = 4,
        cpus: int = 16,
        memory_mib: int = 64_000,
        kill_wait_s: int = 5,
        min_job_age_s: int = 300,
        message_timeout_s: int = 5,
        version: Version | None = None,
    ) -> None:
        self.version = version or chosen()
        self.node_names = tuple(f"gpu{number:02d}" for number in range(1, nodes + 1))
        self.gpus, self.cpus, self.memory_mib = gpus, cpus, memory_mib
        self._settings = {
            "kill_wait_s": kill_wait_s,
            "min_job_age_s": min_job_age_s,
            "message_timeout_s": message_timeout_s,
        }
        self.dir = Path()
        self._keeper: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------ what tests use

    @property
    def conf(self) -> Path:
        """What SLURM_CONF must name for Slurm's commands to reach this cluster."""
        return self.dir / "slurm.conf"

    @property
    def path(self) -> str:
        """The PATH on which this cluster's version of Slurm comes first."""
        return self.version.path

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": self.path, "LANG": "C", "HOME": "/root", "SLURM_CONF": str(self.conf)}

    @property
    def keeper_pid(self) -> int:
        """The process from which all of the cluster's descend, jobs included."""
        assert self._keeper is not None
        return self._keeper.pid

    def run(
        self, *argv: str, check: bool = True, timeout_s: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one command against this cluster. Raises CalledProcessError where `check`."""
        return subprocess.run(
            argv, env=self.environment, check=check, capture_output=True, text=True, timeout=timeout_s
        )

    def kill_controller(self) -> None:
        self._signal("slurmctld", signal.SIGKILL)

    def start_controller(self, *, cold: bool = False) -> None:
        """Start it again and wait until it answers; `cold` forgets all jobs."""
        self._start("slurmctld", "slurmctld", "-D", *(["-c"] if cold else []))
        self._wait("slurmctld to answer", lambda: self._answers("scontrol", "ping", want="UP"))

    def pause_controller(self) -> None:
        """SIGSTOP: it takes connections, and answers none."""
        self._signal("slurmctld", signal.SIGSTOP)

    def resume_controller(self) -> None:
        self._signal("slurmctld", signal.SIGCONT)

    def kill_node(self, name: str) -> None:
        """End its slurmd; its jobs' processes go on."""
        self._signal(name, signal.SIGKILL)

    def start_node(self, name: str) -> None:
        self._start(name, "slurmd", "-D", "-N", name, *self.version.slurmd_options)

    def drain_node(self, name: str, reason: str = "maintenance") -> None:
        self.run("scontrol", "update", f"NodeName={name}", "State=DRAIN", f"Reason={reason}")

    def resume_node(self, name: str) -> None:
        self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")

    def cancel_all(self) -> None:
        """End all jobs and wait until their nodes are free."""
        for name in self.run("squeue", "-h", "-o", "%A").stdout.split():
            self.run("scancel", name)
        self._wait("jobs to end", lambda: not self.run("squeue", "-h", "-o", "%A").stdout.split())

    # ------------------------------------------------------------ life

    def start(self) -> Self:
        explain_missing(self.version)
        self.dir = Path(tempfile.mkdtemp(prefix="saia-slurm-", dir="/tmp"))
        self.dir.chmod(0o755)  # jobs of other users read the configuration, too
        self._keeper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("keeper.py")), str(self.dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._write_files()
            self._start_daemons()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process that came from this cluster, jobs included, and remove its directory."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None and self._keeper.stdout is not None
            self._keeper.stdin.close()
            self._keeper.stdout.close()
            self._keeper.wait(30)
            self._keeper = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_files(self) -> None:
        for name, mode in (("munge", 0o755), ("state", 0o700), ("devices", 0o755)):
            (self.dir / name).mkdir(mode=mode)
        (self.dir / "munge" / "key").touch(mode=0o600)
        (self.dir / "munge" / "key").write_bytes(os.urandom(128))
        devices = [self.dir / "devices" / f"nvidia{number}" for number in range(self.gpus)]
        for device in devices:
            make_null_device(device)

        controller_port, *ports = free_ports(len(self.node_names) + 1)
        gres = f"Gres=gpu:a100:{self.gpus}" if self.gpus else ""
        lines = [
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={self.cpus}"
            f" RealMemory={self.memory_mib} {gres}"
            for name, port in zip(self.node_names, ports, strict=True)
        ]
        self.conf.write_text(
            SLURM_CONF.format(
                name=self.dir.name.replace("_", "-").lower(),
                dir=self.dir,
                controller_port=controller_port,
                nodes="\n".join(lines),
                version=self.version.configure(self.dir),
                first_node=self.node_names[0],
                **self._settings,
            )
        )
        if self.gpus:
            last = self.gpus - 1
            files = f"{self.dir}/devices/nvidia[0-{last}]" if last else str(devices[0])
            (self.dir / "gres.conf").write_text(
                "".join(f"NodeName={name} Name=gpu Type=a100 File={files}\n" for name in self.node_names)
            )
        if self.version.number() >= (23, 11):
            (self.dir / "cgroup.conf").write_text("CgroupPlugin=disabled\n")

    def _start_daemons(self) -> None:
        munge = self.dir / "munge"
        # --force: as root it warns, and a temporary directory is not what it expects
        self._start(
            "munged", "munged", "--foreground", "--force",
            f"--socket={munge}/socket", f"--key-file={munge}/key", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self._wait("munged", (munge / "socket").exists)
        self.start_controller()
        for name in self.node_names:
            self.start_node(name)
        self._wait("all nodes to be idle", self._all_idle)

    def _all_idle(self) -> bool:
        answer = self.run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%T", check=False)
        return answer.stdout.split() == ["idle"] * len(self.node_names)

    def _answers(self, *argv: str, want: str) -> bool:
        answer = self.run(*argv, check=False)
        return answer.returncode == 0 and want in answer.stdout

    def _start(self, name: str, program: str, *options: str) -> None:
        argv = clean_login.argv(shutil.which(program, path=self.path) or program, *options)
        log = str(self.dir / f"{name}.out")
        self._order({"start": name, "argv": argv, "log": log, "env": self.environment})

    def _signal(self, name: str, number: int) -> None:
        self._order({"signal": name, "number": int(number)})

    def _order(self, order: dict[str, object]) -> None:
        assert self._keeper is not None and self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline().decode().strip()
        if answer != "ok":
            raise RuntimeError(f"the cluster's keeper says: {answer or 'nothing, it ended'}")

    def _wait(self, what: str, done) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"waited {START_LIMIT_S:.0f} s for {what}; its logs end:\n{self.log_ends()}"
                )
            time.sleep(0.1)

    def log_ends(self, lines: int = 8) -> str:
        """The last lines of each log, for the message of a failed start."""
        files = sorted([*self.dir.glob("*.log"), *self.dir.glob("*.out"), *self.dir.glob("munge/log")])
        return "\n".join(
            f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
            for file in files
        )


# ---------------------------------------------------------------- what the machine has


def explain_missing(version: Version | None = None) -> None:
    """Raise ClusterUnavailable with the one reason why no cluster can run here."""
    if os.geteuid() != 0:
        raise ClusterUnavailable("the test cluster needs root: Slurm's daemons start jobs as their users")
    if missing := (version or chosen()).missing():
        raise ClusterUnavailable(missing)


def make_null_device(path: Path) -> None:
    """A device file as gres.conf wants one a GPU; it is /dev/null by another name."""
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        raise ClusterUnavailable("device files cannot be made here: the container lacks CAP_MKNOD") from None


def free_ports(count: int) -> list[int]:
    """So many TCP ports that nobody listens on; each is held until all are found."""
    held: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            candidate = socket.socket()
            try:
                candidate.bind(("0.0.0.0", port))
            except OSError:
                candidate.close()
                continue
            held.append(candidate)
            if len(held) == count:
                return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()
    raise ClusterUnavailable(f"no {count} free ports in {PORTS.start}-{PORTS.stop - 1}")


# ---------------------------------------------------------------- make cluster


def main(argv: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm.cluster", description="A real Slurm until Ctrl-C."
    )
    parser.add_argument("--nodes", type=int, default=4, choices=range(1, 17), metavar="1-16")
    parser.add_argument("--gpus", type=int, default=4, choices=range(9), metavar="0-8", help="a node")
    parser.add_argument("--slurm", default=chosen().name, choices=[each.name for each in (NATIVE, LATER)])
    options = parser.parse_args(None if argv is None else list(argv))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        version = next(each for each in (NATIVE, LATER) if each.name == options.slurm)
        print(f"starting Slurm with {options.nodes} nodes of {options.gpus} GPUs ...", flush=True)
        with Cluster(options.nodes, gpus=options.gpus, version=version) as cluster:
            first = f"  export PATH={version.place}/bin:$PATH\n" if version.place else ""
            print(f"it runs. In another terminal:\n\n{first}  export SLURM_CONF={cluster.conf}\n  sinfo\n")
            print(f"Logs: {cluster.dir}. Ctrl-C ends it, with all its jobs.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("ended: no process of it is left", flush=True)
    except ClusterUnavailable as exc:
        print(f"no cluster: {exc}", file=sys.stderr)
        return 3
    except RuntimeError as exc:
        print(f"the cluster did not start: {exc}", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    # A second Ctrl-C must not stop the taking down.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
