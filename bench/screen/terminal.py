"""A program on a terminal of ours: what it writes is read, timed and counted."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.screen.picture import Picture

COLUMNS, LINES = 200, 60


class Terminal:
    """A context manager. While it is not `reading`, nobody takes what the program writes."""

    def __init__(self, argv: Sequence[str], directory: Path) -> None:
        self._argv = argv
        self._directory = directory
        self._chunks: list[tuple[float, bytes]] = []
        self._reads = threading.Event()
        self._reads.set()
        self._ends = False
        self._picture = Picture(COLUMNS, LINES)
        self._pictured = 0
        """Chunks that are in the picture."""

    def __enter__(self) -> Self:
        self.started_at = time.monotonic()
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
        environment |= {"XDG_STATE_HOME": str(self._directory), "TEXTUAL_ANIMATIONS": "none"}
        self._program = subprocess.Popen(
            self._argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        self._ends = True
        self._reads.set()
        self._reader.join()
        os.close(self._ours)

    @property
    def pid(self) -> int:
        return self._program.pid

    def _read(self) -> None:
        while not self._ends:
            self._reads.wait()
            if not select.select([self._ours], [], [], 0.2)[0] or not self._reads.is_set():
                continue
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the program ended
                return
            self._chunks.append((time.monotonic(), data))

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def stop_reading(self) -> None:
        self._reads.clear()

    def read_on(self) -> None:
        self._reads.set()

    def bytes_between(self, begin: float, end: float) -> int:
        return sum(len(data) for at, data in self._chunks if begin <= at < end)

    def shows_at(self, wanted: Callable[[Picture], bool], since: float, within_s: float) -> float:
        """When, not before `since`, the bytes were here after which the picture is as wanted. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            while self._pictured < len(self._chunks):
                at, data = self._chunks[self._pictured]
                self._pictured += 1
                self._picture.feed(data)
                if at >= since and wanted(self._picture):
                    return at
            time.sleep(0.02)
        raise TimeoutError(f"not on the screen within {within_s:.0f} s; it shows:\n{self._picture.text()}")
