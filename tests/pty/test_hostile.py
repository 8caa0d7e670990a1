"""Hostile strings in every table and log, on a real pty: what reaches it, and whether each row stays one row."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from unicodedata import category

import pytest

from tests.pty.conftest import Serve, operator_socket
from tests.pty.terminal import terminal
from tests.tui.hostile import CORPUS, SEEN_BY_NO_TERMINAL

pytestmark = pytest.mark.pty

LINES, COLUMNS = 50, 160
OWN = re.compile(
    r"\x1b\[[0-9;:]*[mHABCDGKJ]|\x1b\[[?>=<][0-9;$]*[a-zA-Z]|\x1b\[[0-9]*[ $]?[a-zA-Z]|\x1b[=>78]"
)
"""What the program itself sends: colours, places, modes and questions."""
POINTER = re.compile(r"\x1b\]22;[a-z-]*\x07")
"""The pointer's shape, which the program sends too."""
THEIRS = [
    found
    for bad in CORPUS
    for found in re.findall(
        r"\x1b\[[0-9;?]*4242[0-9;]*.|\x1b[\]P_^X(c][^\x1b\x07]*|[\x80-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\x07]",
        bad,
    )
]


def tui(directory: Path) -> list[str]:
    return [sys.executable, "-m", "saia_tui.cli", "--socket", str(operator_socket(directory))]


def test_no_control_of_theirs_reaches_the_terminal(short: Path, served: Serve) -> None:
    served("--hostile")
    controller, terminal_end = pty.openpty()
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        tui(short), stdin=terminal_end, stdout=terminal_end, stderr=terminal_end, env=environment
    )
    seen = b""
    try:
        for keys, until in (
            (b"", b"ALARM"),
            (b"2", b"SERVICE"),
            (b"i", b"INSTANCE"),
            (b"\r", b"JOB"),
            (b"G", b"missing: "),
            (b"l", b"the end of it"),
            (b"/4242\r", b"\xe2\x96\xb8"),
            (b"\x7f\x7f\x7f\x7f3", b"PARTITION"),
            (b"/60007\r", b"60007"),
            (b"\r", b"submit time"),
            (b"\x1b[6~q", b""),
        ):
            seen += _read(controller, lambda data: False, 1.0)  # as one who looks before the next key
            before = len(seen) if keys else 0
            deadline = time.monotonic() + 30.0
            os.write(controller, keys)
            while until not in seen[before:]:
                assert time.monotonic() < deadline, (
                    f"{until!r} never came after {keys!r}: {seen[before:][-3000:]!r}"
                )
                seen += _read(controller, lambda data, until=until: until in data, 1.0)
                if keys == b"G":  # it goes to the end of what is there, and the story may still be on its way
                    os.write(controller, keys)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal_end)
    sent = POINTER.sub("", seen.decode())  # all of it is UTF-8
    assert "4242;31mowned" in sent, "it was shown"
    assert len(THEIRS) > 20
    for theirs in THEIRS:
        assert theirs not in sent, ascii(theirs)
    left = OWN.sub("", sent).replace("\r", "").replace("\n", "").replace("\x1b\\", "")
    assert not {ascii(char) for char in left if category(char) in SEEN_BY_NO_TERMINAL}


def test_each_job_stays_one_row(short: Path, served: Serve) -> None:
    served("--hostile")
    with terminal(short, tui(short), size=(150, 60)) as window:
        window.wait("acting")
        window.press("3", "End")
        screen = window.wait("60000")
        for number in range(len(CORPUS)):
            rows = [line for line in screen.splitlines() if re.match(rf"^[▸ ] +{60_000 + number}\b", line)]
            assert len(rows) == 1 and "pending" in rows[0], number
        assert not re.search(r"^[▸ ] +(99999|88888)\b", screen, re.MULTILINE), "a row was forged"
        assert len(screen.splitlines()) <= 60


def _read(descriptor: int, enough: Callable[[bytes], bool], within_s: float) -> bytes:
    data = b""
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0 and not enough(data):
        if select.select([descriptor], [], [], left)[0]:
            data += os.read(descriptor, 65536)
    return data
