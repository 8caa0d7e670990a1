"""The demo as a user runs it: real engine, agents, gate and proxy; what it counts, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from saia_engine.demo.place import remove_forsaken
from tests.e2e.demo_keeper import children, command_line, processes

ENGINE = [sys.executable, "-m", "saia_engine.cli"]
FAST = """\
import sys
from saia_engine.demo.run import main
from saia_engine.demo.site import Pace
sys.exit(main({seconds}, True, Pace(40, drain_deadline_s=15, admission_margin_s=12, stream_s=(4.0, 8.0))))
"""
FIGURES = {
    "handovers",
    "requests",
    "failed",
    "dropped_streams",
    "streams_across_handovers",
    "max_gap_ms",
    "submits",
    "orphans",
}
AFTER_KILL_S = 5


class Run:
    """A program under its keeper."""

    def __init__(self, keeper: subprocess.Popen[str], report: Path) -> None:
        self._keeper = keeper
        self._report = report
        self.out = ""
        self.err = ""

    @property
    def pid(self) -> int:
        """The program's own."""
        return until(lambda: self._report.exists() and json.loads(self._report.read_text())["pid"])

    def says(self, pattern: str) -> None:
        """Reads its output until a line holds the pattern."""
        assert self._keeper.stdout is not None
        for line in self._keeper.stdout:
            self.out += line
            if re.search(pattern, line):
                return
        raise AssertionError(f"it never said {pattern!r}: {self.out}\n{self.end()}\n{self.err}")

    def part(self, name: str) -> int:
        """Pid of the child whose command line holds the name."""
        return until(lambda: next((p for p in children(self.pid) if name in command_line(p)), 0))

    @property
    def directory(self) -> Path:
        """Where the demo has its files."""
        return Path(command_line(self.part("demo.traffic")).partition("--report=")[2].split()[0]).parent

    def end(self) -> dict[str, Any]:
        """Waits for it; the keeper's report."""
        out, self.err = self._keeper.communicate(timeout=100)
        self.out += out
        return json.loads(self._report.read_text())


def until(look: Callable[[], int]) -> int:
    deadline = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@contextmanager
def running(directory: Path, *program: str, grace_s: float = 0) -> Iterator[Run]:
    report = directory / "keeper.json"
    command = [sys.executable, "-m", "tests.e2e.demo_keeper", str(report), str(grace_s), *program]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as keeper:
        run = Run(keeper, report)
        try:
            yield run
        finally:
            if keeper.poll() is None:
                os.kill(run.pid, signal.SIGKILL)


def kept_logs(said: str) -> Path:
    found = re.search(r"the logs are in (/tmp/saia-demo-\w+)/logs", said)
    assert found, said
    return Path(found[1])


def test_handovers_under_load_drop_nothing(tmp_path: Path) -> None:
    with running(tmp_path, sys.executable, "-c", FAST.format(seconds=36)) as run:
        end = run.end()
    assert end["exit_code"] == 0, run.out + run.err
    assert end["left"] == []
    assert run.err == ""
    (line,) = run.out.splitlines()
    figures = json.loads(line)
    assert set(figures) == FIGURES
    assert figures["handovers"] >= 3
    assert figures["streams_across_handovers"] >= 1
    assert figures["submits"] >= 4 + figures["handovers"]
    assert figures["requests"] > 36 * 3
    assert (figures["failed"], figures["dropped_streams"], figures["orphans"]) == (0, 0, 0)
    assert 0 < figures["max_gap_ms"] < 5000


def test_kill_9_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "60", grace_s=AFTER_KILL_S) as run:
        run.says("all is up")
        assert len(children(run.pid)) >= 3
        directory = run.directory
        os.kill(run.pid, signal.SIGKILL)
        end = run.end()
    assert end["left"] == []
    assert directory.exists()
    remove_forsaken()
    assert not directory.exists()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_end_it_clears_away_first(tmp_path: Path, number: signal.Signals, exit_code: int) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "60") as run:
        run.says("all is up")
        directory = run.directory
        assert directory.exists()
        os.kill(run.pid, number)
        end = run.end()
    assert end == {"pid": end["pid"], "exit_code": exit_code, "left": []}
    assert "Traceback" not in run.err
    assert not directory.exists()


def test_told_to_end_while_it_starts(tmp_path: Path) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "60", "--json") as run:
        run.part("saia_engine.cli run")
        os.kill(run.pid, signal.SIGINT)
        end = run.end()
    assert end == {"pid": end["pid"], "exit_code": 130, "left": []}
    assert (run.out, run.err.strip()) == ("", "saia-engine: interrupted")


def test_a_run_without_a_handover_is_no_good_one(tmp_path: Path) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "5", "--json") as run:
        end = run.end()
    figures = json.loads(run.out)
    assert end["exit_code"] == 1
    assert (figures["handovers"], figures["streams_across_handovers"], figures["failed"]) == (0, 0, 0)
    assert figures["requests"] > 0
    assert "no stream was open across a hand-over" in run.err
    shutil.rmtree(kept_logs(run.err))


def test_streams_cut_by_a_dead_service_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "6") as run:
        run.says("all is up")
        job = f"SAIA_LOCAL_JOB={run.directory}/".encode()
        servers = [pid for pid in processes() if "demo.llm" in command_line(pid) and job in environment(pid)]
        assert len(servers) == 4
        for pid in servers[:2]:  # of ten streams some are on these
            os.kill(pid, signal.SIGKILL)
        end = run.end()
    assert (end["exit_code"], end["left"]) == (1, [])
    assert re.search(r"[1-9]\d* failed, [1-9]\d* streams dropped", run.out)
    assert re.search(r"saia-engine: stream at \w+\.laptop\.\w+\.\w+: ", run.err)
    shutil.rmtree(kept_logs(run.err))


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(("name", "module"), [("proxy", "saia_proxy.cli"), ("engine", "saia_engine.cli run")])
def test_a_part_that_dies_is_named(tmp_path: Path, name: str, module: str) -> None:
    with running(tmp_path, *ENGINE, "demo", "--seconds", "60") as run:
        run.says("all is up")
        os.kill(run.part(module), signal.SIGKILL)
        end = run.end()
    assert (end["exit_code"], end["left"]) == (1, [])
    assert f"the {name} was ended by signal 9; the end of its log:" in run.err
    assert "Traceback" not in run.err
    shutil.rmtree(kept_logs(run.err))


def test_without_the_proxys_extra_it_says_what_to_install(tmp_path: Path) -> None:
    program = f"import sys; sys.modules['uvloop'] = None\n{FAST.format(seconds=36)}"
    with running(tmp_path, sys.executable, "-c", program) as run:
        end = run.end()
    assert (end["exit_code"], end["left"]) == (1, [])
    assert "pip install 'saia[proxy]'" in run.err
    shutil.rmtree(kept_logs(run.err))
