"""The whole chain as processes: the proxy's own program, the real gate, a real agent and `openai_service` behind it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from saia_engine import routes
from saia_engine.model import ProxyLimits
from saia_proxy.config import hash_key
from tests.unit.agent_support import INSTANCE, Agents, RunningAgent

KEY, CHAT_KEY = "sk-saia-whole", "sk-saia-chat"
MODELS = ("llama", "whisper")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = ("/v1/", "/tokenize", "/rerank", "/api/", "/rooms/")
SERVICE = [sys.executable, str(Path(__file__).with_name("openai_service.py")), "--uds", "{socket}"]
PATIENCE_S = 30.0


@dataclass
class Chain:
    """What clients need of it."""

    port: int
    directory: Path
    agent: RunningAgent
    proxy: int
    """Its process."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gates(self) -> set[int]:
        """The processes of its relays, wherever they run."""
        return processes("saia_engine.gate", str(self.directory / "routes.json"))

    @property
    def log(self) -> str:
        return (self.directory / "proxy.log").read_text()

    def publish(self) -> None:
        write_routes(self.directory / "routes.json", self.agent)


def processes(*words: str) -> set[int]:
    """Those that run with all of these as words of their command line."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if set(words) <= set((entry / "cmdline").read_text().split("\0")):
                found.add(int(entry.name))
    return found


def write_routes(path: Path, running: RunningAgent, *, starting: bool = False) -> None:
    """As the engine does once its agent is ready, or before that."""
    now = time.time()
    services = {
        "chat": routes.ServiceEntry(MODELS, METHODS, PATHS, 1, int(not starting), int(starting)),
        "waiting": routes.ServiceEntry(("big",), ("POST",), ("/v1/",), 1, 0, 1, 1, float(int(now) + 500)),
    }
    table = routes.RouteTable(
        version=1,
        generation=int(now),
        written_at=now,
        installation="k7f3",
        cluster="hpc",
        gate_socket=str(path.parent / "gate.sock"),
        proxies={"cloud": ProxyLimits()},
        services=services,
        routes=() if starting else (_route(running, now),),
    )
    routes.write(path, table)


def _route(running: RunningAgent, now: float) -> routes.Route:
    endpoint = running.endpoint
    return routes.Route(
        INSTANCE, "chat", 0, "127.0.0.1", endpoint.port, endpoint.gate_secret, endpoint.protocol, METHODS, PATHS,
        now + 3000, now + 3600,
    )  # fmt: skip


def gate_command(directory: Path) -> list[str]:
    gate = [sys.executable, "-I", "-m", "saia_engine.gate", "--routes", str(directory / "routes.json")]
    return [*gate, "--proxy", "cloud"]


def subprocess_upstream(directory: Path) -> str:
    return f'transport = "subprocess"\ncommand = {gate_command(directory)!r}\n'.replace("'", '"')


@contextmanager
def chain(
    directory: Path | None = None,
    *upstreams: str,
    service: list[str] = SERVICE,
    max_body: str = "20MiB",
    starting: bool = False,
    more: str = "",
) -> Iterator[Chain]:
    """`upstreams` are what their tables say; without any, the gate is a child of the proxy.

    All gates read the directory's routes. `starting`: the service is not ready yet, and published by the test;
    `more` is added to the proxy's file.
    """
    directory = directory or Path(tempfile.mkdtemp(prefix="saia-test-", dir="/tmp"))
    agents = Agents()
    proxy: subprocess.Popen[bytes] | None = None
    try:
        running = agents.start(command=service)
        if not starting:
            asyncio.run(running.ready())
        write_routes(directory / "routes.json", running, starting=starting)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        tables = "".join(
            f'[[upstreams]]\nname = "here{number}"\n{upstream}'
            for number, upstream in enumerate(upstreams or [subprocess_upstream(directory)])
        )
        (directory / "proxy.toml").write_text(
            f'[server]\nport = {port}\nmax_body = "{max_body}"\nstate_dir = "state"\n{tables}'
            f'[keys.all]\nhash = "{hash_key(KEY)}"\n[keys.chat]\nhash = "{hash_key(CHAT_KEY)}"\nmodels = ["llama"]\n'
            f"{more}"
        )
        with (directory / "proxy.log").open("wb") as log:
            program = [
                sys.executable,
                "-m",
                "saia_proxy.cli",
                "run",
                "--config",
                str(directory / "proxy.toml"),
            ]
            proxy = subprocess.Popen(program, stderr=log, stdout=log)
        made = Chain(port, directory, running, proxy.pid)
        _wait_until(made, proxy, "starting" if starting else "ready")
        yield made
    finally:
        if proxy is not None:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(15)
        agents.close()
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until(made: Chain, proxy: subprocess.Popen[bytes], state: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    headers = {"authorization": f"Bearer {KEY}"}
    while True:
        assert proxy.poll() is None and time.monotonic() < deadline, made.log
        try:
            answer = httpx.get(f"{made.url}/v1/models/llama", headers=headers)
            if answer.status_code == 200 and answer.json()["saia"]["state"] == state:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
