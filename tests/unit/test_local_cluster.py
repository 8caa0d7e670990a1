"""The embedded cluster with real jobs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from saia_engine.model import Job, LaunchSpec, Snapshot
from saia_engine.slurm.local import LocalCluster, declare_nodes
from saia_engine.slurm.local.ledger import Files, transaction
from saia_engine.slurm.local.processes import MARK
from saia_engine.slurm.port import JobRequest, SlurmError, SlurmUnavailable, SubmitRejected

NODES = declare_nodes(2, cpus=4, memory_mib=1000, gpus=2)

T = TypeVar("T")


class Site:
    """A cluster in a directory of its own, and short words for what the tests do with it."""

    def __init__(self, directory: Path, lifeline_fd: int | None = None) -> None:
        self.directory = directory
        self.state = directory / "cluster"
        self.cluster = LocalCluster(self.state, NODES, "me", lifeline_fd, kill_wait_s=0.3, min_job_age_s=5.0)

    async def submit(self, script: str, name: str = "job", **spec: object) -> int:
        path = self.directory / f"{name}.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        wanted = LaunchSpec(**{"time_limit_s": 60, **spec})  # type: ignore[arg-type]
        return await self.cluster.submit(JobRequest(name, path, self.output(name), self.directory, wanted))

    def output(self, name: str = "job") -> Path:
        return self.directory / f"{name}.out"

    async def job(self, job_id: int) -> Job:
        return {job.id: job for job in (await self.cluster.observe()).jobs}[job_id]

    async def until(self, job_id: int, state: str) -> Job:
        return await self.eventually(
            lambda s: next((j for j in s.jobs if (j.id, j.state) == (job_id, state)), None)
        )

    async def eventually(self, found: Callable[[Snapshot], T | None]) -> T:
        deadline = time.monotonic() + 10
        while True:
            snapshot = await self.cluster.observe()
            if (value := found(snapshot)) is not None:
                return value
            assert time.monotonic() < deadline, snapshot
            await asyncio.sleep(0.02)

    async def text(self, wanted: int, name: str = "job") -> str:
        """The job's output, once it has so many lines."""
        deadline = time.monotonic() + 10
        while not self.output(name).exists() or self.output(name).read_text().count("\n") < wanted:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        return self.output(name).read_text()

    def supervisor(self, job_id: int) -> int:
        with transaction(Files(self.state)) as ledger:
            return ledger.jobs[job_id].supervisor


def processes_of(site: Site) -> list[int]:
    """Everything that carries the cluster's mark, and its supervisors."""
    found = []
    for pid in (entry.name for entry in os.scandir("/proc") if entry.name.isdigit()):
        try:
            text = (
                Path(f"/proc/{pid}/environ").read_bytes() + b"\0" + Path(f"/proc/{pid}/cmdline").read_bytes()
            )
        except OSError:
            continue
        if f"{MARK}={site.state}#".encode() in text or str(site.state).encode() + b"\0" in text:
            found.append(int(pid))
    return found


def seconds_until_gone(site: Site) -> float:
    started = time.monotonic()
    while processes_of(site) and time.monotonic() < started + 10:
        time.sleep(0.02)
    return time.monotonic() - started


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    site = Site(directory)
    try:
        yield site
        for job in (await site.cluster.observe()).jobs:
            await site.cluster.cancel(job.id, job.name)
        assert await asyncio.to_thread(seconds_until_gone, site) < 5
    finally:
        for pid in processes_of(site):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(directory)


async def test_a_job_runs_in_a_clean_environment_of_its_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_ENGINE", "x")
    ident = await site.submit("env; pwd; exit 0", name="saia.a.b.c.d", gres="gpu:2")
    job = await site.until(ident, "COMPLETED")
    output = site.output("saia.a.b.c.d").read_text().splitlines()
    seen = dict(line.partition("=")[::2] for line in output)
    assert {name: seen[name] for name in ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURMD_NODENAME")} == {
        "SLURM_JOB_ID": str(ident),
        "SLURM_JOB_NAME": "saia.a.b.c.d",
        "SLURMD_NODENAME": "node01",
    }
    assert seen["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert seen["SLURM_JOB_NODELIST"] == "node01"
    assert seen["USER"] == "me"
    assert seen["PATH"] == os.environ["PATH"]
    assert "SLURM_RESTART_COUNT" not in seen
    assert "SECRET_OF_THE_ENGINE" not in seen
    assert output[-1] == str(site.directory)
    assert (job.user, job.gpus, job.nodes, job.restarts) == ("me", 2, ("node01",), 0)
    assert job.start_time is not None
    assert job.end_time is not None
    assert job.submit_time <= job.start_time <= job.end_time


async def test_states_of_a_job_and_of_its_node(site: Site) -> None:
    ident = await site.submit("exec sleep 60", cpus=4, gres="gpu:1")
    job = await site.job(ident)
    assert job.state == "RUNNING"
    assert job.start_time is not None
    assert job.end_time == job.start_time + 60
    first, second = (await site.cluster.observe()).nodes
    assert (first.state, first.cpus_allocated, first.gpus_allocated) == ("allocated", 4, 1)
    assert (second.state, second.cpus_allocated, second.gpus_allocated) == ("idle", 0, 0)
    assert first.address == "127.0.0.1"


@pytest.mark.parametrize(
    ("script", "state"), [("exit 0", "COMPLETED"), ("exit 3", "FAILED"), ("kill -9 $$", "FAILED")]
)
async def test_how_a_job_ends_by_itself(site: Site, script: str, state: str) -> None:
    await site.until(await site.submit(script), state)


async def test_the_time_limit_holds_to_the_second(site: Site) -> None:
    ident = await site.submit(
        "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.02; done", time_limit_s=1
    )
    job = await site.until(ident, "TIMEOUT")
    assert job.start_time is not None
    assert job.end_time is not None
    assert 1.0 <= job.end_time - job.start_time < 1.6
    assert "term" in site.output().read_text().splitlines()


async def test_cancel_reaches_every_process_also_those_in_sessions_of_their_own(site: Site) -> None:
    script = """
    trap 'echo main; exit 0' TERM
    setsid sh -c 'trap "echo other session" TERM; echo up; sleep 30 & wait; exit' &
    env -i setsid sh -c 'trap "echo no environment" TERM; echo up; sleep 30 & wait; exit' &
    wait"""
    ident = await site.submit(script)
    await site.text(2)
    await site.cluster.cancel(ident, "job")
    job = await site.until(ident, "CANCELLED")
    assert sorted(site.output().read_text().splitlines()[2:]) == ["main", "no environment", "other session"]
    assert job.end_time is not None


async def test_who_ignores_sigterm_is_completing_and_then_killed(site: Site) -> None:
    ident = await site.submit("trap '' TERM; echo $$; while :; do sleep 0.05; done")
    pid = int(await site.text(1))
    await site.cluster.cancel(ident, "job")
    assert (await site.job(ident)).state == "COMPLETING"
    assert alive(pid)
    await site.until(ident, "CANCELLED")
    assert not alive(pid)


async def test_what_a_finished_job_leaves_behind_is_ended(site: Site) -> None:
    ident = await site.submit("env -i setsid sleep 60 >/dev/null 2>&1 & echo $!; exit 0")
    pid = int(await site.text(1))
    await site.until(ident, "COMPLETED")
    assert not alive(pid)


async def test_cancel_is_silent_about_unknown_ids_and_other_names(site: Site) -> None:
    ident = await site.submit("exec sleep 60")
    await site.cluster.cancel(ident, "another")
    await site.cluster.cancel(ident + 1, "job")
    assert (await site.job(ident)).state == "RUNNING"


async def test_the_queue_moves_when_a_job_ends_though_no_engine_looks(site: Site) -> None:
    first = await site.submit("sleep 0.2", cpus=4, nodes=2)
    second = await site.submit("echo second", name="second")
    third = await site.submit("echo third", name="third")
    reasons = {job.id: (job.state, job.reason) for job in (await site.cluster.observe()).jobs}
    assert reasons[first] == ("RUNNING", "")
    assert reasons[second] == ("PENDING", "Resources")
    assert reasons[third] == ("PENDING", "Priority")
    assert await site.text(1, "second") == "second\n"
    assert await site.text(1, "third") == "third\n"


async def test_a_pending_job_is_cancelled_at_once_and_never_starts(site: Site) -> None:
    await site.submit("exec sleep 60", cpus=4, nodes=2)
    ident = await site.submit("echo started", name="second")
    await site.cluster.cancel(ident, "second")
    job = await site.job(ident)
    assert (job.state, job.start_time) == ("CANCELLED", None)
    assert not site.output("second").exists()


async def test_a_requeue_keeps_the_id_and_counts_the_restart(site: Site) -> None:
    ident = await site.submit("echo ${SLURM_RESTART_COUNT:-0}; exec sleep 60")
    before = await site.job(ident)
    await site.text(1)
    await site.cluster.requeue(ident)
    await site.text(2)
    after = await site.until(ident, "RUNNING")
    assert site.output().read_text() == "0\n1\n"
    assert after.restarts == 1
    assert after.submit_time > before.submit_time
    with pytest.raises(SlurmError, match="not running"):
        await site.cluster.requeue(ident + 1)


async def test_a_drained_node_starts_nothing_until_it_is_idle_again(site: Site) -> None:
    await site.cluster.set_node_state("node01", "drain", "fan broken")
    ident = await site.submit("exec sleep 60")
    assert (await site.job(ident)).nodes == ("node02",)
    node = (await site.cluster.observe()).node_by_name["node01"]
    assert (node.state, node.reason, node.usable) == ("idle+drain", "fan broken", False)
    big = await site.submit("exec sleep 60", name="big", cpus=4)
    assert (await site.job(big)).state == "PENDING"
    await site.cluster.set_node_state("node01", "idle")
    assert (await site.until(big, "RUNNING")).nodes == ("node01",)
    for name, state in (("node09", "drain"), ("node01", "on fire")):
        with pytest.raises(SlurmError):
            await site.cluster.set_node_state(name, state)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"cpus": 5}, "Requested node configuration is not available"),
        ({"gres": "gpu:3"}, "Requested node configuration is not available"),
        ({"nodes": 3}, "Requested node configuration is not available"),
        ({"gres": "fpga:1"}, "Invalid generic resource"),
        ({"time_limit_s": 0}, "must be positive"),
        ({"time_limit_s": 60, "time_min_s": 61}, "Invalid time-min"),
        ({"exclude": "node[01-02]"}, "Requested node configuration is not available"),
        ({"exclude": "node[01-"}, "Invalid node name"),
    ],
)
async def test_what_can_never_run_is_rejected(site: Site, spec: dict[str, object], message: str) -> None:
    with pytest.raises(SubmitRejected, match=message):
        await site.submit("true", **spec)
    assert (await site.cluster.observe()).jobs == ()


@pytest.mark.parametrize("time_limit_s", [7, 90])
@pytest.mark.parametrize("exclude", ["node01", "node[01,07-09]", " other, node01 "])
async def test_excluded_nodes_are_left_out_whatever_the_limits(
    site: Site, exclude: str, time_limit_s: int
) -> None:
    spec = {"exclude": exclude, "time_limit_s": time_limit_s, "time_min_s": 5}
    job = await site.until(await site.submit("exec sleep 60", **spec), "RUNNING")
    assert job.nodes == ("node02",)
    assert job.start_time is not None and job.end_time == job.start_time + time_limit_s
    assert job.time_limit_s == time_limit_s


async def test_a_job_over_two_nodes_holds_both_and_knows_them(site: Site) -> None:
    spec = {"nodes": 2, "cpus": 3, "gres": "gpu:2"}
    ident = await site.submit("env | grep '^S.*NODE'; echo $CUDA_VISIBLE_DEVICES; exec sleep 60", **spec)
    job = await site.until(ident, "RUNNING")
    assert (job.nodes, job.node_count, job.gpus, job.cpus) == (("node01", "node02"), 2, 4, 6)
    first, second = (await site.cluster.observe()).nodes
    for node in (first, second):
        assert (node.state, node.cpus_allocated, node.gpus_allocated) == ("mixed", 3, 2)
    assert set((await site.text(6)).splitlines()) == {
        "SLURM_JOB_NODELIST=node01,node02",
        "SLURM_NODELIST=node01,node02",
        "SLURM_JOB_NUM_NODES=2",
        "SLURM_NNODES=2",
        "SLURMD_NODENAME=node01",
        "0,1",
    }
    waiting = await site.submit("exec sleep 60", "second", gres="gpu:1")
    assert (await site.job(waiting)).state == "PENDING"
    await site.cluster.cancel(ident, "job")
    assert (await site.until(waiting, "RUNNING")).nodes == ("node01",)


async def test_a_script_must_be_there_and_be_a_script(site: Site) -> None:
    path = site.directory / "bad.sh"
    request = JobRequest("job", path, site.output(), site.directory, LaunchSpec())
    with pytest.raises(SubmitRejected, match=r"bad\.sh"):
        await site.cluster.submit(request)
    path.write_text("echo hello\n")
    with pytest.raises(SubmitRejected, match="first line"):
        await site.cluster.submit(request)


async def test_what_runs_is_the_script_as_it_was_submitted(site: Site) -> None:
    await site.submit("exec sleep 0.1", cpus=4, nodes=2)
    ident = await site.submit("echo as submitted", name="second")
    (site.directory / "second.sh").write_text("#!/bin/sh\necho changed\n")
    await site.until(ident, "COMPLETED")
    assert site.output("second").read_text() == "as submitted\n"


@pytest.mark.parametrize("broken", ["workdir", "output", "interpreter"])
async def test_a_job_that_cannot_start_has_failed(site: Site, broken: str) -> None:
    script = site.directory / "job.sh"
    script.write_text("#!/no/such/shell\n" if broken == "interpreter" else "#!/bin/sh\ntrue\n")
    missing = site.directory / "missing"
    ident = await site.cluster.submit(
        JobRequest(
            name="job",
            script=script,
            output=missing / "out" if broken == "output" else site.output(),
            workdir=missing if broken == "workdir" else site.directory,
            spec=LaunchSpec(),
        )
    )
    await site.until(ident, "FAILED")
    assert f"job {ident} could not start" in (site.state / "supervisors.log").read_text()


async def test_jobs_outlive_the_engine_and_are_found_again(site: Site) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from saia_engine.model import LaunchSpec
from saia_engine.slurm.local import LocalCluster, declare_nodes
from saia_engine.slurm.port import JobRequest
directory = Path({str(site.directory)!r})
(directory / "job.sh").write_text("#!/bin/sh\\necho $$\\nexec sleep 60\\n")
cluster = LocalCluster(directory / "cluster", declare_nodes(2, cpus=4, memory_mib=1000, gpus=2), "me")
request = JobRequest("job", directory / "job.sh", directory / "job.out", directory, LaunchSpec(time_limit_s=60))
print(asyncio.run(cluster.submit(request)), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    engine = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert engine.returncode == -signal.SIGKILL
    ident = int(engine.stdout)
    pid = int(await site.text(1))
    assert (await site.job(ident)).state == "RUNNING"
    assert alive(pid)
    await site.cluster.cancel(ident, "job")
    await site.until(ident, "CANCELLED")
    assert not alive(pid)
    assert await site.submit("true") == ident + 1


async def test_a_job_whose_supervisor_was_killed_is_a_node_failure_and_leaves_nothing(site: Site) -> None:
    ident = await site.submit("setsid sleep 60 & echo $!; wait")
    pid = int(await site.text(1))
    os.kill(site.supervisor(ident), signal.SIGKILL)
    await site.until(ident, "NODE_FAIL")
    assert not alive(pid)
    assert (await site.cluster.observe()).nodes[0].state == "idle"


async def test_a_supervisor_started_by_an_engine_that_died_before_the_commit_does_nothing(site: Site) -> None:
    from saia_engine.slurm.local import dispatch

    await site.cluster.set_node_state("node01", "drain")
    await site.cluster.set_node_state("node02", "drain")
    ident = await site.submit("echo ran")
    with pytest.raises(ZeroDivisionError), transaction(Files(site.state)) as ledger:
        ledger.nodes = tuple(type(n)(n.name, n.cpus, n.memory_mib, n.gpus) for n in ledger.nodes)
        dispatch.start_waiting(Files(site.state), ledger, -1)
        assert ledger.jobs[ident].state == "RUNNING"
        _ = 1 / 0
    assert (await site.job(ident)).state == "PENDING"
    await site.cluster.set_node_state("node01", "idle")
    await site.until(ident, "COMPLETED")
    assert site.output().read_text() == "ran\n"


async def test_ended_jobs_vanish_after_their_age_and_ids_are_not_used_again(site: Site) -> None:
    site.cluster = LocalCluster(site.state, NODES, "me", min_job_age_s=0.2)
    ident = await site.submit("true")
    await site.eventually(lambda snapshot: True if not snapshot.jobs else None)
    assert await site.submit("true") == ident + 1
    assert [path.name for path in site.state.glob(f"job-{ident}.*")] == []


async def test_at_the_end_of_the_lifeline_everything_is_gone() -> None:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    read_end, write_end = os.pipe()
    site = Site(directory, read_end)
    try:
        await site.submit(
            "trap '' TERM; echo $SAIA_LIFELINE_FD; while :; do sleep 0.05; done", cpus=4, nodes=2
        )
        await site.submit("echo never", name="second")
        assert await site.text(1) == f"{read_end}\n"
        os.close(write_end)
        assert await asyncio.to_thread(seconds_until_gone, site) < 2
        assert not site.output("second").exists()
    finally:
        for pid in processes_of(site):
            os.kill(pid, signal.SIGKILL)
        os.close(read_end)
        shutil.rmtree(directory)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"version": 99}', b'{"version": 1, "jobs": 5}', b"\xff"])
async def test_a_broken_ledger_is_named_and_left_alone(site: Site, content: bytes) -> None:
    await site.cluster.observe()
    ledger = site.state / "ledger.json"
    good = ledger.read_bytes()
    ledger.write_bytes(content)
    with pytest.raises(SlurmUnavailable, match=r"ledger\.json cannot be read"):
        await site.cluster.observe()
    with pytest.raises(SubmitRejected, match=r"ledger\.json"):
        await site.submit("true")
    assert ledger.read_bytes() == content
    ledger.write_bytes(good)


async def test_two_engines_at_once_lose_no_job(site: Site) -> None:
    other = Site(site.directory)
    sites = enumerate((site, other) * 6)
    idents = await asyncio.gather(*(s.submit("exec sleep 60", name=f"j{n}") for n, s in sites))
    assert len(set(idents)) == 12
    jobs = (await site.cluster.observe()).jobs
    assert sum(job.state == "RUNNING" for job in jobs) == 8
    assert json.loads((site.state / "ledger.json").read_bytes())["next_id"] == max(idents) + 1


async def test_an_observation_is_cheap(site: Site) -> None:
    for number in range(8):
        await site.submit("exec sleep 60", name=f"j{number}")
    for number in range(30):
        await site.submit("true", name=f"p{number}")
    spent = time.process_time()
    for _ in range(20):
        await site.cluster.observe()
    assert (time.process_time() - spent) / 20 < 0.02
