"""The adapter where Slurm is missing, mute or talks nonsense: what a real Slurm does not do on demand.

The stand-ins are real executables in a directory named as `slurm_bin`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from saia_engine.model import LaunchSpec
from saia_engine.slurm.cli import SlurmCli
from saia_engine.slurm.port import JobRequest, SlurmError, SlurmUnavailable, SubmitRejected, SubmitUnknown
from saia_engine.slurm.process import NotFinished, NotStarted, run

REQUEST = JobRequest("saia.i.hpc.chat.n1", Path("/x/job.sh"), Path("/x/log"), Path("/x"), LaunchSpec())


def stand_in(directory: Path, name: str, body: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{body}\n")
    (directory / name).chmod(0o755)


def cli(directory: Path, timeout_s: float = 5.0) -> SlurmCli:
    return SlurmCli("anna", bin_dir=str(directory), command_timeout_s=timeout_s)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def test_missing_commands_name_the_setting_that_helps(tmp_path: Path):
    slurm = cli(tmp_path)
    with pytest.raises(SlurmUnavailable, match=r"squeue is not in .*: set slurm_bin in \[cluster\]"):
        await slurm.observe()
    with pytest.raises(SubmitRejected, match="sbatch is not in"):
        await slurm.submit(REQUEST)
    with pytest.raises(SlurmError, match="scancel is not in"):
        await slurm.cancel(1, "saia.i.hpc.chat.n1")
    assert slurm.calls == 0


async def test_a_failed_query_says_which_and_why_without_escape_sequences(tmp_path: Path):
    stand_in(
        tmp_path, "squeue", r"printf 'slurm_load_jobs error: \033]52;c;AAA\007 dead\nmore\n' >&2; exit 1"
    )
    with pytest.raises(SlurmUnavailable) as caught:
        await cli(tmp_path).observe()
    assert str(caught.value) == r"squeue failed (exit code 1): slurm_load_jobs error: \x1b]52;c;AAA\x07 dead"


async def test_an_answer_that_does_not_parse_is_no_snapshot(tmp_path: Path):
    stand_in(tmp_path, "squeue", "echo welcome to this cluster")
    stand_in(tmp_path, "sinfo", "true")
    stand_in(tmp_path, "scontrol", "echo BOOT_TIME = 5")
    with pytest.raises(SlurmUnavailable, match="welcome to this cluster"):
        await cli(tmp_path).observe()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("echo hello", SubmitUnknown),
        ("exit 1", SubmitUnknown),
        ("echo 'sbatch: error: Batch job submission failed: Unspecified error' >&2; exit 1", SubmitUnknown),
        ("kill -9 $$", SubmitUnknown),
        (
            "echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; exit 1",
            SubmitRejected,
        ),
        (
            "echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; kill -9 $$",
            SubmitUnknown,
        ),
    ],
)
async def test_how_a_submit_fails(tmp_path: Path, body: str, error: type[Exception]):
    stand_in(tmp_path, "sbatch", body)
    with pytest.raises(error):
        await cli(tmp_path).submit(REQUEST)


async def test_a_submit_without_an_answer_is_unknown_and_leaves_no_process(tmp_path: Path):
    stand_in(tmp_path, "sbatch", f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    started = time.monotonic()
    with pytest.raises(SubmitUnknown, match=r"did not answer within 0\.5 s"):
        await cli(tmp_path, timeout_s=0.5).submit(REQUEST)
    assert time.monotonic() - started < 5
    assert gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_caller_leaves_no_process(tmp_path: Path):
    stand_in(tmp_path, "squeue", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    task = asyncio.create_task(cli(tmp_path).observe())
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(int((tmp_path / "pid").read_text()))


async def test_endless_output_is_cut_off():
    argv = [sys.executable, "-c", "while True: print('x' * 1000)"]
    with pytest.raises(NotFinished, match="printed more than 100000 bytes"):
        await run(argv, env={}, timeout_s=20, limit_bytes=100_000)


async def test_an_argument_that_cannot_be_passed_is_never_run():
    with pytest.raises(NotStarted):
        await run(["/bin/echo", "a\0b"], env={}, timeout_s=5)


async def test_a_cancel_without_a_name_is_refused(tmp_path: Path):
    stand_in(tmp_path, "scancel", "exit 0")
    slurm = cli(tmp_path)
    for job_id, name in ((0, "saia.i.hpc.chat.n1"), (5, "")):
        with pytest.raises(SlurmError):
            await slurm.cancel(job_id, name)
    assert slurm.calls == 0


async def test_commands_get_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("SQUEUE_STATES", "SBATCH_PARTITION", "SLURM_CLUSTERS", "SCANCEL_STATE", "SECRET"):
        monkeypatch.setenv(name, "PENDING")
    stand_in(tmp_path, "scancel", f"env > {tmp_path}/env")
    slurm = SlurmCli("anna", bin_dir=str(tmp_path), conf="/etc/slurm/x.conf")
    await slurm.cancel(5, "saia.i.hpc.chat.n1")
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "HOME", "USER", "LANG", "SLURM_CONF"}
