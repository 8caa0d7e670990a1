"""`saia-tui --demo` in a real terminal: what it shows, and what is left when it is left or killed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saia_engine.demo.place import remove_forsaken
from tests.e2e.demo_keeper import command_line, processes
from tests.pty.terminal import Terminal, terminal

pytestmark = pytest.mark.pty

SCREEN = [sys.executable, "-m", "saia_tui.cli", "--demo"]
TRAFFIC = "-m saia_engine.demo.traffic"
AFTER_KILL_S = 5


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Terminal]:
    with terminal(tmp_path, SCREEN) as window:
        yield window


def demo_of(window: Terminal) -> tuple[int, Path]:
    """Pid of its screen, and where the demo has its files."""
    (shell,) = window.tmux("list-panes", "-F", "#{pane_pid}").split()
    tree = processes()
    screen = next(pid for pid, (_, parent) in tree.items() if parent == int(shell))
    traffic = next(pid for pid in tree if tree[pid][1] == screen and TRAFFIC in command_line(pid))
    return screen, Path(command_line(traffic).partition("--report=")[2].split()[0]).parent


def left_of(directory: Path) -> list[str]:
    """Processes that name it in their command line or, as jobs do, in their environment."""
    found = []
    for pid in processes():
        try:
            said = b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if os.fsencode(directory) in said:
            found.append(f"{pid}: {command_line(pid)}")
    return found


def served(screen: str) -> bool:
    """Both services are up, and requests flow at a rate."""
    rates = re.findall(r"(?:chat|embed) +● ok +2/2 .*?:\d\d +(\d+\.\d)", screen)
    return len(rates) == 2 and all(float(rate) > 0 for rate in rates)


def test_it_shows_a_site_at_work_and_leaves_nothing(window: Terminal) -> None:
    window.until(served, "two services with requests", within_s=40)
    _, directory = demo_of(window)
    assert len(left_of(directory)) >= 16
    window.press("q")
    window.wait("exit code 0")
    assert left_of(directory) == []
    assert not directory.exists()


def test_killed_it_leaves_no_process(window: Terminal) -> None:
    window.until(served, "two services with requests", within_s=40)
    screen, directory = demo_of(window)
    os.kill(screen, signal.SIGKILL)
    deadline = time.monotonic() + AFTER_KILL_S
    while left := left_of(directory):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    remove_forsaken()
    assert not directory.exists()
