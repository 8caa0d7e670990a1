"""Processes of a test in the keeping of `tests/slurm/keeper.py`: none outlives the test run, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

KEEPER = Path(__file__).parents[1] / "slurm" / "keeper.py"


class Daemons:
    """Owns `directory`, which is removed with the last process; each daemon's output is in its `logs`, for root."""

    def __init__(self, directory: Path) -> None:
        self._logs = directory / "logs"
        self._logs.mkdir(mode=0o700)
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        """Of the keeper, from which all of them descend."""
        return self._keeper.pid

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._order({"start": name, "argv": list(argv), "log": str(self.log(name)), "env": dict(env)})

    def kill(self, name: str) -> None:
        """SIGKILL; returns once it is gone."""
        self._order({"signal": name, "number": int(signal.SIGKILL)})

    def end(self, name: str) -> None:
        """SIGTERM; returns once it is gone."""
        self._order({"signal": name, "number": int(signal.SIGTERM)})

    def hang_up(self, name: str) -> None:
        self._order({"signal": name, "number": int(signal.SIGHUP)})

    def stop(self) -> None:
        """End every process that came from here, and remove the directory."""
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self._keeper.wait(30)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def log_ends(self, lines: int = 15) -> str:
        return "\n".join(
            f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
            for file in sorted(self._logs.glob("*.log"))
        )

    def _order(self, order: dict[str, object]) -> None:
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(order).encode() + b"\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline().decode().strip()
        if answer != "ok":
            raise RuntimeError(f"{order}: the keeper says: {answer or 'nothing, it ended'}")
