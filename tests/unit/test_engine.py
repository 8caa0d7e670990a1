"""The engine as a process on the embedded cluster: real jobs, real agents, real sockets."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from saia_engine import routes
from saia_engine.doubts import of_scale
from saia_engine.edge import lifeline
from saia_engine.model import LaunchSpec, Service
from saia_engine.slurm.local.ledger import Files, JobRecord, transaction

ENGINE = [sys.executable, "-m", "saia_engine.cli"]
PATIENCE_S = 60.0
T = TypeVar("T")

CLUSTER = """
[cluster]
name = "t"
kind = "{kind}"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
poll_interval = "250ms"
port_range = [{port}, {last_port}]
submits_per_hour = 1000
slurm_bin = "{slurm_bin}"

[local]
nodes = 2
gpus_per_node = 8

[defaults]
listen = "socket"
min_ready = "200ms"
lead_floor = "3s"
drain_deadline = "2s"
admission_margin = "1s"
safety_margin = "500ms"
time_limit = "10m"
command = ["{{saia_python}}", "-m", "saia_engine.demo.llm", "--uds", "{{socket}}", "--model", "m"]

[proxies.cloud]
"""


def eventually(look: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """The first true value of `look`."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.03)
    return found


class Site:
    """A configuration in a directory of its own, and the engines that run on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "engine.toml"
        self.port = random.randrange(10_000, 30_000)
        self.engines: list[subprocess.Popen[str]] = []
        self._lifeline, self._hold = os.pipe()

    def configure(
        self, services: str = '[services.chat]\nmodels = ["m"]\n', kind="local", slurm_bin=""
    ) -> None:
        text = CLUSTER.format(port=self.port, last_port=self.port + 199, kind=kind, slurm_bin=slurm_bin)
        self.config.write_text(text + services)

    def launch(self) -> subprocess.Popen[str]:
        engine = subprocess.Popen(
            [*ENGINE, "run", "--config", str(self.config), "--log-file", str(self.directory / "log")],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {lifeline.VARIABLE: str(self._lifeline)},
            pass_fds=(self._lifeline,),
        )
        self.engines.append(engine)
        return engine

    def run(self) -> subprocess.Popen[str]:
        """An engine whose API answers."""
        engine = self.launch()
        eventually(lambda: self.answers() or engine.poll() is not None)
        assert engine.poll() is None, engine.stderr and engine.stderr.read()
        return engine

    def answers(self) -> bool:
        try:
            return bool(self.get("state").get("engine"))
        except httpx.TransportError:
            return False

    def close(self) -> None:
        for engine in self.engines:
            engine.kill()
            engine.communicate()
        os.close(self._hold)
        if (self.directory / "state" / "local").exists():
            eventually(lambda: not self.running())
        os.close(self._lifeline)
        shutil.rmtree(self.directory)

    # -- the API

    def _call(self, method: str, path: str, body: dict | None = None) -> httpx.Response:
        socket = self.directory / "run" / "operator" / "operator.sock"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://saia") as client:
            return client.request(method, f"/v1/{path}", json=body)

    def get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path).raise_for_status().json()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._call("POST", path, body).raise_for_status().json()

    def instances(self, *states: str) -> dict[str, dict[str, Any]]:
        rows = self.get("state").get("instances", {})
        return {name: row for name, row in rows.items() if not states or row["state"] in states}

    def ready(self, count: int) -> dict[str, dict[str, Any]]:
        """Waits until exactly so many are ready, and nothing else lives."""

        def settled() -> dict[str, dict[str, Any]] | None:
            live = {n: r for n, r in self.instances().items() if r["state"] not in ("stopped", "failed")}
            whole = len(live) == count and all(row["state"] == "ready" for row in live.values())
            return (live or {"": {}}) if whole else None

        return eventually(settled)

    def alarms(self) -> set[str]:
        return {row["code"] for row in self.get("state").get("alarms", {}).values()}

    def events(self, code: str) -> list[dict[str, Any]]:
        rows = self.get("state").get("events", {})
        return [row for _, row in sorted(rows.items(), key=lambda item: int(item[0])) if row["code"] == code]

    # -- what lies on disk

    def jobs(self) -> list[JobRecord]:
        with transaction(Files(self.directory / "state" / "local")) as ledger:
            return list(ledger.jobs.values())

    def running(self) -> list[JobRecord]:
        return [job for job in self.jobs() if not job.ended and _lives(job.supervisor)]

    def routes(self) -> tuple[routes.Route, ...]:
        return routes.load(self.directory / "state" / "gate" / "routes.json").routes

    @contextmanager
    def never_without_a_route(self) -> Iterator[list[int]]:
        """Reads routes.json all the while, as a gate would."""
        open_routes: list[int] = []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                now = time.time()
                open_routes.append(sum(1 for r in self.routes() if not r.draining and now < r.admit_until))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield open_routes
        finally:
            done.set()
            watcher.join()
        assert len(open_routes) > 5
        assert min(open_routes) > 0, "a gap"


def _lives(pid: int) -> bool:
    return pid != 0 and Path(f"/proc/{pid}").exists()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    site.configure()
    yield site
    site.close()


def test_a_service_is_scaled_drained_and_removed(site: Site) -> None:
    engine = site.run()
    (first,) = site.ready(1)
    assert site.post("services/chat/scale", replicas=3) == {"service": "chat", "before": 1, "replicas": 3}
    assert first in site.ready(3)
    assert len(site.routes()) == 3

    site.post(f"instances/{first}/drain")
    eventually(lambda: first in site.instances("stopped"))
    assert first not in site.ready(3)
    (drained,) = site.events("drain")
    assert (drained["subject"], drained["uid"]) == (first, os.geteuid())

    site.post("services/chat/scale", replicas=1)
    (left,) = site.ready(1)
    assert site.get("plan")["actions"] == []

    site.config.write_text(
        site.config.read_text().replace("[services.chat]", "[services.chat]\nreplicsa = 2")
    )
    engine.send_signal(signal.SIGHUP)
    eventually(lambda: "config-bad" in site.alarms())
    assert set(site.ready(1)) == {left}

    site.configure('[services.embed]\nmodels = ["m2"]\n')
    engine.send_signal(signal.SIGHUP)
    eventually(lambda: not site.instances("ready", "draining").get(left))
    (other,) = site.ready(1)
    assert other.split(".")[2] == "embed"
    assert "config-bad" not in site.alarms()
    assert [job.name for job in site.running()] == [f"saia.{other}"]

    engine.send_signal(signal.SIGTERM)
    assert engine.wait(10) == 0
    assert not (site.directory / "run" / "operator" / "operator.sock").exists()
    assert len(site.running()) == 1, "jobs go on without the engine"
    assert len(site.routes()) == 1, "and so does the traffic"


def test_hand_overs_leave_no_gap(site: Site) -> None:
    # Half of its time is left to the replacement: a busy machine takes seconds to start one.
    site.configure('[services.chat]\nmodels = ["m"]\ntime_limit = "24s"\nlead_floor = "12s"\n')
    site.run()
    # Where even its start is slow, a replacement is due before it is ready: never is one there alone.
    first = eventually(lambda: next(iter(site.instances("ready")), ""))
    with site.never_without_a_route() as seen:
        eventually(lambda: len(site.instances("stopped")) >= 2)
    assert max(seen) <= 2
    heirs = {row.get("replaces", ""): name for name, row in site.instances().items()}
    assert heirs[heirs[first]]
    assert site.instances("failed") == {}
    assert {event["text"].split(":")[0] for event in site.events("cancel")} == {"drained"}


def test_kill_9_and_restart_adopt_all_and_double_none(site: Site) -> None:
    site.configure('[services.chat]\nmodels = ["m"]\nreplicas = 2\n')
    engine = site.run()
    before = site.ready(2)
    jobs = {job.id for job in site.jobs()}
    with site.never_without_a_route() as seen:
        engine.kill()
        engine.wait()
        site.run()
        site.post("services/chat/scale", replicas=3)
        after = site.ready(3)
    assert min(seen) >= 2
    assert set(before) <= set(after)
    assert len({job.id for job in site.jobs()} - jobs) == 1
    assert {name: row["ready_since"] for name, row in before.items()}.items() <= {
        name: row["ready_since"] for name, row in after.items()
    }.items()


def test_a_lost_journal_is_rebuilt_and_a_damaged_one_names_the_way(site: Site) -> None:
    engine = site.run()
    (name,) = site.ready(1)
    engine.kill()
    engine.wait()
    journal = site.directory / "state" / "state.db"
    journal.write_bytes(b"no database" * 1000)
    refused = site.launch()
    _, said = refused.communicate(timeout=40)
    assert refused.returncode == 1
    assert str(journal) in said
    assert "saia-engine rebuild --config FILE" in said
    assert len(site.routes()) == 1
    journal.unlink()
    site.run()
    assert set(site.ready(1)) == {name}
    assert len(site.jobs()) == 1


def test_a_drain_goes_on_after_a_restart(site: Site) -> None:
    engine = site.run()
    (name,) = site.ready(1)
    (route,) = site.routes()
    site.post(f"instances/{name}/drain", confirm=True)
    engine.kill()
    engine.wait()
    site.run()
    eventually(lambda: name in site.instances("stopped"))
    assert route.instance not in site.ready(1)


def test_an_endpoint_file_rewritten_by_a_job_changes_nothing_but_raises_an_alarm(site: Site) -> None:
    site.run()
    (name,) = site.ready(1)
    before = site.routes()
    file = site.directory / "shared" / "instances" / name / "endpoint.0.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"host": "evil.example", "port": 22}))
    eventually(lambda: "agent-fault" in site.alarms())
    assert site.routes() == before
    assert set(site.ready(1)) == {name}


def test_a_journal_that_fails_while_it_runs_stops_all_acts_and_keeps_the_routes(site: Site) -> None:
    site.run()
    site.ready(1)
    before = site.routes()
    journal = site.directory / "state" / "state.db"
    journal.write_bytes(os.urandom(journal.stat().st_size))
    answer = site._call("POST", "services/chat/scale", {"replicas": 2})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_acting")
    eventually(lambda: "not-acting" in site.alarms())
    time.sleep(1.0)
    assert site.routes() == before
    assert len(site.jobs()) == 1


def test_a_second_engine_is_refused_and_the_first_not_disturbed(site: Site) -> None:
    first = site.run()
    second = site.launch()
    _, said = second.communicate(timeout=40)
    assert second.returncode == 4
    assert f"another engine runs on this host (pid {first.pid}" in said
    assert site.answers()


def test_a_socket_that_is_taken_is_refused(site: Site) -> None:
    site.run()
    other = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    try:
        other.configure()
        runtime = f'runtime_dir = "{site.directory}/run"'
        other.config.write_text(other.config.read_text().replace('runtime_dir = "run"', runtime))
        refused = other.launch()
        _, said = refused.communicate(timeout=40)
        assert refused.returncode == 4
        assert "another engine answers at" in said
    finally:
        other.close()
    assert site.answers()


def test_another_hosts_lease_is_refused_with_the_way_to_take_it_over(site: Site) -> None:
    (site.directory / "shared").mkdir()
    holder = {"host": "login2", "boot_id": "b", "epoch": 3, "pid": 1}
    (site.directory / "shared" / "lease.json").write_text(json.dumps(holder))
    refused = site.launch()
    _, said = refused.communicate(timeout=40)
    assert refused.returncode == 4
    assert "login2" in said
    assert "saia-engine takeover" in said


def test_where_slurm_is_missing_it_says_so(site: Site) -> None:
    (site.directory / "bin").mkdir()
    services = '[services.chat]\nmodels = ["m"]\ncommand = ["serve", "{socket}"]\n'
    site.configure(services, kind="slurm", slurm_bin="bin")
    site.config.write_text(site.config.read_text().replace("[local]\nnodes = 2\ngpus_per_node = 8\n", ""))
    refused = site.launch()
    _, said = refused.communicate(timeout=40)
    assert refused.returncode == 3, said
    assert "squeue, sinfo, scontrol, sbatch, scancel not found in" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("replicas", "asks"), [(0, "would be stopped"), (5, "more than 4 times"), (4, ""), (1, "")]
)
def test_a_scale_that_may_be_a_slip_is_asked_about(replicas: int, asks: str) -> None:
    service = Service("chat", LaunchSpec(), replicas=1)
    assert (asks in of_scale(service, 1, replicas)) if asks else not of_scale(service, 1, replicas)


def test_the_last_ready_instance_is_drained_only_when_confirmed(site: Site) -> None:
    site.run()
    (name,) = site.ready(1)
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        site.post(f"instances/{name}/drain")
    assert site.instances("ready").keys() == {name}


def test_a_record_that_can_not_be_kept_is_an_alarm_and_the_engine_goes_on(site: Site) -> None:
    site.configure('[record]\nstep = "1s"\n[services.chat]\nmodels = ["m"]\nreplicas = 0\n')
    blocked = site.directory / "state" / "record"
    blocked.parent.mkdir()
    blocked.write_text("no directory")
    site.run()
    alarm = eventually(lambda: site.get("state")["alarms"].get("record-not-written:engine"))
    assert alarm["severity"] == "warning" and str(blocked) in alarm["text"]
    assert site.get("state")["engine"]["engine"].get("acting", True)
