"""The demo's child processes, all on one lifeline: a pipe whose one write end is ours.

Each is in a session of its own, so that Ctrl-C reaches only us; and each ends with the lifeline, so that nothing
outlives us, whatever we die of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from saia_engine.edge import lifeline

TAIL_LINES = 15
TAIL_BYTES = 8192
LOOK_S = 0.02
LIFELINE_S = 5.0
"""Within it, everything has gone after the end of the lifeline."""

T = TypeVar("T")


class DemoFailed(Exception):
    """A part of the demo failed. The text, of several lines, says which, and holds the end of its log."""


class Part:
    """One child process, its output in a log."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    def check(self) -> None:
        """Raises DemoFailed if it has ended."""
        code = self._process.poll()
        if code is not None:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise DemoFailed(f"the {self.name} {how}; the end of its log:\n{self.tail()}")

    def wait_for(self, what: str, look: Callable[[], T | None], timeout_s: float) -> T:
        """What `look` finds, once it finds something. Raises DemoFailed if it does not, or if the part ends."""
        deadline = time.monotonic() + timeout_s
        while (found := look()) is None:
            self.check()
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the {self.name} has not {what} within {timeout_s:.0f} s; the end of its log:\n{self.tail()}"
                )
            time.sleep(LOOK_S)
        return found

    def tail(self) -> str:
        """The last lines of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().decode("utf-8", "backslashreplace").splitlines()
        return "\n".join(lines[-TAIL_LINES:]) or "(empty)"

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """Until it has ended; after the time, until it is killed."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Parts:
    """Starts parts, and holds the end of the lifeline that keeps them alive."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read_end, self._write_end = os.pipe()
        self.lifeline = f"pipe:[{os.fstat(self._read_end).st_ino}]"
        """As /proc shows it."""
        self._started: list[Part] = []

    def start(self, name: str, module: str, *arguments: str | Path) -> Part:
        """Run a module of ours. Raises OSError."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, lifeline.VARIABLE: str(self._read_end)},
                pass_fds=(self._read_end,),
                start_new_session=True,
            )
        part = Part(name, process, log)
        self._started.append(part)
        return part

    def check(self) -> None:
        """Raises DemoFailed if one has ended."""
        for part in self._started:
            part.check()

    def cut(self) -> None:
        """End the lifeline: all that is left must go at once."""
        for descriptor in (self._write_end, self._read_end):
            os.close(descriptor)
        for part in self._started:
            part.wait(LIFELINE_S)
