"""saia as it is shipped: proxy with keys and access log, asyncssh, sshd, gate, the agent's front."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version

from bench import exchange, processes
from bench.job import Target
from bench.paths import Path
from bench.site import Site, free_port
from saia_engine import routes
from saia_engine.gate_key import authorized_keys_line
from saia_engine.model import ProxyLimits
from saia_engine.routes import Route, RouteTable, ServiceEntry
from saia_proxy.config import new_key
from tests.ssh.sshd import Account, Key

OPENS_PER_SECOND = 100_000
"""Of the gate for this proxy. The default of 1,000 is a site's bound, and would be all that is measured."""
LASTS_S = 86_400
PROXY = "cloud"
CONFIG = """\
[server]
port = {port}
state_dir = "state"
max_body = "100MiB"

[[upstreams]]
name = "login1"
{upstream}

[keys.bench]
hash = "{key_hash}"
"""


def open_path(site: Site) -> Path:
    """As it is shipped. Raises Unavailable."""
    return _open(site, "ours")


def open_asyncssh(site: Site) -> Path:
    """The same where there is no OpenSSH client. Raises Unavailable."""
    return _open(site, "asyncssh", 'client = "asyncssh"')


def _upstream(site: Site, account: Account, key: Key) -> str:
    return f"""\
host = "127.0.0.1"
port = {site.sshd.port}
user = "{account.name}"
key = "{key.path}"
known_hosts = "{site.sshd.known_hosts}"
"""


def _open(site: Site, name: str, more: str = "") -> Path:
    account, key = site.sshd.account(), site.sshd.key()
    _open_gate(site, account, key, name)
    port = free_port()
    api_key, key_hash = new_key()
    directory = site.directory / name
    directory.mkdir()
    config = directory / "proxy.toml"
    config.write_text(
        CONFIG.format(port=port, upstream=_upstream(site, account, key) + more, key_hash=key_hash)
    )
    argv = (
        "-m",
        "saia_proxy.cli",
        "run",
        "--config",
        str(config),
        "--log-file",
        str(directory / "proxy.log"),
    )
    site.start(name, [sys.executable, *argv])
    target = Target("127.0.0.1", port, api_key)
    site.wait("an answer through the proxy", lambda: _answers(target))

    def parts() -> dict[str, list[int]]:
        gate = [pid for pid, line in processes.of_user(account.uid) if "saia_engine.gate" in line]
        ssh = site.pids("ssh", account.name)
        return {
            "proxy": site.pids(str(config)),
            **({"ssh": ssh} if ssh else {}),
            "sshd": site.sessions(account),
            "gate": gate,
            **site.agent_parts(),
        }

    return Path(name, target, parts, version("saia"))


def _open_gate(site: Site, account: Account, key: Key, name: str) -> None:
    """The one restricted key, and the table that the engine would write."""
    directory = site.sshd.directory / f"gate-{name}"
    directory.mkdir(mode=0o750)
    os.chown(directory, 0, account.gid)
    table = directory / "routes.json"
    line = authorized_keys_line(key.public, proxy=PROXY, routes_path=str(table), python=str(site.sshd.python))
    site.sshd.authorize(account, line)
    endpoint, now = site.endpoint, time.time()
    route = Route(
        instance=site.instance,
        service="chat",
        generation=0,
        host="127.0.0.1",
        port=endpoint.port,
        secret=endpoint.gate_secret,
        protocol=endpoint.protocol,
        methods=("POST",),
        paths=("/v1/",),
        admit_until=now + LASTS_S,
        end=now + LASTS_S,
    )
    service = ServiceEntry(models=(exchange.MODEL,), methods=("POST",), paths=("/v1/",), replicas=1, ready=1)
    whole = RouteTable(
        version=routes.VERSION,
        generation=1,
        written_at=now,
        installation="bench",
        cluster="hpc",
        gate_socket=str(directory / "gate.sock"),
        proxies={PROXY: ProxyLimits(opens_per_second=OPENS_PER_SECOND)},
        services={"chat": service},
        routes=(route,),
    )
    routes.write(table, whole, gid=account.gid)


def _answers(target: Target) -> bool:
    asked = urllib.request.Request(
        f"http://{target.host}:{target.port}{exchange.CHAT}",
        exchange.question(),
        {"Authorization": f"Bearer {target.key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return "choices" in json.load(answer)
    except (urllib.error.URLError, OSError):
        return False
