"""A service over two nodes on a real Slurm: the agent on the first, what `srun` starts on the second."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saia_engine.slurm.text import node_names
from tests.e2e.installed import Installed
from tests.e2e.site import LIVE, MODEL, Site
from tests.e2e.traffic import Traffic
from tests.slurm.cluster import Cluster
from tests.slurm.keeper import descendants

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd]

# The second node's part ignores SIGTERM, as one that hangs would; a replacement is due 59 s after a start.
SERVICE = """
[services.wide]
models = ["count"]
script = '''
srun --nodes=1 --ntasks=1 --relative=1 --gres=none sh -c '
    trap "" TERM
    echo "$SLURMD_NODENAME" > "worker.$SLURM_RESTART_COUNT"
    while :; do sleep 1; done
' &
until [ -s "worker.$SLURM_RESTART_COUNT" ]; do sleep 0.1; done
PYTHON -m saia_engine.demo.llm --uds "$SAIA_SOCKET" --model count
'''
listen = "socket"
nodes = 2
gres = "gpu:a100:1"
time_limit = "2m"
lead_floor = "10s"
min_ready = "2s"
drain_deadline = "40s"
admission_margin = "30s"
safety_margin = "5s"

[services.wide.readiness]
kind = "completion"

[services.wide.liveness]
kind = "completion"
interval = "1s"
"""


@pytest.fixture
def site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    with Site(slurm, installed, SERVICE.replace("PYTHON", str(installed.site / "python"))) as running:
        yield running


@pytest.mark.timeout(400)
def test_a_service_on_two_nodes_hands_over_loses_a_node_and_leaves_nothing_behind(site: Site) -> None:
    assert "ready while a completion of count" in site.command("check", str(site.config)).stdout
    site.start_engine()
    [first] = site.wait_ready(1, 90)
    check_that_it_runs_on_two_nodes(site, first)
    site.open_gate()
    site.start_proxy()
    with Traffic(site.url, site.api_key, MODEL, streams=4) as traffic:
        site.wait("the hand-over", lambda: ended(site, first["id"]), 150)
    assert traffic.faults == []
    assert first["id"] in traffic.served_by() and len(traffic.served_by()) > 1
    check_that_nothing_is_left(site, first)

    [second] = site.wait_ready(1)
    lost = nodes_of(site, second["job_id"])[1]
    died_at = time.monotonic()
    site.cluster.drain_node(lost)  # or it would be back as soon as its slurmd is heard of
    site.cluster.run("scontrol", "update", f"NodeName={lost}", "State=DOWN", "Reason=test")
    try:
        site.wait("the loss to be seen", lambda: second["id"] not in ids(site, "ready"), 30)
        check_that_nothing_is_left(site, second, but_queued=True)
        assert time.monotonic() - died_at < 40
        again_at_once(site)
        [third] = site.wait_ready(1, 90)
        assert lost not in check_that_it_runs_on_two_nodes(site, third)
    finally:
        site.cluster.run("scontrol", "update", f"NodeName={lost}", "State=RESUME", check=False)

    asked = site.command("scale", "wide", "0", "--yes")
    assert asked.returncode == 0, asked.stderr
    site.wait("the last job to end", lambda: not site.jobs(), 90)
    check_that_nothing_is_left(site, third)


def ids(site: Site, *states: str) -> set[str]:
    return {row["id"] for row in site.instances(*states)}


def ended(site: Site, instance: str) -> bool:
    return instance in ids(site, "stopped", "failed")


def nodes_of(site: Site, job: int) -> tuple[str, ...]:
    return node_names(site.cluster.run("squeue", "-h", "-j", str(job), "-o", "%N").stdout.strip())


def check_that_it_runs_on_two_nodes(site: Site, instance: dict) -> tuple[str, ...]:
    """And that each has processes of it, one of them a step."""
    first, second = nodes_of(site, instance["job_id"])
    assert instance["node"] == first
    generation = instance.get("generation", 0)
    said = site.dir / "shared" / "instances" / instance["id"] / f"worker.{generation or ''}"
    assert said.read_text().strip() == second
    steps = site.cluster.run("squeue", "-h", "-s", "-j", str(instance["job_id"]), "-o", "%i %N").stdout
    assert f"{instance['job_id']}.0 {second}" in steps
    assert len(processes(instance["id"])) > 3
    return first, second


def check_that_nothing_is_left(site: Site, instance: dict, *, but_queued: bool = False) -> None:
    """Neither process nor step; the job neither, unless Slurm has queued it again."""
    job = str(instance["job_id"])
    site.wait("its last process to end", lambda: not processes(instance["id"]), 30)
    site.wait("its last step to end", lambda: not steps_of(site, job), 30)
    states = site.cluster.run("squeue", "-h", "-j", job, "-t", ",".join(LIVE), "-o", "%T", check=False)
    assert set(states.stdout.split()) <= ({"PENDING"} if but_queued else set())


def steps_of(site: Site, job: str) -> list[str]:
    """As Slurm lists them, and the daemons of them, which may be late."""
    listed = site.cluster.run("squeue", "-h", "-s", "-o", "%i").stdout.split()
    daemons = [_read(pid, "cmdline").decode() for pid in descendants(site.cluster.keeper_pid)]
    return [step for step in listed if step.startswith(f"{job}.")] + [
        daemon for daemon in daemons if daemon.startswith(f"slurmstepd: [{job}.")
    ]


def processes(instance: str) -> list[int]:
    """All whose environment names the instance, on whichever of the nodes, which are one machine here."""
    wanted = f"SAIA_INSTANCE={instance}".encode()
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if wanted in _read(pid, "environ").split(b"\0")]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def again_at_once(site: Site) -> None:
    """Slurm holds a requeued job back for two minutes; nobody needs to wait so long here."""
    for job, _ in site.jobs():
        shown = site.cluster.run("scontrol", "show", "job", str(job)).stdout
        if re.search(r"JobState=PENDING\b", shown):
            site.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
