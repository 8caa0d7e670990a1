"""Runs a program and says who outlived it: `python -m tests.e2e.demo_keeper REPORT GRACE_S PROGRAM ...`.

It is the reaper of all the program's descendants, so the kernel keeps the tree: no process can leave it. REPORT is
written when the program has started, {"pid"}, and replaced when it has ended and, for up to GRACE_S, all others have:
{"pid", "exit_code", "left": [command lines]}.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    report, grace_s, *program = sys.argv[1:]
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise SystemExit("cannot become the reaper")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that puts us in the background has it ignored
    child = subprocess.Popen(program)
    write(report, {"pid": child.pid})
    code = child.wait()
    deadline = time.monotonic() + float(grace_s)
    while (left := living()) and time.monotonic() < deadline:
        time.sleep(0.02)
    write(report, {"pid": child.pid, "exit_code": code, "left": left})


def write(path: str, content: object) -> None:
    draft = Path(f"{path}.draft")
    draft.write_text(json.dumps(content))
    draft.replace(path)


def living() -> list[str]:
    """Command lines of all below us; what has ended is reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    found = []
    parents = [os.getpid()]
    while parents:
        for child in children(parents.pop()):
            parents.append(child)
            found.append(f"{child}: {command_line(child)}")
    return found


def children(pid: int) -> list[int]:
    """Zombies aside: those have ended."""
    return [child for child, (state, parent) in processes().items() if parent == pid and state not in "ZX"]


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of each."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                # The command's name, in parentheses, may hold anything; the fields follow its last one.
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = (fields[0], int(fields[1]))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
