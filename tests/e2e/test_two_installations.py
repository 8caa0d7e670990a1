"""Two installations on one Slurm account: neither ever touches the other's jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.accounts import Accounts
from tests.e2e.installed import Installed
from tests.e2e.site import SERVICE, Site
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.real_slurm

# Replacements are due 79 s before the end: after 41 s.
TIMES = """
replicas = 2
min_available = 1
time_limit = "2m"
lead_floor = "40s"
min_ready = "2s"
drain_deadline = "30s"
admission_margin = "20s"
safety_margin = "5s"
"""
ROUNDS = 3


@pytest.fixture
def sites(slurm: Cluster, installed: Installed) -> Iterator[tuple[Site, Site]]:
    """Same Slurm user, same cluster's name, same service's name."""
    with Accounts() as accounts, ExitStack() as stack:
        user = accounts.user("eng")
        both = [
            stack.enter_context(Site(slurm, installed, SERVICE + TIMES, engine_user=user)) for _ in range(2)
        ]
        yield both[0], both[1]


@pytest.mark.timeout(420)
def test_they_never_touch_each_others_jobs(sites: tuple[Site, Site], slurm: Cluster):
    one, two = sites
    for site in sites:
        site.start_engine()
    for site in sites:
        site.wait_ready(2)
    assert one.installation != two.installation
    assert one.engine == two.engine

    # Restarts of all kinds, while hand-overs go on in both.
    one.kill_engine()
    one.start_engine()
    two.end_engine()
    time.sleep(3)
    two.start_engine()
    for site in sites:
        site.wait(
            "a hand-over to begin", lambda site=site: site.instances("draining") or handed_over(site), 90
        )
    two.kill_engine()
    one.kill_engine()
    two.start_engine()
    one.start_engine()
    for site in sites:
        site.wait("two rounds of hand-overs", lambda site=site: len(handed_over(site)) >= 2 * ROUNDS, 150)
    assert one.command("scale", "chat", "0", "--yes").returncode == 0
    one.wait("the jobs of one to end", lambda: not one.jobs(), 60)
    two.wait_ready(2)
    assert len(two.jobs()) >= 2
    assert two.command("scale", "chat", "0", "--yes").returncode == 0
    two.wait("the jobs of the other to end", lambda: not two.jobs(), 60)

    jobs = [job_ids(site) for site in sites]
    assert jobs[0].isdisjoint(jobs[1])
    assert all(len(ids) >= 2 + 2 * ROUNDS for ids in jobs)
    every = slurm.run("squeue", "-h", "-t", "all", "-u", one.engine.name, "-o", "%A").stdout.split()
    assert {int(job) for job in every} <= jobs[0] | jobs[1], "each job was submitted by one of the two"
    for site, own in zip(sites, jobs, strict=True):
        cancelled = {row["job_id"] for row in site.instances("stopped")}
        assert cancelled <= own
        assert not [event for event in site.events() if event["code"] in ("adopted", "unknown-job")]
        subjects = {event["subject"] for event in site.events("cancel")}
        assert subjects and all(subject.startswith(f"{site.installation}.") for subject in subjects)
    # Slurm's own record of who was cancelled, one by one: as often as the two engines have asked for it.
    asked = sum(len(site.events("cancel")) for site in sites)
    assert kills(slurm, jobs[0] | jobs[1]) == asked


def handed_over(site: Site) -> list[dict]:
    return [row for row in site.instances("stopped") if row.get("drain_kind") == "handover"]


def job_ids(site: Site) -> set[int]:
    """As the engine recorded them when it submitted."""
    return {int(event["text"].removeprefix("job ")) for event in site.events("submitted")}


def kills(slurm: Cluster, jobs: set[int]) -> int:
    log = (slurm.dir / "slurmctld.log").read_text(errors="replace")
    return sum(int(job) in jobs for job in re.findall(r"REQUEST_KILL_JOB JobId=(\d+)", log))
