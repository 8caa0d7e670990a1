"""`make cluster` leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, ClusterUnavailable, explain_missing, free_ports
from tests.slurm.versions import chosen

ROOT = Path(__file__).parents[2]


@pytest.fixture
def possible() -> None:
    try:
        explain_missing()
    except ClusterUnavailable as exc:
        if os.environ.get("SAIA_REQUIRE_REAL") == "1":
            pytest.fail(str(exc))
        pytest.skip(str(exc))


def processes_naming(words: str) -> list[str]:
    """Command lines and environments in which the words occur, of processes that are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if words.encode() in text:
                found.append(text[:100].replace(b"\0", b" ").decode(errors="replace"))
    return found


def wait_until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


@pytest.mark.real_slurm
@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it(ending: int):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.cluster", "--nodes", "1", "--gpus", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C ends it" not in said:
            line = process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        conf = re.search(r"SLURM_CONF=(\S+)", said)
        assert conf is not None
        directory = Path(conf[1]).parent
        env = {"PATH": chosen().path, "SLURM_CONF": conf[1]}
        # A job that leaves its step's process tree and session.
        script = "setsid sleep 4242 & exec sleep 4242"
        subprocess.run(
            ["sbatch", "-o", "/dev/null", "--wrap", script], env=env, check=True, capture_output=True
        )
        wait_until(
            lambda: len([line for line in processes_naming(str(directory)) if "sleep 4242" in line]) == 2
        )
        process.send_signal(ending)
        process.wait(20)
        wait_until(lambda: not directory.exists() and processes_naming(str(directory)) == [])
    finally:
        process.kill()
        process.wait()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterUnavailable, match="needs root"):
        explain_missing()
    with pytest.raises(ClusterUnavailable):
        Cluster().start()


def test_free_ports_differ_and_are_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
