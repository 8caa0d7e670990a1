"""Argument lists: each part of a launch spec at its place, and nothing that a shell or Slurm would expand."""

from __future__ import annotations

from pathlib import Path

from saia_engine.model import LaunchSpec
from saia_engine.slurm import commands
from saia_engine.slurm.port import JobRequest


def request(spec: LaunchSpec, directory: str = "/shared/i") -> JobRequest:
    base = Path(directory)
    return JobRequest("saia.inst.hpc.chat.n1", base / "job.sh", base / "output.log", base, spec)


def test_the_least_a_job_needs():
    assert commands.sbatch(request(LaunchSpec(time_limit_s=90))) == [
        "sbatch",
        "--propagate=NONE",
        "--parsable",
        "--job-name=saia.inst.hpc.chat.n1",
        "--output=/shared/i/output.log",
        "--open-mode=append",
        "--chdir=/shared/i",
        "--time=2",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--export=SAIA_INSTANCE=inst.hpc.chat.n1",
        "--requeue",
        "/shared/i/job.sh",
    ]


def test_every_wish_of_a_spec_is_one_argument():
    spec = LaunchSpec(
        nodes=2,
        gres="gpu:a100:2",
        cpus=8,
        memory_mib=65536,
        partition="gpu; rm -rf /",
        account="acc",
        qos="high",
        constraint="a100&nvlink",
        reservation="res",
        exclude="gpu[01-02]",
    )
    argv = commands.sbatch(request(spec))
    for wanted in (
        "--nodes=2",
        "--gres=gpu:a100:2",
        "--cpus-per-task=8",
        "--mem=65536M",
        "--partition=gpu; rm -rf /",
        "--account=acc",
        "--qos=high",
        "--constraint=a100&nvlink",
        "--reservation=res",
        "--exclude=gpu[01-02]",
    ):
        assert argv.count(wanted) == 1


def test_slurm_may_shorten_the_limit_but_never_below_the_least():
    assert not [option for option in commands.sbatch(request(LaunchSpec())) if "time-min" in option]
    for seconds, minutes in ((1, 1), (60, 1), (61, 2), (3600, 60)):
        argv = commands.sbatch(request(LaunchSpec(time_limit_s=7200, time_min_s=seconds)))
        assert f"--time-min={minutes}" in argv


def test_a_sites_options_come_before_ours_so_that_ours_count():
    argv = commands.sbatch(request(LaunchSpec(sbatch_options=("--comment=x", "--job-name=other"))))
    assert argv.index("--job-name=other") < argv.index("--job-name=saia.inst.hpc.chat.n1")


def test_slurm_expands_nothing_in_the_log_path():
    assert "--output=/shared/100%%j/output.log" in commands.sbatch(request(LaunchSpec(), "/shared/100%j"))


def test_the_nonce_ends_the_plain_fields_and_each_text():
    form = commands.squeue("N0")[-1]
    assert form.startswith("JobID:0|,State:0|,")
    assert form.endswith(
        "NodeList:0|N0|,tres-alloc:0|N0|,tres-per-job:0|N0|,tres-per-node:0|N0|,Reason:0|N0|,Name:0|N0|"
    )


def test_reservations_are_asked_for_line_by_line():
    assert commands.show_reservations() == ["scontrol", "--oneliner", "show", "reservation"]
