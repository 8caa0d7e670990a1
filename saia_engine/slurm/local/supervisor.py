"""The keeper of one running job: starts it, ends it on time, records how it ended, and starts who waits.

A program, started under the ledger's lock as `python -I -S supervisor.py DIRECTORY JOB LOCK_FD LIFELINE_FD`. It is
nobody's child for long, so that it outlives the engine. SIGUSR1 says: the ledger has news of your job.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if os.fork():  # the launcher waits for no more than this
        os._exit(0)
    os.setsid()
    sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100 - pathlib is slow to load

import ctypes
import select
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from saia_engine.slurm.local import processes
from saia_engine.slurm.local.dispatch import finished, start_waiting
from saia_engine.slurm.local.ledger import Files, JobRecord, LedgerBroken, transaction

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.1
"""Between two looks at what is left of a job that ends."""
CUT_WAIT_S = 1.0
"""From SIGTERM to SIGKILL where the lifeline has ended: an agent clears its directory away in less."""


class Supervisor:
    def __init__(self, files: Files, job_id: int, lock: int, lifeline: int) -> None:
        self._files = files
        self._job_id = job_id
        self._lock = lock
        self._lifeline = lifeline
        self._main: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._told = False
        self._cut = False
        """The lifeline has ended: all of this job must be gone soon."""
        self._kill_wait_s = 0.0
        # Whatever a job's process leaves behind becomes our child, and so stays findable.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._wake, wakeup = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in (signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        if lifeline != processes.NO_LIFELINE:
            self._poll.register(lifeline, 0)  # a hang-up is always reported

    def run(self) -> None:
        job = self._register()
        if job is None:
            return
        if not job.ending:
            self._start(job)
            self._watch(job)
        self._clear_away(job)
        self._record()

    def _register(self) -> JobRecord | None:
        with transaction(self._files) as ledger:
            job = ledger.jobs.get(self._job_id)
            if job is None or job.state != "RUNNING":
                return None
            job = ledger.jobs[job.id] = replace(job, supervisor=os.getpid())
            self._kill_wait_s = ledger.kill_wait_s
            return job

    def _start(self, job: JobRecord) -> None:
        script = self._files.script(job.id)
        try:
            with script.open(encoding="utf-8", errors="surrogateescape") as text:
                interpreter = text.readline().removeprefix("#!").split(maxsplit=1)
            with Path(job.output).open("ab") as output:
                self._main = subprocess.Popen(
                    [*(word.strip() for word in interpreter), str(script)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=job.workdir,
                    env=processes.environment(self._files, job, self._lifeline),
                    pass_fds=[] if self._lifeline == processes.NO_LIFELINE else [self._lifeline],
                    start_new_session=True,
                )
        except OSError as exc:
            self._exit_code = 127
            sys.stderr.write(f"job {job.id} could not start: {exc}\n")

    def _watch(self, job: JobRecord) -> None:
        """Until the job has exited, is to end, or has reached its end time."""
        # By the monotonic clock from here on: a jump of the wall clock ends no job.
        ends_at = time.monotonic() + (job.end_time or 0) - time.time()
        while self._exit_code is None and not self._cut:
            if (left := ends_at - time.monotonic()) <= 0:
                self._claim("TIMEOUT")
                return
            self._told = False
            self._wait(left)
            if self._told and self._ending():
                return

    def _clear_away(self, job: JobRecord) -> None:
        """SIGTERM to all of the job at once, SIGKILL to what is left of it after the kill wait."""
        marked = processes.mark(self._files, job)
        left = processes.members(marked, os.getpid())
        if left and self._exit_code is not None:
            self._claim(self._outcome())
        processes.send(left, signal.SIGTERM)
        processes.send(left, signal.SIGCONT)
        kill_at = time.monotonic() + (min(CUT_WAIT_S, self._kill_wait_s) if self._cut else self._kill_wait_s)
        while left and time.monotonic() < kill_at + processes.GONE_DEADLINE_S:
            if time.monotonic() >= kill_at:
                processes.send(left, signal.SIGKILL)
            self._wait(LOOK_S)
            left = processes.members(marked, os.getpid())
        self._reap()

    def _record(self) -> None:
        with transaction(self._files) as ledger:
            now = time.time()
            job = ledger.jobs[self._job_id]
            ending = "CANCELLED" if self._cut else job.ending or self._outcome()
            ledger.jobs[job.id] = finished(job, ending, self._exit_code, now)
            os.close(self._lock)
            if not self._cut:
                start_waiting(self._files, ledger, self._lifeline)

    def _outcome(self) -> str:
        return "COMPLETED" if self._exit_code == 0 else "FAILED"

    def _claim(self, ending: str) -> None:
        """Says in the ledger how the job ends, unless somebody has said so already."""
        try:
            with transaction(self._files) as ledger:
                job = ledger.jobs[self._job_id]
                if not job.ending:
                    ledger.jobs[job.id] = replace(job, ending=ending, end_time=time.time())
        except (OSError, LedgerBroken, KeyError) as exc:
            sys.stderr.write(f"job {self._job_id} ends as {ending}, but: {exc}\n")

    def _ending(self) -> str:
        try:
            with transaction(self._files) as ledger:
                return ledger.jobs[self._job_id].ending
        except (OSError, LedgerBroken, KeyError) as exc:
            sys.stderr.write(f"no news of job {self._job_id}: {exc}\n")
            return ""

    def _wait(self, timeout_s: float) -> None:
        """Until a signal, the end of the lifeline, or the timeout; children that have exited are reaped."""
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == self._lifeline:
                self._cut = True
                self._poll.unregister(self._lifeline)
            else:
                self._told |= signal.SIGUSR1 in os.read(self._wake, 4096)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._main is not None and pid == self._main.pid:
                self._exit_code = os.waitstatus_to_exitcode(status)


def main() -> None:
    directory, *numbers = sys.argv[1:]
    job_id, lock, lifeline = (int(number) for number in numbers)
    try:
        Supervisor(Files(Path(directory)), job_id, lock, lifeline).run()
    except (OSError, LedgerBroken, KeyError) as exc:
        sys.stderr.write(f"the supervisor of job {job_id} gives up: {exc!r}\n")
        raise SystemExit(1) from exc


if __name__ == "__main__":
    main()
