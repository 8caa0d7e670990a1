"""All of saia on one machine: an engine with two replicas on the embedded cluster, sshd, gates, two proxy workers."""

from __future__ import annotations

import json
import random
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import httpx

from bench import exchange, proxy
from bench.job import Target
from bench.site import ROOT, Host
from saia_engine.slurm.local.ledger import Files

WORKERS = 2
CONNECTIONS = 2
"""Of each worker."""
REPLICAS = 2
ASKED = 12
"""Each new connection meets any of the workers: of so many hardly all the same one."""
WHOLE_LIMIT_S = 60.0
CONFIG = """\
[cluster]
name = "hpc"
kind = "local"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
gate_group = "{gate_group}"
poll_interval = "500ms"
port_range = [{port}, {last_port}]
submits_per_hour = 1000
quarantine_failures = 0

[local]
nodes = 2
gpus_per_node = 8

[services.chat]
models = ["{model}"]
replicas = {replicas}
min_available = 1
listen = "socket"
command = ["{{saia_python}}", "-m", "bench.service", "--uds", "{{socket}}"]
environment = {{ PYTHONPATH = "{root}" }}
time_limit = "4h"
min_ready = "500ms"
lead_floor = "10s"
drain_deadline = "15s"
admission_margin = "10s"
safety_margin = "2s"

[proxies.{proxy}]
"""


class Whole(Host):
    """Ready for traffic once it is entered."""

    def _open(self) -> None:
        self.account = self.sshd.account()
        for name in ("shared", "state", "run"):
            (self.directory / name).mkdir()
            (self.directory / name).chmod(0o711)
        port = random.randrange(10_000, 30_000)
        self._config = self.directory / "engine.toml"
        self._config.write_text(
            CONFIG.format(
                gate_group=self.account.name,
                port=port,
                last_port=port + 199,
                model=exchange.MODEL,
                replicas=REPLICAS,
                root=ROOT,
                proxy=proxy.NAME,
            )
        )
        self._config.chmod(0o600)
        self.cluster = Files(self.directory / "state" / "local")
        self.start_engine()
        self.wait("the instances", lambda: len(self.ready()) == REPLICAS)
        key = self.sshd.key()
        proxy.authorize(self, self.account, key, self.directory / "state" / "gate" / "routes.json")
        self.target = proxy.start(self, self.account, key, workers=WORKERS, connections=CONNECTIONS)
        self.wait_whole()

    @property
    def proxy_log(self) -> Path:
        return proxy.log_file(self)

    # -- the engine

    def start_engine(self) -> None:
        argv = ["saia_engine.cli", "run", "--config", str(self._config)]
        self.start("engine", [sys.executable, "-m", *argv], USER="root")

    def ready(self) -> list[str]:
        """The instances' names, the oldest first, if all that live are ready and the engine answers; else none."""
        live = [row for row in self._instances() if row["state"] not in ("stopped", "failed")]
        if any(row["state"] != "ready" for row in live):
            return []
        return [row["id"] for row in sorted(live, key=lambda row: row["since"])]

    def drain(self, instance: str) -> None:
        """As an operator would. Raises httpx.HTTPError."""
        self._ask("POST", f"instances/{instance}/drain")

    def _instances(self) -> list[dict[str, Any]]:
        try:
            return list(self._ask("GET", "state").get("instances", {}).values())
        except httpx.HTTPError:
            return []

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        socket = self.directory / "run" / "operator" / "operator.sock"
        transport = httpx.HTTPTransport(uds=str(socket), verify=False)
        with httpx.Client(transport=transport, base_url="http://engine", timeout=20) as client:
            return client.request(method, f"/v1/{path}").raise_for_status().json()

    # -- all of it

    def wait_whole(self) -> None:
        """Raises Unavailable."""
        self.wait("all to be whole", self._whole, WHOLE_LIMIT_S)

    def _whole(self) -> bool:
        lines = WORKERS * CONNECTIONS
        return (
            len(self.gates(self.account)) == lines
            and _connections(self.target) == lines
            and len(self.ready()) == REPLICAS
            and all(_ready(self.target) == REPLICAS for _ in range(ASKED))
        )


def _ready(target: Target) -> int:
    """As one of the workers tells it."""
    try:
        return json.loads(_get(target, f"/v1/models/{exchange.MODEL}"))["saia"]["ready"]
    except (OSError, ValueError):
        return 0


def _connections(target: Target) -> float:
    try:
        lines = _get(target, "/metrics").decode().splitlines()
    except OSError:
        return 0
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("saia_proxy_upstream_connections{")
    )


def _get(target: Target, path: str) -> bytes:
    """Over a connection of its own. Raises OSError."""
    headers = {"Authorization": f"Bearer {target.key}"}
    asked = urllib.request.Request(f"http://{target.host}:{target.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read()
    except urllib.error.URLError as exc:
        raise OSError(str(exc)) from None
