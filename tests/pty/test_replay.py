"""A real engine records, dies, and its last minute is looked at: by the screen, and by a script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saia_engine.record.index import Indexer
from saia_tui.embedded import answers
from tests.pty.terminal import terminal
from tests.pty.test_embedded import config, socket, tui
from tests.pty.test_scripts import tui as script

pytestmark = pytest.mark.pty


def test_the_night_is_replayed_though_the_engine_died(short: Path) -> None:
    file = config(short)
    file.write_text(file.read_text() + '\n[record]\nstep = "1s"\n')
    record = short / "state" / "record"
    engine = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "saia_engine.cli",
            "run",
            "--config",
            str(file),
            "--log-file",
            str(short / "log"),
        ]
    )
    try:
        _until(lambda: answers(socket(short)))
        # Recorded from before its first instance is ready until some time after.
        with terminal(short, tui(file)) as window:
            window.wait("● ok", "1/1", within_s=60)
            _until(lambda: len(Indexer(record).index().changes) >= 1)
            time.sleep(3)
            window.press("z")
            window.wait("REPLAY", "paused", "z back to now")
            window.press("z")
            window.wait("● acting", "1/1")
    finally:
        os.kill(engine.pid, signal.SIGKILL)
        engine.wait()
    assert record.stat().st_mode & 0o777 == 0o700
    with terminal(short, [*tui(file), "--replay", "-8h"]) as window:
        window.wait("REPLAY", "paused", "0/1")
        for _ in range(8):
            window.press("c")
            time.sleep(0.1)
        window.wait("REPLAY", "● ok", "1/1")
        window.press("N")
        window.wait("REPLAY", "0/1")
        window.press("z")
        window.wait("no engine yet", "next try in")
        window.press("q")
        window.wait("exit code 0")
    assert not answers(socket(short)), "no engine was started"
    end = Indexer(record).index().end
    assert end is not None
    done = script("--config", str(file), "--once", "--json", "--replay", _stamp(end))
    document = json.loads(done.stdout)
    assert document["replayed"] and document["tables"]["services"]["sleep"]["ready"] == 1
    text = script("--config", str(file), "--once", "--replay", _stamp(end))
    assert text.stdout.decode().startswith("REPLAY 20") and "1/1" in text.stdout.decode()
    none = script("--config", str(file), "--once", "--replay", "-20h")
    assert (
        none.returncode == 1
        and b"there is no record of" in none.stderr
        and b"there is one from" in none.stderr
    )
    wrong = script("--config", str(file), "--once", "--replay", "noon")
    assert wrong.returncode == 2 and b"write 03:12" in wrong.stderr


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at + 0.999))


def _until(true, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.1)
