"""Several worker processes on one port, started again when they end, by a process that does nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from saia_engine.edge.logs import get_logger

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: where its processes put their figures together."""
STEADY_S = 10.0
"""A worker that ran for so long is started again at once."""
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
_WATCHED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})

Work = Callable[[int, int], None]
"""Serves as the worker of this number until SIGTERM, or until the descriptor, a pipe, comes to its end."""


def share_metrics(directory: Path) -> None:
    """Workers started from now on count together. Before prometheus-client is imported. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()
    os.environ[METRICS] = str(directory)


@dataclass(slots=True)
class _Seat:
    """The place of one worker."""

    pid: int = 0
    started_at: float = 0.0
    failures: int = 0
    start_at: float = 0.0


class Keeper:
    """Keeps `count` workers. Must run in the main thread, before any other is started."""

    def __init__(
        self, count: int, work: Work, *, grace_s: float, on_end: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self._seats = [_Seat() for _ in range(count)]
        self._work = work
        self._grace_s = grace_s
        self._on_end = on_end
        self._log = get_logger("workers")
        # Its one writer is this process: however it ends, its workers notice.
        self._lifeline, self._held = os.pipe()

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then the workers have `grace_s` for what is open."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        while True:
            wait_s = self._start_due()
            caught = signal.sigtimedwait(_WATCHED, wait_s)
            self._reap()
            if caught is None or caught.si_signo == signal.SIGCHLD:
                continue
            if caught.si_signo == signal.SIGHUP:
                self._signal_all(signal.SIGHUP)
            else:
                self._stop()
                return

    def _start_due(self) -> float:
        """Starts whom it is time for; returns the seconds to the next one."""
        now = time.monotonic()
        for number, seat in enumerate(self._seats):
            if not seat.pid and now >= seat.start_at:
                self._start(number, seat)
        return min((max(0.0, s.start_at - now) for s in self._seats if not s.pid), default=3600.0)

    def _start(self, number: int, seat: _Seat) -> None:
        pid = os.fork()
        if pid:
            seat.pid, seat.started_at = pid, time.monotonic()
            return
        code = 1
        try:
            os.close(self._held)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
            self._work(number, self._lifeline)
            code = 0
        except BaseException:
            self._log.exception("a worker failed", worker=number)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = next((n for n, seat in enumerate(self._seats) if seat.pid == pid), None)
            if number is not None:
                self._ended(number, os.waitstatus_to_exitcode(status))

    def _ended(self, number: int, code: int) -> None:
        seat, now = self._seats[number], time.monotonic()
        self._on_end(number, seat.pid)
        seat.failures = 0 if now - seat.started_at >= STEADY_S else seat.failures + 1
        delay_s = (
            min(FIRST_DELAY_S * 2.0 ** (seat.failures - 2), LONGEST_DELAY_S) if seat.failures > 1 else 0.0
        )
        seat.pid, seat.start_at = 0, now + delay_s
        self._log.warning("a worker ended", worker=number, code=code, restart_in_s=delay_s)

    def _signal_all(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.pid:
                os.kill(seat.pid, number)

    def _stop(self) -> None:
        self._signal_all(signal.SIGTERM)
        give_up_at = time.monotonic() + self._grace_s
        while any(seat.pid for seat in self._seats):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                self._signal_all(signal.SIGKILL)
            signal.sigtimedwait(_WATCHED, max(left_s, 1.0))
            self._reap()
