"""The adapter on a real Slurm."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from saia_engine.model import Job, LaunchSpec, Partition, Snapshot
from saia_engine.slurm.cli import SlurmCli
from saia_engine.slurm.port import JobRequest, SlurmError, SlurmUnavailable, SubmitRejected, SubmitUnknown
from tests.slurm.cluster import Cluster
from tests.slurm.versions import LATER

pytestmark = pytest.mark.real_slurm

PATIENCE_S = 60.0


@pytest.fixture
def slurm(cluster: Cluster) -> SlurmCli:
    return adapter(cluster)


def adapter(cluster: Cluster, command_timeout_s: float = 30.0) -> SlurmCli:
    return SlurmCli(
        "root", bin_dir=cluster.version.bin_dir, conf=str(cluster.conf), command_timeout_s=command_timeout_s
    )


def request(
    directory: Path, spec: LaunchSpec | None = None, *, nonce: str = "n1", body: str = "exec sleep 600"
) -> JobRequest:
    script = directory / f"job-{nonce}.sh"
    script.write_text(f"#!/bin/sh\n{body}\n")
    name = f"saia.inst.hpc.chat.{nonce}"
    return JobRequest(name, script, directory / "output.log", directory, spec or LaunchSpec(time_limit_s=300))


async def until(slurm: SlurmCli, holds: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot of which it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds(snapshot := await slurm.observe()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return snapshot


def find(snapshot: Snapshot, job_id: int) -> Job | None:
    return next((job for job in snapshot.jobs if job.id == job_id), None)


def in_state(job_id: int, state: str) -> Callable[[Snapshot], bool]:
    return lambda snapshot: (job := find(snapshot, job_id)) is not None and job.state == state


async def running(slurm: SlurmCli, job_id: int) -> Job:
    job = find(await until(slurm, in_state(job_id, "RUNNING")), job_id)
    assert job is not None
    return job


async def test_the_slurm_that_answers_is_the_one_that_was_asked_for(cluster: Cluster):
    told = cluster.run("scontrol", "show", "config").stdout
    version = next(line.split()[-1] for line in told.splitlines() if line.startswith("SLURM_VERSION"))
    assert tuple(map(int, version.split(".")[:2])) == cluster.version.number()
    if cluster.version is LATER:
        assert version.startswith("24.11.")


async def test_a_job_from_submit_to_cancel(slurm: SlurmCli, tmp_path: Path):
    spec = LaunchSpec(gres="gpu:a100:2", cpus=2, memory_mib=1024, time_limit_s=290, partition="gpu")
    asked = request(tmp_path, spec)
    job_id = await slurm.submit(asked)
    snapshot = await until(slurm, in_state(job_id, "RUNNING"))
    job = find(snapshot, job_id)
    assert job is not None and job.start_time is not None
    assert (job.name, job.user, job.partition, job.restarts) == (asked.name, "root", "gpu", 0)
    assert (job.gres, job.gpus, job.cpus, job.time_limit_s) == ("gpu:a100:2", 2, 2, 300)
    assert job.end_time == job.start_time + 300
    assert snapshot.taken_at - 30 < job.submit_time <= job.start_time
    node = snapshot.node_by_name[job.nodes[0]]
    assert (node.state, node.address, node.gpu_type) == ("mixed", "127.0.0.1", "a100")
    assert (node.gpus, node.gpus_allocated, node.cpus, node.cpus_allocated) == (4, 2, 16, 2)

    await slurm.cancel(job_id, "saia.inst.hpc.chat.other")
    assert in_state(job_id, "RUNNING")(await slurm.observe())

    await slurm.cancel(job_id, asked.name)
    ended = find(await until(slurm, in_state(job_id, "CANCELLED")), job_id)
    assert ended is not None and ended.ended
    await slurm.cancel(job_id, asked.name)  # an ended one is no error
    await slurm.cancel(987_654, asked.name)


async def test_a_snapshot_costs_four_commands_however_many_jobs(slurm: SlurmCli, tmp_path: Path):
    await slurm.observe()
    assert slurm.calls == 4
    for number in range(4):
        await slurm.submit(request(tmp_path, nonce=f"n{number}"))
    before = slurm.calls
    snapshot = await slurm.observe()
    assert slurm.calls - before == 4
    assert len([job for job in snapshot.jobs if not job.ended]) == 4


async def test_a_job_over_two_nodes_names_both(slurm: SlurmCli, tmp_path: Path):
    job_id = await slurm.submit(request(tmp_path, LaunchSpec(nodes=2, gres="gpu:1", time_limit_s=300)))
    job = await running(slurm, job_id)
    assert (job.node_count, len(job.nodes), job.gpus) == (2, 2, 2)
    assert set(job.nodes) < {"gpu01", "gpu02", "gpu03", "gpu04"}


async def test_a_jobs_steps_run_on_all_of_its_nodes(cluster: Cluster, slurm: SlurmCli, tmp_path: Path):
    (tmp_path / "seen").mkdir()
    body = "export SLURM_EXPORT_ENV=ALL\nsrun --version\nexec srun sh -c 'touch seen/$SLURMD_NODENAME'"
    job_id = await slurm.submit(request(tmp_path, LaunchSpec(nodes=2, time_limit_s=300), body=body))
    ended = find(
        await until(slurm, lambda seen: (job := find(seen, job_id)) is not None and job.ended), job_id
    )
    output = (tmp_path / "output.log").read_text()
    assert ended is not None and ended.state == "COMPLETED", output
    assert output.split()[1].startswith("{}.{:02}.".format(*cluster.version.number()))
    assert {file.name for file in (tmp_path / "seen").iterdir()} == set(ended.nodes)


async def test_neither_side_sees_the_engines_environment(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    monkeypatch.setenv("SINFO_PARTITION", "short")
    monkeypatch.setenv("SBATCH_PARTITION", "short")
    monkeypatch.setenv("SBATCH_EXPORT", "ALL")
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    slurm = adapter(cluster)
    file = shlex.quote(str(tmp_path / "env"))
    body = f"env > {file}.part; mv {file}.part {file}; exec sleep 600"
    job_id = await slurm.submit(request(tmp_path, body=body))
    job = await running(slurm, job_id)
    assert job.partition == "gpu"
    assert len((await slurm.observe()).nodes) == 4
    async with asyncio.timeout(PATIENCE_S):
        while not (tmp_path / "env").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert found["SAIA_INSTANCE"] == "inst.hpc.chat.n1"
    assert found["SLURM_JOB_ID"] == str(job_id)
    assert found["HOME"] == "/root" and found["PATH"]
    assert not {"HF_TOKEN", "SQUEUE_STATES", "SBATCH_PARTITION", "SLURM_TIME_FORMAT"} & set(found)


async def test_a_job_name_that_forges_a_row_changes_nothing(
    cluster: Cluster, slurm: SlurmCli, tmp_path: Path
):
    own = await slurm.submit(request(tmp_path))
    row = "99|RUNNING|1|1|1|5:00|0|1|1|1|root|gpu|gpu01"
    names = [
        f"x\n{row}",
        f"x\n{row}|0123456789abcdef|N/A|0123456789abcdef|saia.inst.hpc.chat.n1",
        "\x1b[2J|\r\n",
    ]
    for name in names:
        cluster.run("sbatch", "-o", "/dev/null", "--job-name", name, "--wrap", "exec sleep 600")
    snapshot = await slurm.observe()
    live = {job.name for job in snapshot.jobs if not job.ended}
    assert live == {"saia.inst.hpc.chat.n1", *names}
    assert find(snapshot, 99) is None and find(snapshot, own) is not None


async def test_another_users_job_is_seen_and_left_alone(cluster: Cluster, slurm: SlurmCli):
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    name = "saia.inst.hpc.chat.n1"
    submit = (
        "sbatch",
        "--parsable",
        "-D",
        "/tmp",
        "-o",
        "/dev/null",
        "--job-name",
        name,
        "--wrap",
        "exec sleep 600",
    )
    job_id = int(cluster.run(*as_nobody, *submit).stdout)
    assert (await running(slurm, job_id)).user == "nobody"
    await slurm.cancel(job_id, name)
    await asyncio.sleep(0.5)
    assert in_state(job_id, "RUNNING")(await slurm.observe())


async def test_a_requeue_keeps_the_id_and_counts(cluster: Cluster, slurm: SlurmCli, tmp_path: Path):
    job_id = await slurm.submit(request(tmp_path))
    before = await running(slurm, job_id)
    cluster.run("scontrol", "requeue", str(job_id))
    after = find(await until(slurm, in_state(job_id, "PENDING")), job_id)
    assert after is not None
    assert (before.restarts, after.restarts) == (0, 1)
    assert after.name == before.name and after.end_time is None


async def test_an_admins_change_of_a_limit_is_seen_at_once(cluster: Cluster, slurm: SlurmCli, tmp_path: Path):
    job_id = await slurm.submit(request(tmp_path))
    before = await running(slurm, job_id)
    cluster.run("scontrol", "update", f"JobId={job_id}", "TimeLimit=2")
    after = find(await slurm.observe(), job_id)
    assert after is not None and before.start_time is not None
    assert (after.time_limit_s, after.end_time) == (120, before.start_time + 120)


async def test_a_limit_that_may_be_shorter_ends_before_what_is_reserved(
    cluster: Cluster, slurm: SlurmCli, tmp_path: Path
):
    window = "starttime=now+600", "duration=60", "users=root", "nodes=ALL", "flags=maint"
    cluster.run("scontrol", "create", "reservation", "reservationname=window", *window)
    try:
        whole = await slurm.submit(request(tmp_path, LaunchSpec(time_limit_s=3600), nonce="whole"))
        spec = LaunchSpec(time_limit_s=3600, time_min_s=120)
        job = await running(slurm, await slurm.submit(request(tmp_path, spec, nonce="clipped")))
        waiting = find(await slurm.observe(), whole)
    finally:
        cluster.run("scontrol", "delete", "reservationname=window")
    assert job.time_limit_s is not None and 120 <= job.time_limit_s <= 600
    assert waiting is not None and waiting.state == "PENDING"


async def test_a_log_is_appended_to_whatever_its_path_holds(slurm: SlurmCli, tmp_path: Path):
    directory = tmp_path / "100%j of it"
    directory.mkdir()
    (directory / "output.log").write_text("before\n")
    job_id = await slurm.submit(request(directory, body="echo now; pwd"))
    await until(slurm, in_state(job_id, "COMPLETED"))
    assert (directory / "output.log").read_text() == f"before\nnow\n{directory}\n"


async def test_a_drained_node_says_why(cluster: Cluster, slurm: SlurmCli):
    reason = "fan broken|\ngpu01|idle|x"
    cluster.drain_node("gpu03", reason)
    try:
        snapshot = await slurm.observe()
    finally:
        cluster.resume_node("gpu03")
    node = snapshot.node_by_name["gpu03"]
    assert (node.state, node.usable, node.reason) == ("idle+drain", False, reason)
    assert [node.name for node in snapshot.nodes] == ["gpu01", "gpu02", "gpu03", "gpu04"]
    assert set(snapshot.node_by_name["gpu01"].partitions) == {"gpu", "short"}


async def test_partitions_and_a_maintenance_are_foreseen(cluster: Cluster, slurm: SlurmCli):
    name = "a b\nReservationName=x"
    made = "nodes=gpu04", "users=root,nobody", "starttime=now+3600", "duration=30", "flags=maint,ignore_jobs"
    cluster.run("scontrol", "create", "reservation", f"reservationname={name}", *made)
    plain = "reservationname=plain", "starttime=now+7200", "duration=5", "users=root", "nodes=gpu[02-03]"
    cluster.run("scontrol", "create", "reservation", *plain)
    cluster.run("scontrol", "update", "partitionname=short", "state=drain")
    try:
        snapshot = await slurm.observe()
    finally:
        cluster.run("scontrol", "update", "partitionname=short", "state=up")
        for each in (name, "plain"):
            cluster.run("scontrol", "delete", f"reservationname={each}")
    maintenance, other = sorted(snapshot.reservations, key=lambda each: each.start)
    assert maintenance.maintenance and maintenance.nodes == ("gpu04",)
    assert maintenance.users == ("root", "nobody") and maintenance.accounts == ()
    assert maintenance.end - maintenance.start == 1800
    assert abs(maintenance.start - snapshot.taken_at - 3600) < 30
    assert (other.name, other.maintenance, other.nodes) == ("plain", False, ("gpu02", "gpu03"))
    every = ("gpu01", "gpu02", "gpu03", "gpu04")
    assert set(snapshot.partitions) == {
        Partition("gpu", up=True, max_time_s=None, nodes=every, default=True),
        Partition("short", up=False, max_time_s=1800.0, nodes=("gpu01",)),
    }
    assert (await slurm.observe()).reservations == ()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (LaunchSpec(partition="nope"), "nvalid partition"),
        (LaunchSpec(constraint="nope"), "Invalid feature"),
        (LaunchSpec(reservation="nope"), "Requested reservation is invalid"),
        (LaunchSpec(sbatch_options=("--no-such-option",)), "unrecognized option"),
        (LaunchSpec(gres="tpu:1"), "gres|generic resource"),
    ],
)
async def test_what_slurm_refuses_is_known_as_refused(
    slurm: SlurmCli, tmp_path: Path, spec: LaunchSpec, says: str
):
    with pytest.raises(SubmitRejected, match=says):
        await slurm.submit(request(tmp_path, spec, nonce="refused"))
    assert not [job for job in (await slurm.observe()).jobs if job.name.endswith(".refused")]


async def test_a_dead_controller_is_no_snapshot_and_its_restart_shows(
    cluster: Cluster, slurm: SlurmCli, tmp_path: Path
):
    before = await slurm.observe()
    cluster.kill_controller()
    try:
        unavailable, unknown, error = await asyncio.gather(
            slurm.observe(),
            slurm.submit(request(tmp_path)),
            slurm.cancel(1, "saia.inst.hpc.chat.n1"),
            return_exceptions=True,
        )
    finally:
        cluster.start_controller()
    assert isinstance(unavailable, SlurmUnavailable) and "Unable to contact slurm controller" in str(
        unavailable
    )
    assert isinstance(unknown, SubmitUnknown)
    assert isinstance(error, SlurmError)
    after = await until(slurm, lambda snapshot: True)
    assert after.controller_boot > before.controller_boot


async def test_a_submit_to_a_mute_controller_is_unknown_and_may_run_all_the_same(
    cluster: Cluster, slurm: SlurmCli, tmp_path: Path
):
    asked = request(tmp_path, nonce="late")
    cluster.pause_controller()
    try:
        with pytest.raises(SubmitUnknown, match="timed out"):
            await slurm.submit(asked)
    finally:
        cluster.resume_controller()
    await until(slurm, lambda snapshot: any(job.name == asked.name for job in snapshot.jobs))


async def test_our_own_deadline_comes_before_slurms(cluster: Cluster, tmp_path: Path):
    hasty = adapter(cluster, command_timeout_s=0.5)
    cluster.pause_controller()
    try:
        with pytest.raises(SlurmUnavailable, match=r"squeue did not answer within 0\.5 s"):
            await hasty.observe()
    finally:
        cluster.resume_controller()
