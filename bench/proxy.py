"""A saia-proxy as it is shipped, with keys and access log, and the one restricted key that it reaches a gate with."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.job import Target
from bench.site import Host, free_port
from saia_engine.gate_key import authorized_keys_line
from saia_proxy.config import Client, new_key
from tests.ssh.sshd import Account, Key

NAME = "cloud"
CONFIG = """\
[server]
port = {port}
state_dir = "state"
max_body = "100MiB"
workers = {workers}

[[upstreams]]
name = "login1"
client = "{client}"
host = "127.0.0.1"
port = {ssh_port}
user = "{user}"
key = "{key}"
known_hosts = "{known_hosts}"
connections = {connections}

[keys.bench]
hash = "{key_hash}"
"""


def authorize(host: Host, account: Account, key: Key, routes: Path) -> None:
    """Lets the key run the gate on these routes, and nothing else."""
    line = authorized_keys_line(key.public, proxy=NAME, routes_path=str(routes), python=str(host.sshd.python))
    host.sshd.authorize(account, line)


def log_file(host: Host, name: str = "proxy") -> Path:
    return host.directory / name / "proxy.log"


def processes_of(host: Host, name: str = "proxy") -> list[int]:
    """Its own, without the ssh that it started: keeper and workers where there are several."""
    return host.pids("saia_proxy.cli", str(log_file(host, name)))


def start(
    host: Host,
    account: Account,
    key: Key,
    *,
    name: str = "proxy",
    workers: int = 1,
    connections: int = 2,
    client: Client = "auto",
) -> Target:
    """Its address, and an API key for it. `connections` are each worker's. Raises Unavailable."""
    port = free_port()
    api_key, key_hash = new_key()
    directory = host.directory / name
    directory.mkdir()
    config = directory / "proxy.toml"
    config.write_text(
        CONFIG.format(
            port=port,
            workers=workers,
            client=client,
            ssh_port=host.sshd.port,
            user=account.name,
            key=key.path,
            known_hosts=host.sshd.known_hosts,
            connections=connections,
            key_hash=key_hash,
        )
    )
    argv = ("saia_proxy.cli", "run", "--config", str(config), "--log-file", str(log_file(host, name)))
    host.start(name, [sys.executable, "-m", *argv])
    return Target("127.0.0.1", port, api_key)
