"""The engine as a child of the screen, where none runs: the same program, in a session of its own.

It outlives the screen and the terminal: a lost SSH connection must not cost the services their keeper.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LOG_NAME = "engine.log"
TAIL_LINES = 12
CONNECT_S = 2.0
STOP_S = 20.0


class EngineDied(Exception):
    """It ended before its socket answered. The message holds the end of its log."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def answers(path: Path) -> bool:
    """Whether someone listens at the socket.

    Raises PermissionError where we may not ask, and OSError for what has nothing to do with an engine.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionError, NotADirectoryError):
            return False
        except TimeoutError:
            return True  # it listens, but is slow: a second engine would be wrong
        except OSError as exc:
            if exc.errno == errno.EAGAIN:
                return True  # its queue of connections is full
            raise
        return True


class Embedded:
    """A running child engine. The screen ends it only when the operator says so."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self.log = log

    @classmethod
    def start(cls, config_file: Path, state_dir: Path) -> Embedded:
        """Start `saia-engine run`, its output appended to `state_dir`/engine.log. Raises OSError."""
        state_dir.mkdir(parents=True, exist_ok=True)
        log = state_dir / LOG_NAME
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "saia_engine.cli",
                    "run",
                    "--config",
                    str(config_file.absolute()),
                    "--log-file",
                    str(log.absolute()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def obituary(self) -> str:
        """How it ended, in one line."""
        code = self.exit_code
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return f"the engine started here ended {how}, see {self.log}"

    def wait_until_it_answers(
        self, socket_path: Path, timeout_s: float, sleep: Callable[[float], None] = time.sleep
    ) -> bool:
        """False if it is alive but has not answered in time. Raises EngineDied."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if answers(socket_path):
                return True
            if not self.alive:
                raise EngineDied(f"{self.obituary}\n{self.tail()}", self.exit_code or 1)
            sleep(0.05)
        return False

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
                lines = file.read().decode("utf-8", "backslashreplace").splitlines()
        except OSError as exc:
            return f"(its log can't be read: {exc})"
        return "\n".join(lines[-TAIL_LINES:])

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """SIGTERM, and wait; jobs stay. False if it still runs after that."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True
