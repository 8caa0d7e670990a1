"""`--once`: for scripts and for terminals that draw no screen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pty.conftest import Serve, operator_socket
from tests.pty.terminal import terminal

pytestmark = pytest.mark.pty

CRITICAL = 7


def tui(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Without any terminal, and without a place for settings of the one who runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "saia_tui.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        env={"LC_ALL": "C.UTF-8", "TERM": "dumb", "XDG_CONFIG_HOME": "/nonexistent", **kept, **environment},
        check=False,
    )


def test_the_overview_as_plain_text_is_as_wide_as_asked(short: Path, served: Serve) -> None:
    served()
    wide = tui("--socket", str(operator_socket(short)), "--once", COLUMNS="100")
    assert wide.returncode == CRITICAL and not wide.stderr
    text = wide.stdout.decode()
    assert "✖ critical" in text and "No instance is ready" in text and "chat-large.a81f" in text
    assert not any(ord(char) < 0x20 and char != "\n" for char in text)
    assert max(map(len, text.splitlines())) in range(90, 101)
    narrow = tui("--socket", str(operator_socket(short)), "--once", COLUMNS="64", LC_ALL="C")
    assert narrow.stdout.isascii() and b"X critical" in narrow.stdout
    assert max(map(len, narrow.stdout.splitlines())) <= 64


def test_the_state_is_one_json_document(short: Path, served: Serve) -> None:
    served()
    done = tui("--socket", str(operator_socket(short)), "--once", "--json")
    assert done.returncode == CRITICAL and done.stdout.isascii()
    document = json.loads(done.stdout)
    assert document["format"] == 1 and document["critical_alarms"] == 1
    assert document["tables"]["services"]["chat-large"]["ready"] == 2
    assert document["tables"]["services"]["chat-large"]["override_by_uid"] == 1004
    assert document["tables"]["services"]["embed"]["override_by_uid"] is None


def test_what_can_not_be_told_has_a_code_and_a_reason(short: Path) -> None:
    nobody = tui("--socket", str(operator_socket(short)), "--once")
    assert nobody.returncode == 5 and b"no engine answers" in nobody.stderr
    assert tui("--json").returncode == 2
    assert tui("--once", "--demo").returncode == 2


def test_a_dumb_terminal_is_refused_with_the_way_out(short: Path, served: Serve) -> None:
    served()
    command = [sys.executable, "-m", "saia_tui.cli", "--socket", str(operator_socket(short))]
    with terminal(short, ["env", "TERM=dumb", *command]) as window:
        window.wait("TERM=dumb", "--once", "exit code 2")
    with terminal(short, ["env", "TERM=dumb", *command, "--once"]) as window:
        window.wait("chat-large", "exit code 7")
