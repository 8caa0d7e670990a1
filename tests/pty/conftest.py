from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saia_tui.embedded import answers

Serve = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose sockets have short paths; every process that names it is ended with it."""
    directory = Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp"))
    yield directory
    _end_all_of(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def served(short: Path) -> Iterator[Serve]:
    """Starts the sample behind a real socket, again where it is called again."""
    running: list[subprocess.Popen[bytes]] = []

    def serve(*options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-m", "tests.pty.served", str(short), *options])
        running.append(process)
        deadline = time.monotonic() + 20
        while not answers(operator_socket(short)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        return process

    yield serve
    for process in running:
        process.kill()
        process.wait()


def operator_socket(directory: Path) -> Path:
    return directory / "operator" / "operator.sock"


def _end_all_of(directory: Path) -> None:
    """Local jobs and the embedded engine outlive their screen by design."""
    deadline = time.monotonic() + 10
    while pids := processes_of(directory):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        assert time.monotonic() < deadline, f"these processes do not end: {pids}"
        time.sleep(0.05)


def processes_of(directory: Path) -> list[int]:
    """Live processes whose command line or environment names the directory."""
    found = []
    name = os.fsencode(directory)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if name in said:
            found.append(int(entry.name))
    return found
