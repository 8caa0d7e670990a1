"""`keeper.py DIR`: keeps daemons for a test; when its stdin ends, ends all that descends from them, removes DIR.

Slurm's job steps leave their daemon's process tree and would outlive a killed test run. The keeper is their
subreaper: they become its children, and none is left when it goes. It reads one JSON object a line,
`{"start": name, "argv": [...], "log": path, "env": {...}}` or `{"signal": name, "number": 9}`, and answers
each with one line: `ok` or what went wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
REAP_INTERVAL_S = 0.1
TAKE_DOWN_LIMIT_S = 15.0


class Keeper:
    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    def obey(self, order: dict) -> str:
        if "start" in order:
            self._start(order["start"], order["argv"], order["log"], order["env"])
            return "ok"
        return self._signal(order["signal"], order["number"])

    def reap(self) -> bool:
        """Bury the children that ended; False when there is none left, dead or alive."""
        try:
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._pids = {name: known for name, known in self._pids.items() if known != pid}
        except ChildProcessError:
            return False
        return True

    def take_down(self) -> None:
        deadline = time.monotonic() + TAKE_DOWN_LIMIT_S
        while self.reap() and time.monotonic() < deadline:
            for pid in descendants(os.getpid()):
                _kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _start(self, name: str, argv: list[str], log: str, env: dict[str, str]) -> None:
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
            )
        self._pids[name] = process.pid
        process.returncode = 0  # reaped here, not by subprocess

    def _signal(self, name: str, number: int) -> str:
        pid = self._pids.get(name)
        if pid is None:
            return f"{name} does not run"
        _kill(pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            deadline = time.monotonic() + TAKE_DOWN_LIMIT_S
            while name in self._pids:
                if time.monotonic() > deadline:
                    return f"{name} did not end"
                time.sleep(0.01)
                self.reap()
        return "ok"


def descendants(root: int) -> list[int]:
    """Process ids of all that descends from `root`."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def main() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("cannot become the subreaper of the test's daemons")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keeper, buffer = Keeper(), b""
    try:
        while True:
            keeper.reap()
            if not select.select([0], [], [], REAP_INTERVAL_S)[0]:
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                try:
                    answer = keeper.obey(json.loads(line))
                except OSError as exc:
                    answer = str(exc)
                os.write(1, answer.encode() + b"\n")
    finally:
        keeper.take_down()
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
