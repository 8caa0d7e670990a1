"""Slurm through its own commands: four for a snapshot, one for a submit, one for a cancel."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from saia_engine.edge.text import clean
from saia_engine.model import Snapshot
from saia_engine.offload import Offload, in_thread
from saia_engine.slurm import commands, text
from saia_engine.slurm.port import JobRequest, SlurmError, SlurmUnavailable, SubmitRejected, SubmitUnknown
from saia_engine.slurm.process import Finished, NotFinished, NotStarted, run

Runner = Callable[[Sequence[str], Mapping[str, str]], Awaitable[Finished]]
"""Runs a command (arguments, and what its environment has beyond the usual) to its end. Raises as `process.run`."""


def _fresh_nonce() -> str:
    return secrets.token_hex(8)


class SlurmCli:
    """The Slurm port on squeue, sinfo, scontrol, sbatch and scancel.

    `user` is the engine's own user name; `bin_dir` the directory of the commands (empty: PATH); `conf` the
    value of SLURM_CONF (empty: Slurm's default). `calls` counts the commands sent. `runner` stands for the
    programs themselves.
    """

    COMMANDS = ("squeue", "sinfo", "scontrol", "sbatch", "scancel")

    def __init__(
        self,
        user: str,
        bin_dir: str = "",
        conf: str = "",
        command_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
        runner: Runner | None = None,
        nonce: Callable[[], str] = _fresh_nonce,
        offload: Offload = in_thread,
    ) -> None:
        self.calls = 0
        self._user = user
        self._timeout_s = command_timeout_s
        self._clock = clock
        self._runner = runner or self._run_program
        self._nonce = nonce
        self._offload = offload
        self._path = bin_dir or os.environ.get("PATH", os.defpath)
        # Built up, not filtered: a stray SQUEUE_STATES would hide running jobs, an SBATCH_* change a submit.
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "USER": user,
            "LANG": "C",
            **({"SLURM_CONF": conf} if conf else {}),
        }

    async def observe(self) -> Snapshot:
        """Four commands, however many services there are. Raises SlurmUnavailable."""
        taken_at, nonce = self._clock(), self._nonce()
        queue = await self._ask(commands.squeue(nonce))
        info = await self._ask(commands.sinfo(nonce))
        reserved = await self._ask(commands.show_reservations())
        # Asked last: where it is still the old controller, the old controller gave the other answers.
        config = await self._ask(commands.show_config())
        try:
            return Snapshot(
                taken_at=taken_at,
                # In a thread: ten thousand rows take long enough to be felt by those who share the loop.
                jobs=await self._offload(text.jobs, queue, nonce),
                nodes=text.nodes(info, nonce),
                controller_boot=text.boot_time(config),
                reservations=text.reservations(reserved),
                partitions=text.partitions(info, nonce),
                controller_now=text.controller_time(config),
            )
        except text.Unparsable as exc:
            raise SlurmUnavailable(f"saia cannot read what Slurm answered: {exc}") from exc

    async def submit(self, request: JobRequest) -> int:
        """Submit and return the job id. Raises SubmitRejected or, where it may run all the same, SubmitUnknown."""
        try:
            done = await self._run(commands.sbatch(request))
        except NotStarted as exc:
            raise SubmitRejected(str(exc)) from exc
        except NotFinished as exc:
            raise SubmitUnknown(str(exc)) from exc
        if done.code == 0:
            try:
                return text.submitted_id(done.stdout)
            except text.Unparsable as exc:
                raise SubmitUnknown(f"sbatch succeeded, but {exc}") from exc
        if done.code > 0 and text.provably_refused(done.stderr):
            raise SubmitRejected(_complaint("sbatch", done))
        raise SubmitUnknown(_complaint("sbatch", done))

    async def cancel(self, job_id: int, name: str) -> None:
        """Ask for the end of the job of this id, name and our user; one that is gone is no error.

        Raises SlurmError.
        """
        if job_id <= 0 or not name:
            raise SlurmError(f"a cancel needs a job id and a name, not {job_id} and {clean(name, 80)!r}")
        try:
            done = await self._run(commands.scancel(job_id, name, self._user))
        except (NotStarted, NotFinished) as exc:
            raise SlurmError(str(exc)) from exc
        if done.code != 0 and not text.is_gone(done.stderr):
            raise SlurmError(_complaint("scancel", done))

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _ask(self, argv: list[str]) -> str:
        """What a query prints, if it succeeds. Raises SlurmUnavailable."""
        try:
            done = await self._run(argv, SLURM_TIME_FORMAT="%s")
        except (NotStarted, NotFinished) as exc:
            raise SlurmUnavailable(str(exc)) from exc
        if done.code != 0:
            raise SlurmUnavailable(_complaint(argv[0], done))
        return done.stdout

    async def _run(self, argv: list[str], **extra: str) -> Finished:
        return await self._runner(argv, extra)

    async def _run_program(self, argv: Sequence[str], extra: Mapping[str, str]) -> Finished:
        program = shutil.which(argv[0], path=self._path)
        if program is None:
            raise NotStarted(
                f"{argv[0]} is not in {clean(self._path, 200)}: set slurm_bin in [cluster] to the directory"
                " of Slurm's commands"
            )
        self.calls += 1
        return await run([program, *argv[1:]], env={**self._env, **extra}, timeout_s=self._timeout_s)


def _complaint(command: str, done: Finished) -> str:
    said = text.first_line(done.stderr) or text.first_line(done.stdout) or "it says nothing"
    how = f"exit code {done.code}" if done.code >= 0 else f"signal {-done.code}"
    return f"{command} failed ({how}): {said}"
