"""The real engine, on the embedded cluster, started by the screen and outliving it."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from saia_tui.embedded import answers
from tests.pty.terminal import terminal

pytestmark = pytest.mark.pty

CONFIG = """
[cluster]
name = "tiny"
kind = "local"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
poll_interval = "1s"
port_range = [{first}, {last}]

[local]
nodes = 2
gpus_per_node = 2

[services.sleep]
models = ["sleep"]
command = ["{{saia_python}}", "-m", "saia_engine.demo.llm", "--uds", "{{socket}}", "--model", "sleep"]
listen = "socket"
gpus = 1
replicas = {replicas}
time_limit = "10m"
lead_floor = "6s"
min_ready = "1s"
drain_deadline = "25s"
admission_margin = "22s"
safety_margin = "2s"
"""


def config(directory: Path, replicas: int = 1) -> Path:
    file = directory / "engine.toml"
    first = 21_000 + os.getpid() % 400 * 100
    file.write_text(CONFIG.format(first=first, last=first + 99, replicas=replicas))
    return file


def tui(file: Path) -> list[str]:
    return [sys.executable, "-m", "saia_tui.cli", "--config", str(file)]


def socket(directory: Path) -> Path:
    return directory / "run" / "operator" / "operator.sock"


def test_an_engine_started_here_stays_when_asked_and_outlives_a_lost_terminal(short: Path) -> None:
    file = config(short)
    with terminal(short, tui(file)) as window:
        window.wait("sleep", "● ok", "1/1", within_s=60)
        window.press("q")
        pid = _pid(window.wait("Keep running", "Stop engine", "nothing replaces them"))
        window.press("k")
        window.wait(f"the engine (pid {pid}) keeps running", "exit code 0")
        assert answers(socket(short)) and os.getsid(pid) == pid
    with terminal(short, tui(file)) as window:
        window.wait("● ok", "1/1")
    # The terminal is gone (tmux sent SIGHUP); the engine is not.
    time.sleep(0.5)
    assert answers(socket(short))
    os.kill(pid, 0)


def test_stopping_the_engine_leaves_the_jobs(short: Path) -> None:
    with terminal(short, tui(config(short))) as window:
        window.wait("● ok", "1/1", within_s=60)
        window.press("q")
        pid = _pid(window.wait("Stop engine"))
        window.press("s")
        window.wait("exit code 0", within_s=40)
        assert not answers(socket(short))
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert any(b"saia_engine.demo.llm" in line for line in _command_lines(short))


def test_an_engine_that_cannot_start_says_why(short: Path) -> None:
    file = config(short)
    file.write_text(file.read_text().replace('kind = "local"', 'kind = "lokal"'))
    with terminal(short, tui(file)) as window:
        window.wait("did you mean local", "exit code 2")


def test_the_log_of_an_engine_that_dies_at_once_is_shown(short: Path) -> None:
    file = config(short)
    (short / "state").mkdir()
    (short / "state" / "state.db").write_bytes(b"not a journal, not a journal, not a journal" * 100)
    with terminal(short, tui(file)) as window:
        window.until(
            lambda screen: re.search(r"exit code [1-9]", screen) is not None or "not acting" in screen,
            "why the engine does not run",
            within_s=40,
        )


def test_a_stray_signal_of_the_terminal_does_not_reach_the_engine(short: Path) -> None:
    with terminal(short, tui(config(short, replicas=0))) as window:
        window.wait("stopped", within_s=60)
        window.press("q")
        pid = _pid(window.wait("Stop engine"))
        group = os.getpgid(pid)
        assert group == pid
        window.press("Escape")
        window.press("C-c")
        window.wait("Keep running")
        window.press("k")
        window.wait("exit code 0")
    os.kill(pid, 0)
    os.kill(pid, signal.SIGTERM)


def _pid(screen: str) -> int:
    found = re.search(r"pid (\d+)", screen)
    assert found is not None
    return int(found.group(1))


def _command_lines(directory: Path) -> list[bytes]:
    from tests.pty.conftest import processes_of

    lines = []
    for pid in processes_of(directory):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        except OSError:
            continue
    return lines
