"""saia as it is shipped: proxy with keys and access log, ssh, sshd, gate, the agent's front."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from importlib.metadata import version

from bench import exchange, proxy
from bench.job import Target
from bench.paths import Path
from bench.site import Site
from saia_engine import routes
from saia_engine.model import ProxyLimits
from saia_engine.routes import Route, RouteTable, ServiceEntry
from saia_proxy.config import Client
from tests.ssh.sshd import Account, Key

OPENS_PER_SECOND = 100_000
"""Of the gate for this proxy. The default of 1,000 is a site's bound, and would be all that is measured."""
LASTS_S = 86_400


def open_path(site: Site) -> Path:
    """As it is shipped. Raises Unavailable."""
    return _open(site, "ours", "auto")


def open_asyncssh(site: Site) -> Path:
    """The same where there is no OpenSSH client. Raises Unavailable."""
    return _open(site, "asyncssh", "asyncssh")


def _open(site: Site, name: str, client: Client) -> Path:
    account, key = site.sshd.account(), site.sshd.key()
    _open_gate(site, account, key, name)
    target = proxy.start(site, account, key, name=name, client=client)
    site.wait("an answer through the proxy", lambda: _answers(target))

    def parts() -> dict[str, list[int]]:
        ssh = site.pids("ssh", f"-l {account.name}")
        return {
            "proxy": proxy.processes_of(site, name),
            **({"ssh": ssh} if ssh else {}),
            "sshd": site.sessions(account),
            "gate": site.gates(account),
            **site.agent_parts(),
        }

    return Path(name, target, parts, version("saia"))


def _open_gate(site: Site, account: Account, key: Key, name: str) -> None:
    """The one restricted key, and the table that the engine would write."""
    directory = site.sshd.directory / f"gate-{name}"
    directory.mkdir(mode=0o750)
    os.chown(directory, 0, account.gid)
    table = directory / "routes.json"
    proxy.authorize(site, account, key, table)
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
        proxies={proxy.NAME: ProxyLimits(opens_per_second=OPENS_PER_SECOND)},
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
