"""What the paths share on this machine: a real sshd, the keeper of all processes, and the instance behind its agent."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import processes
from saia_engine import agent, front
from tests.e2e.daemons import Daemons
from tests.ssh.sshd import SYSTEM_PATH, Account, Sshd, SshdUnavailable
from tests.unit.agent_support import launch_content

ROOT = Path(__file__).parents[1]
MAX_SESSIONS = 300
"""Of sshd, far above its default of 10: one exec for each request needs it. Our path uses one session."""
START_LIMIT_S = 90.0


class Unavailable(Exception):
    """A path, or all of it, can't run here; the text is one line that says why."""


class Host:
    """A sshd, and a directory with all processes that are started here. A context manager; raises Unavailable."""

    def __enter__(self) -> Self:
        try:
            self.sshd = Sshd(f"MaxSessions {MAX_SESSIONS}").__enter__()
        except SshdUnavailable as exc:
            raise Unavailable(str(exc)) from None
        try:
            self.directory = Path(tempfile.mkdtemp(prefix="saia-bench-", dir="/tmp"))
            self.directory.chmod(0o755)
            self.daemons = Daemons(self.directory)
            self._open()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "daemons"):
            self.daemons.stop()
        elif hasattr(self, "directory"):
            shutil.rmtree(self.directory, ignore_errors=True)
        self.sshd.close()

    def _open(self) -> None:
        """What stands here from the beginning."""

    # -- processes

    def start(self, name: str, argv: Sequence[str], **environment: str) -> None:
        """Raises Unavailable where it can't be run."""
        base = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": str(self.directory)}
        try:
            self.daemons.start(name, argv, base | environment)
        except RuntimeError as exc:
            raise Unavailable(f"{name} does not start: {exc}") from None

    def pids(self, *words: str) -> list[int]:
        """Of what was started here, by its command line."""
        return processes.below(self.daemons.pid, *words)

    def sessions(self, account: Account) -> list[int]:
        """The sshd processes that serve this account's connections."""
        return [pid for pid, line in processes.of_user(account.uid) if line.startswith("sshd")]

    def gates(self, account: Account) -> list[int]:
        return [pid for pid, line in processes.of_user(account.uid) if "saia_engine.gate" in line]

    def wait(self, what: str, holds: Callable[[], object], limit_s: float = START_LIMIT_S) -> None:
        """Raises Unavailable when it does not come about, with the ends of the logs."""
        deadline = time.monotonic() + limit_s
        while not holds():
            if time.monotonic() > deadline:
                raise Unavailable(f"waited {limit_s:.0f} s for {what}\n{self.daemons.log_ends()}")
            time.sleep(0.05)


class Site(Host):
    """A host with one instance behind its agent."""

    def __init__(self) -> None:
        self.instance = "bench.hpc.chat.00000001"

    def _open(self) -> None:
        """As Slurm's job would: the agent from its instance's directory, the service as its child."""
        self.service_port = free_port()
        directory = self.directory / "instance"
        (directory / "tmp").mkdir(parents=True)
        launch = launch_content(
            instance=self.instance,
            command=[sys.executable, "-m", "bench.service", "--port", str(self.service_port)],
            environment={"PYTHONPATH": str(ROOT)},
        )
        (directory / agent.LAUNCH_NAME).write_text(json.dumps(launch))
        program = shutil.copy(agent.__file__, directory / "agent.py")
        self.start("agent", [sys.executable, str(program), str(directory)], TMPDIR=str(directory / "tmp"))
        self._endpoint_file = directory / front.endpoint_name(0)
        self.wait("the agent's front", self._endpoint_file.exists)
        self.wait("the service", lambda: listens(self.service_port))

    @property
    def endpoint(self) -> front.Endpoint:
        return front.parse_endpoint(self._endpoint_file.read_text())

    def agent_parts(self) -> Mapping[str, list[int]]:
        return {"agent": self.pids("agent.py"), "service": self.service_pids()}

    def service_pids(self) -> list[int]:
        return self.pids("bench.service")


def program(name: str, package: str) -> str:
    """Where it is. Raises Unavailable with Debian's package that has it."""
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise Unavailable(f"there is no {name} (Debian: {package})")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def raise_file_limit() -> None:
    """All that is started from here inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
