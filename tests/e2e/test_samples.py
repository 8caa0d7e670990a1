"""The sample configurations, run as they are: adapted by nothing but paths."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.accounts import Account, Accounts
from tests.e2e.daemons import Daemons
from tests.e2e.installed import ROOT, Installed
from tests.e2e.site import SERVICE, Site
from tests.slurm.cluster import Cluster, free_ports
from tests.slurm.versions import SYSTEM_PATH

SAMPLES = ROOT / "sample_configs"


@pytest.fixture
def plain_site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    with Site(slurm, installed, SERVICE) as running:
        yield running


@pytest.mark.real_slurm
@pytest.mark.real_sshd
@pytest.mark.timeout(240)
def test_slurm_minimal_serves_a_request(plain_site: Site):
    site = plain_site
    text = (SAMPLES / "slurm-minimal" / "engine.toml").read_text()
    paths = {
        "~/saia/shared": str(site.dir / "shared"),
        "~/saia/state": str(site.dir / "state"),
        "~/saia/run": str(site.dir / "run"),
        # Where the commands are, and who the gate is, is the machine's.
        'name = "hpc"': f'name = "hpc"\nslurm_conf = "{site.cluster.conf}"\ngate_group = "{site.gate.name}"',
        '# partition = "standard"': 'partition = "gpu"',
    }
    for before, after in paths.items():
        assert before in text
        text = text.replace(before, after, 1)
    site.write_config(text)
    site.start_engine()
    [instance] = site.wait_ready(1, 90)
    site.open_gate()
    site.start_proxy()
    response = httpx.post(
        f"{site.url}/chat/completions",
        headers={"authorization": f"Bearer {site.api_key}"},
        json={"model": "hello", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4},
        timeout=20,
    )
    assert response.json()["choices"][0]["message"]["content"] == " 1 2 3 4"
    assert response.headers["x-saia-instance"] == instance["id"]
    [(job, _)] = site.jobs()
    shown = site.cluster.run("squeue", "-h", "-j", str(job), "-o", "%P %l %C %m %u").stdout.split()
    assert shown == ["gpu", "2:00:00", "1", "1G", site.engine.name]


@pytest.mark.timeout(180)
def test_local_demo_serves_a_request(installed: Installed):
    """As an account without any right here, beside its own copy of the file."""
    with Accounts() as accounts:
        user = accounts.user("demo")
        directory = Path(tempfile.mkdtemp(prefix="saia-demo-", dir="/tmp"))
        daemons = Daemons(directory)
        try:
            shutil.copy(SAMPLES / "local-demo" / "engine.toml", directory)
            os.chown(directory, user.uid, user.gid)
            directory.chmod(0o755)
            run_local_demo(directory, daemons, user, installed)
        finally:
            daemons.stop()


def run_local_demo(directory: Path, daemons: Daemons, user: Account, installed: Installed) -> None:
    def start(name: str, program: Path, config: Path) -> None:
        argv = user.argv(str(program), "run", "--config", str(config))
        daemons.start(name, argv, {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"})

    start("engine", installed.site / "saia-engine", directory / "engine.toml")
    socket = directory / "run" / "sockets" / "operator" / "operator.sock"
    engine = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=20
    )
    with engine:
        wait_until(lambda: ready(engine) == {"chat": 2, "embed": 2}, daemons)
        [port] = free_ports(1)
        proxy_config = directory / "proxy.toml"
        proxy_config.write_text(PROXY_CONFIG.format(site=installed.site, directory=directory, port=port))
        start("proxy", installed.proxy / "saia-proxy", proxy_config)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/healthz"), daemons)
        for path, body in REQUESTS:
            headers = {"authorization": "Bearer x"}
            response = httpx.post(f"{url}/v1/{path}", headers=headers, json=body, timeout=20)
            assert response.status_code == 200, response.text
        for service in ("chat", "embed"):
            asked = {"replicas": 0, "confirm": True}
            engine.post(f"/v1/services/{service}/scale", json=asked).raise_for_status()
        wait_until(lambda: not live(engine), daemons)


REQUESTS = (
    ("chat/completions", {"model": "demo-chat", "messages": [{"role": "user", "content": "hello"}]}),
    ("embeddings", {"model": "demo-embed", "input": "hello"}),
)
# The hash is that of the key `x`.
PROXY_CONFIG = """
[server]
port = {port}
state_dir = "proxy"

[[upstreams]]
name = "here"
transport = "subprocess"
command = [
    "{site}/python", "-I", "-m", "saia_engine.gate",
    "--routes", "{directory}/run/state/gate/routes.json", "--proxy", "demo",
]

[keys.tests]
hash = "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
"""


def ready(engine: httpx.Client) -> dict[str, int]:
    """By service; empty before the engine answers."""
    try:
        services = engine.get("/v1/state").raise_for_status().json()["services"]
    except httpx.TransportError:
        return {}
    return {name: row.get("ready", 0) for name, row in services.items()}


def live(engine: httpx.Client) -> list[str]:
    rows = engine.get("/v1/state").raise_for_status().json()["instances"].values()
    return [row["id"] for row in rows if row["state"] not in ("stopped", "failed")]


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(holds: Callable[[], object], daemons: Daemons, limit_s: float = 40.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, daemons.log_ends()
        time.sleep(0.2)
