"""A damaged journal on a real Slurm: the installed command makes a new one, and the same jobs serve on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.e2e.installed import Installed
from tests.e2e.site import SERVICE, Site
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.real_slurm, pytest.mark.timeout(240)]

DAMAGE = b"no database, but long enough to look like one" * 100
TIMES = 'replicas = 2\ntime_limit = "1h"\nmin_ready = "1s"\nlead_floor = "1m"\n'


@pytest.fixture
def site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    with Site(slurm, installed, SERVICE + TIMES) as running:
        yield running


def test_the_same_jobs_serve_on_with_a_rebuilt_journal(site: Site) -> None:
    site.start_engine()
    before = {row["id"]: row["job_id"] for row in site.wait_ready(2)}
    refused = site.command("rebuild", account=site.engine)
    assert (refused.returncode, refused.stdout) == (4, ""), refused.stderr
    site.kill_engine()
    journal = site.dir / "state" / "state.db"
    journal.write_bytes(DAMAGE)

    slurmctld = site.cluster.conf.read_text()
    site.cluster.conf.write_text(slurmctld.replace("SlurmctldPort=", "SlurmctldPort=1"))
    try:
        silent = site.command("rebuild", account=site.engine, timeout_s=120)
    finally:
        site.cluster.conf.write_text(slurmctld)
    assert (silent.returncode, silent.stdout) == (3, ""), silent.stderr
    assert journal.read_bytes() == DAMAGE

    done = site.command("rebuild", account=site.engine)
    if "just restarted" in done.stderr:  # the cluster is as young as this test
        time.sleep(15)
        done = site.command("rebuild", account=site.engine)
    assert (done.returncode, done.stderr) == (0, "")
    for name, job_id in before.items():
        assert f"adopted  {name.split('.', 2)[2]}: job {job_id} ready gpu" in done.stdout, done.stdout
    assert "revisions that a rollback can go to: chat 1" in done.stdout
    [aside] = (path for path in journal.parent.glob("*.damaged-*") if not path.name.endswith("-journal"))
    assert aside.read_bytes() == DAMAGE
    assert "is whole" in site.command("rebuild", account=site.engine).stdout

    site.start_engine()
    site.wait_settled(2)
    assert {row["id"]: row["job_id"] for row in site.instances("ready")} == before
    assert sorted(job_id for job_id, _ in site.jobs()) == sorted(before.values())
    name = next(iter(before))
    asked = ("explain", name, "--json", "--socket", str(site.operator_socket))
    story = json.loads(site.command(*asked, account=site.operator).stdout)
    assert [event["code"] for event in story["events"]][:1] == ["adopted"]
