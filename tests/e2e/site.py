"""One whole site on a real Slurm: engine, sshd with the restricted key, gate and proxy, each as an account of its own.

engine   its own user, Slurm's jobs are its; member of the operators' and the gate's group
gate     the account that the key logs in to; no jobs, no operators' group
proxy    knows its configuration, its key and the pinned host key
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.e2e.accounts import Account, Accounts
from tests.e2e.daemons import Daemons
from tests.e2e.installed import Installed
from tests.slurm.cluster import Cluster, free_ports
from tests.slurm.versions import SYSTEM_PATH

MODEL = "count"
PROXY = "cloud"
SERVICE = """
[services.chat]
models = ["count"]
command = ["{saia_python}", "-m", "saia_engine.demo.llm", "--uds", "{socket}", "--model", "count"]
listen = "socket"
gres = "gpu:a100:1"
"""
"""The bundled server; its times and replicas are added by each test."""
JOBS_END_LIMIT_S = 30.0
LIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")


class Site:
    """`start_engine`, `open_gate` and `start_proxy` in this order, as far as a test needs them. A context manager."""

    def __init__(
        self,
        cluster: Cluster,
        installed: Installed,
        services: str,
        *,
        name: str = "hpc",
        engine_user: Account | None = None,
        cluster_keys: str = 'poll_interval = "2s"\nrpc_floor = "1s"\n',
    ) -> None:
        self.cluster = cluster
        self.installed = installed
        self.name = name
        self._services = services
        self._cluster_keys = cluster_keys
        self._engine_user = engine_user
        self._accounts = Accounts()
        self.dir = Path()
        self.url = ""
        """Of the proxy, with /v1."""
        self.api_key = "sk-saia-" + secrets.token_urlsafe(24)

    # ------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self._accounts.__enter__()
        try:
            self._make_accounts()
            self.dir = Path(tempfile.mkdtemp(prefix="saia-site-", dir="/tmp"))
            self.daemons = Daemons(self.dir)
            self._make_directories()
            self.configure(self._services)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "daemons"):
            if exc is not None:
                print(self.explain())
            self._end_jobs()
            self.daemons.stop()
        self._accounts.__exit__(None, None, None)

    def _make_accounts(self) -> None:
        self.operators = self._accounts.group("ops")
        self.gate = self._accounts.user("gate", home="/")
        self.engine = self._engine_user or self._accounts.user("eng", (self.operators, self.gate.name))
        self.operator = self._accounts.user("oper", (self.operators,))
        self.stranger = self._accounts.user("other")
        self.proxy = self._accounts.user("proxy")

    def _make_directories(self) -> None:
        self.dir.chmod(0o755)
        for name in ("shared", "state", "run"):
            self._own_directory(name, self.engine, 0o711)
        (self.dir / "sshd").mkdir(mode=0o750)
        os.chown(self.dir / "sshd", 0, self.gate.gid)
        self._own_directory("proxy", self.proxy, 0o700)
        self.config = self.dir / "engine.toml"

    def _own_directory(self, name: str, owner: Account, mode: int) -> None:
        (self.dir / name).mkdir()
        (self.dir / name).chmod(mode)
        os.chown(self.dir / name, owner.uid, owner.gid)

    def _end_jobs(self) -> None:
        """Of this site only: another may share its Slurm user."""
        with suppress(RuntimeError):  # it was not running
            self.kill_engine()
        deadline = time.monotonic() + JOBS_END_LIMIT_S
        with suppress(subprocess.SubprocessError):  # without a controller they end with the cluster
            while (jobs := self.jobs()) and time.monotonic() < deadline:
                self.cluster.run("scancel", *(str(job_id) for job_id, _ in jobs), check=False)
                time.sleep(0.5)

    # ------------------------------------------------------------ engine

    def configure(self, services: str) -> None:
        """Write engine.toml."""
        first_port = random.SystemRandom().randrange(11_000, 20_000)
        groups = f'operators_group = "{self.operators}"\ngate_group = "{self.gate.name}"'
        text = f"""
[cluster]
name = "{self.name}"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
slurm_conf = "{self.cluster.conf}"
{groups if self.operators in self.engine.groups else ""}
port_range = [{first_port}, {first_port + 199}]
{self._cluster_keys}
{services}
[proxies.{PROXY}]
services = ["*"]
"""
        self.write_config(text)

    def write_config(self, text: str) -> None:
        self.config.write_text(text)
        self.config.chmod(0o600)
        os.chown(self.config, self.engine.uid, self.engine.gid)

    def start_engine(self) -> None:
        """Returns once it answers."""
        program = str(self.installed.site / "saia-engine")
        argv = self.engine.argv(program, "run", "--config", str(self.config))
        self.daemons.start("engine", argv, self.environment(self.engine))
        self.wait("the engine to poll Slurm", self._engine_has_polled)

    def kill_engine(self) -> None:
        self.daemons.kill("engine")

    def end_engine(self) -> None:
        self.daemons.end("engine")

    def _engine_has_polled(self) -> bool:
        try:
            return "snapshot_at" in self.state()["engine"]["engine"]
        except (OSError, httpx.TransportError, KeyError):
            return False

    def environment(self, account: Account) -> dict[str, str]:
        """All that its programs get to know from outside."""
        return {"PATH": self.cluster.path, "LANG": "C.UTF-8", "HOME": "/nonexistent", "USER": account.name}

    def command(
        self, *arguments: str, account: Account | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run `saia-engine` to its end, as root or as an account."""
        argv = [str(self.installed.site / "saia-engine"), *arguments]
        env = {"PATH": self.cluster.path, "LANG": "C.UTF-8", "HOME": "/", "SAIA_CONFIG": str(self.config)}
        return subprocess.run(
            account.argv(*argv) if account else argv,
            env=env,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    @property
    def operator_socket(self) -> Path:
        return self.dir / "run" / "operator" / "operator.sock"

    @property
    def routes(self) -> Path:
        return self.dir / "state" / "gate" / "routes.json"

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """One call of the operators' API. Raises httpx's errors."""
        transport = httpx.HTTPTransport(uds=str(self.operator_socket))
        with httpx.Client(transport=transport, base_url="http://engine", timeout=20) as client:
            return client.request(method, path, json=body or None).raise_for_status().json()

    def state(self) -> dict[str, Any]:
        return self.ask("GET", "/v1/state")

    def instances(self, *states: str) -> list[dict[str, Any]]:
        rows = self.state()["instances"].values()
        return [row for row in rows if not states or row["state"] in states]

    def events(self, code: str = "") -> list[dict[str, Any]]:
        """In the order in which they happened."""
        rows = sorted(self.state()["events"].values(), key=lambda row: row["seq"])
        return [row for row in rows if not code or row["code"] == code]

    def wait_ready(self, replicas: int, limit_s: float = 60.0) -> list[dict[str, Any]]:
        self.wait(f"{replicas} ready instances", lambda: len(self.instances("ready")) >= replicas, limit_s)
        return self.instances("ready")

    def wait_settled(self, replicas: int) -> None:
        """So many are ready, and no others live."""

        def settled() -> bool:
            live = [row["state"] for row in self.instances() if row["state"] not in ("stopped", "failed")]
            return live == ["ready"] * replicas

        self.wait(f"{replicas} ready instances and no others", settled)

    # ------------------------------------------------------------ Slurm

    def jobs(self) -> list[tuple[int, str]]:
        """(id, name) of the live jobs of this site's installation, as root sees them.

        Raises CalledProcessError where Slurm does not answer.
        """
        argv = ("squeue", "-h", "-t", ",".join(LIVE), "-u", self.engine.name, "-o", "%A %j")
        listed = self.cluster.run(*argv).stdout
        rows = (line.partition(" ") for line in listed.splitlines() if self.installation)
        prefix = f"saia.{self.installation}."
        return [(int(job_id), name) for job_id, _, name in rows if name.startswith(prefix)]

    @property
    def installation(self) -> str:
        """Empty before the engine's first start."""
        file = self.dir / "shared" / "installation"
        return file.read_text().strip() if file.exists() else ""

    # ------------------------------------------------------------ sshd, gate, proxy

    def open_gate(self, *, routes: Path | None = None) -> None:
        """Start sshd for the gate's account, with the line of `gate-key`; `routes` in place of the engine's."""
        directory = self.dir / "sshd"
        for name in ("host_key", "proxy_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
            )
        made = self.command("gate-key", "--proxy", PROXY, str(directory / "proxy_key.pub"))
        assert made.returncode == 0, made.stderr
        line = made.stdout
        if routes is not None:
            assert str(self.routes) in line
            line = line.replace(str(self.routes), str(routes))
        (directory / "authorized_keys").write_text(line)
        [self.ssh_port] = free_ports(1)
        (directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.ssh_port}\nHostKey {directory}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/authorized_keys\nAllowUsers {self.gate.name}\n"
            "PasswordAuthentication no\nStrictModes no\nAcceptEnv LANG LC_*\nLogLevel VERBOSE\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd", path=SYSTEM_PATH)
        assert sshd is not None
        self.daemons.start(
            "sshd", [sshd, "-D", "-e", "-f", str(directory / "sshd_config")], {"PATH": SYSTEM_PATH}
        )

    def freeze_routes(self) -> Path:
        """A copy of routes.json, as the gate may read it, that nobody writes any more."""
        copy = self.dir / "sshd" / "routes.json"
        shutil.copy(self.routes, copy)
        copy.chmod(0o640)
        os.chown(copy, 0, self.gate.gid)
        return copy

    def start_proxy(self) -> None:
        """Returns once it is connected."""
        directory = self.dir / "proxy"
        shutil.copy(self.dir / "sshd" / "proxy_key", directory / "id_ed25519")
        host_key = (self.dir / "sshd" / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"[127.0.0.1]:{self.ssh_port} {host_key}")
        [port] = free_ports(1)
        self.proxy_config = directory / "proxy.toml"
        self.proxy_config.write_text(self.proxy_toml(port, self.ssh_port))
        for file in directory.iterdir():
            file.chmod(0o600)
            os.chown(file, self.proxy.uid, self.proxy.gid)
        program = str(self.installed.proxy / "saia-proxy")
        argv = self.proxy.argv(program, "run", "--config", str(self.proxy_config))
        self.daemons.start("proxy", argv, self.environment(self.proxy))
        self.url = f"http://127.0.0.1:{port}/v1"
        self.wait("the proxy to be connected", self._proxy_is_connected)

    def proxy_toml(self, port: int, ssh_port: int) -> str:
        key_hash = hashlib.sha256(self.api_key.encode()).hexdigest()
        return f"""
[server]
port = {port}
state_dir = "state"

[[upstreams]]
name = "login1"
transport = "ssh"
host = "127.0.0.1"
port = {ssh_port}
user = "{self.gate.name}"
key = "id_ed25519"
known_hosts = "known_hosts"

[keys.tests]
hash = "sha256:{key_hash}"
"""

    def _proxy_is_connected(self) -> bool:
        try:
            return httpx.get(self.url.removesuffix("/v1") + "/healthz").status_code == 200
        except httpx.TransportError:
            return False

    # ------------------------------------------------------------ waiting

    def wait(self, what: str, holds: Callable[[], Any], limit_s: float = 60.0) -> None:
        """Until it holds. Fails with the ends of all logs."""
        deadline = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < deadline, f"waited {limit_s:.0f} s for {what}\n{self.explain()}"
            time.sleep(0.2)

    def explain(self) -> str:
        """The ends of all logs: daemons, and the outputs of the newest jobs."""
        outputs = sorted(
            self.dir.glob("shared/instances/*/output.log"), key=lambda file: file.stat().st_mtime
        )
        return "\n".join([self.daemons.log_ends(), *_ends(outputs[-3:])])


def _ends(files: Iterable[Path], lines: int = 6) -> list[str]:
    return [
        f"--- {file.parent.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
        for file in files
    ]
