"""The main job on the real parts: jobs end every two minutes, and no client notices."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.installed import Installed, packages
from tests.e2e.site import MODEL, SERVICE, Site
from tests.e2e.traffic import Traffic
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd]

# Replacements are due 59 s after a start; `saia-engine check` refuses limits of 61 s or less.
TIMES = """
replicas = 2
min_available = 1
time_limit = "2m"
lead_floor = "10s"
min_ready = "2s"
drain_deadline = "40s"
admission_margin = "30s"
safety_margin = "5s"
"""
STREAMS = 8
DOWN_S = 6.0
HANDOVERS = 6


class Watcher:
    """Samples Slurm's own list of the site's live jobs, until closed."""

    def __init__(self, site: Site) -> None:
        self.samples: list[dict[int, str]] = []
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(1):
            with suppress(subprocess.SubprocessError):  # a controller that is slow for once
                self.samples.append(dict(self._site.jobs()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    with Site(slurm, installed, SERVICE + TIMES) as running:
        yield running


@pytest.mark.timeout(600)
def test_jobs_hand_over_under_load_and_the_engine_is_killed_meanwhile(site: Site, installed: Installed):
    assert not {"textual", "rich"} & packages(installed.proxy)
    checked = site.command("check", str(site.config))
    assert checked.returncode == 0, checked.stderr
    assert site.engine.uid != 0 and len({site.engine.uid, site.gate.uid, site.proxy.uid}) == 3
    site.start_engine()
    first = {row["id"] for row in site.wait_ready(2)}
    site.open_gate()
    site.start_proxy()
    check_what_the_proxy_can_read(site)
    watcher = Watcher(site)
    try:
        with Traffic(site.url, site.api_key, MODEL, streams=STREAMS) as traffic:
            time.sleep(3)
            busy_since = time.time()
            site.wait("a hand-over to begin", lambda: site.instances("draining"), 100)
            before = dict(site.jobs())
            submitted_before = len(site.events("submitted"))
            killed_at = time.time()
            site.kill_engine()
            time.sleep(DOWN_S)
            site.start_engine()
            back_at = time.time()
            after = {row["job_id"]: row["id"] for row in site.instances() if row["state"] != "stopped"}
            assert all(name == f"saia.{after[job]}" for job, name in before.items() if job in after)
            assert set(dict(site.jobs())) <= set(before), "a restarted engine submits nothing that was there"
            assert len(site.events("submitted")) == submitted_before
            site.wait("all hand-overs", lambda: len(ended_by_handover(site)) >= HANDOVERS, 240)
            busy_until = time.time()
    finally:
        watcher.close()

    assert traffic.faults == []
    assert len(traffic.streamed) > 40 and len(traffic.short) > 100
    assert traffic.fewest_open(busy_since, busy_until) >= STREAMS // 2
    assert traffic.longest_silence(killed_at, back_at) < 2
    assert traffic.longest_silence(busy_since, busy_until) < 2
    assert traffic.longest_gap() < 5, "a stream does not stall because others are handed over"
    check_handovers(site, traffic, first)
    check_jobs(site, watcher)

    asked = site.command("scale", "chat", "0", "--yes")
    assert asked.returncode == 0, asked.stderr
    site.wait("the last job to end", lambda: not site.jobs(), 60)


def check_what_the_proxy_can_read(site: Site) -> None:
    found = subprocess.run(
        site.proxy.argv("find", str(site.dir), "-type", "f", "-readable"), capture_output=True, text=True
    )
    files = {Path(line).relative_to(site.dir) for line in found.stdout.splitlines()}
    assert {Path("proxy/proxy.toml"), Path("proxy/id_ed25519"), Path("proxy/known_hosts")} <= files
    assert {file.parts[0] for file in files} == {"proxy"}


def ended_by_handover(site: Site) -> list[dict]:
    return [row for row in site.instances("stopped") if row.get("drain_kind") == "handover"]


def check_handovers(site: Site, traffic: Traffic, first: set[str]) -> None:
    """Each was served on both sides, and had streams open when its drain began; they were cut by nobody."""
    heirs = {row["replaces"]: row["id"] for row in site.instances() if row.get("replaces")}
    done = ended_by_handover(site)
    assert first <= {row["id"] for row in done}
    served = traffic.served_by()
    counted = [row for row in done if row["id"] in served and heirs.get(row["id"]) in served]
    assert len(counted) >= HANDOVERS
    began = {event["subject"]: event["at"] for event in site.events("drain")}
    for row in counted:
        assert traffic.open_on(row["id"], began[row["id"]]), f"no stream was open on {row['id']} at its drain"
    cut = [event["text"] for event in site.events("cancel") if not event["text"].startswith("drained: ")]
    assert cut == []


def check_jobs(site: Site, watcher: Watcher) -> None:
    """One job for each launch, two at most for a slot, at all times and in Slurm's own words."""
    seen = {job: name for sample in watcher.samples for job, name in sample.items()}
    assert len(set(seen.values())) == len(seen), "one token, two jobs"
    assert len(seen) == len(site.events("launch")) == len(site.events("submitted"))
    counts = {len(sample) for sample in watcher.samples}
    assert counts <= {2, 3, 4}
    assert not [event for event in site.events() if event["code"] in ("unknown-job", "submit-unknown")]
