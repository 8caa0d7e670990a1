"""A site for the screen alone: Slurm's commands as small programs that print what they are given, and a real engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import tick
from bench.screen.jobs import NONCE
from saia_tui.embedded import answers

POLL_S = 1.0
START_S = 30.0
STOP_S = 20.0

CONFIG = f"""
[cluster]
name = "bench"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
slurm_bin = "bin"
poll_interval = "{POLL_S:.0f}s"
rpc_floor = "{POLL_S:.0f}s"
"""
SHARED = """#!/bin/sh
nonce=$(printf %s "$*" | sed 's/.*|\\([0-9a-f]\\{16\\}\\)|.*/\\1/')
"""
PROGRAMS = {
    "squeue": f'date +%s.%N >> "DIR/calls"\nexec sed "s/{NONCE}/$nonce/g" "DIR/queue"\n',
    "sinfo": f'exec sed "s/{NONCE}/$nonce/g" "DIR/nodes"\n',
    "scontrol": 'case "$*" in *reservation*) ;; *) echo "Configuration data as of $(date +%s)";'
    ' echo "BOOT_TIME = 1795000000";; esac\n',
    "sbatch": "exit 1\n",
    "scancel": "exit 1\n",
}


class Site:
    """A context manager. `queue` is what squeue prints from the next poll on."""

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="saia-screen-", dir="/tmp"))
        try:
            self._make_slurm()
            self._start_engine()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_engine"):
            self._engine.terminate()
            try:
                self._engine.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._engine.kill()
                self._engine.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def socket(self) -> Path:
        return self.directory / "run" / "operator" / "operator.sock"

    @property
    def engine_pid(self) -> int:
        return self._engine.pid

    def print_queue(self, text: str) -> None:
        fresh = self.directory / "queue.new"
        fresh.write_text(text)
        fresh.replace(self.directory / "queue")

    def polls(self) -> list[float]:
        """When squeue was called: seconds of the wall clock."""
        return [float(line) for line in (self.directory / "calls").read_text().split()]

    def _make_slurm(self) -> None:
        programs = self.directory / "bin"
        programs.mkdir()
        for name, body in PROGRAMS.items():
            (programs / name).write_text(SHARED + body.replace("DIR", str(self.directory)))
            (programs / name).chmod(0o755)
        (self.directory / "nodes").write_text(tick.sinfo(NONCE))
        self.print_queue("")
        (self.directory / "engine.toml").write_text(CONFIG.replace('"bin"', f'"{programs}"'))

    def _start_engine(self) -> None:
        config, log = self.directory / "engine.toml", self.directory / "log"
        with log.open("wb") as output:
            self._engine = subprocess.Popen(
                [sys.executable, "-m", "saia_engine.cli", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while not answers(self.socket):
            if self._engine.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
