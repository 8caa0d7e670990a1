"""The screen in a real terminal, on a real socket."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.pty.conftest import Serve, operator_socket
from tests.pty.terminal import own_home, terminal

pytestmark = pytest.mark.pty


def tui(directory: Path) -> list[str]:
    return [sys.executable, "-m", "saia_tui.cli", "--socket", str(operator_socket(directory))]


def test_it_shows_resizes_acts_and_leaves(short: Path, served: Serve) -> None:
    served()
    with terminal(short, tui(short), size=(80, 24)) as window:
        screen = window.wait("● acting", "✖ down", "▲ degraded", "chat-large", "W arm")
        assert len(screen.splitlines()) == 24
        window.resize(200, 60)
        window.wait("LIVE USE", "PROXY", "INSTANCE", "██░▣")
        window.resize(80, 24)
        window.until(lambda text: "LIVE USE" not in text and "ALARM" in text, "the small layout")
        window.press("3")
        window.wait("88415", "7 Proxies     34")
        window.press("-l", "/owned")  # at once, as one who types ahead: no key of it may act on the table
        window.wait(r"\x1b[2J", "1/34")
        window.press("Escape")
        window.wait("7 Proxies     34")
        window.press("1")
        window.wait("[1 Overview]")
        window.press("Down", "s")
        window.wait("acts are locked: W arms them")
        window.press("W")
        window.wait("◆ ARMED 10 min", "s scale")
        window.press("s", "5", "Enter")
        window.wait("3 → 5", "Cancel")
        window.press("y")
        window.wait("Scale chat-large: sent in", "u revokes it")
        assert not (short / "intents.jsonl").exists()
        window.wait("the engine has it")
        assert (short / "intents.jsonl").read_text() == '["scale", "chat-large", 5]\n'
        window.press("q")
        screen = window.wait("exit code 0")
        assert "chat-large" not in screen


def test_it_outlives_the_engine_and_finds_it_again(short: Path, served: Serve) -> None:
    engine = served()
    with terminal(short, tui(short)) as window:
        window.wait("● acting")
        engine.kill()
        engine.wait()
        window.wait("engine away", "next try in", "chat-large")
        served()
        window.wait("● acting", "chat-large")


def test_no_engine_at_the_socket_is_said_with_exit_code_5(short: Path) -> None:
    with terminal(short, tui(short)) as window:
        window.wait("no engine answers at", "exit code 5")


def test_a_quiet_screen_sends_nothing(short: Path, served: Serve) -> None:
    served("--quiet")
    controller, terminal_end = pty.openpty()
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | own_home(short)
    process = subprocess.Popen(
        tui(short), stdin=terminal_end, stdout=terminal_end, stderr=terminal_end, env=environment
    )
    try:
        seen = _read(controller, lambda data: b"Configuration read" in data, 20.0)
        assert b"Configuration read" in seen, "it never drew the events"
        _read(controller, lambda data: False, 2.0)
        assert _read(controller, lambda data: False, 4.0) == b""
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal_end)


def _read(descriptor: int, enough, within_s: float) -> bytes:
    data = b""
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0 and not enough(data):
        if select.select([descriptor], [], [], left)[0]:
            data += os.read(descriptor, 65536)
    return data


def test_it_ends_with_its_terminal_also_where_the_sessions_leader_keeps_the_signal(
    short: Path, served: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As make does in `ssh -t HOST make demo`."""
    for name, value in own_home(short).items():
        monkeypatch.setenv(name, value)
    served()
    pid, terminal_side = pty.fork()
    if not pid:
        signal.signal(
            signal.SIGHUP, signal.SIG_DFL
        )  # what is ignored from the start, as under nohup, can't be trapped
        os.execvp("sh", ["sh", "-c", f"trap : HUP; {shlex.join(tui(short))}; exit 7"])
    screen = b""
    while b"chat-large" not in screen:
        screen += os.read(terminal_side, 65536)
    os.close(terminal_side)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        assert time.monotonic() < deadline, "it goes on for nobody"
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
