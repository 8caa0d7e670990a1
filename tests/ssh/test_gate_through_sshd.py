"""One restricted key through a real sshd: what it can do, and that it can do nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from saia_engine import agent, routes
from saia_engine.front import Endpoint
from saia_engine.gate_key import authorized_keys_line
from saia_engine.model import ProxyLimits
from saia_engine.routes import Route, RouteTable, ServiceEntry
from saia_engine.wire import messages
from saia_engine.wire.frames import NotOurPeer
from saia_engine.wire.messages import Control, Open, Routes
from saia_engine.wire.mux import Mux, Stream, StreamReset
from saia_proxy import line
from saia_proxy.admin import Orders
from saia_proxy.routing import RoutingTable
from saia_proxy.transports import Connect, Link, Unusable
from saia_proxy.transports.ssh import connector
from saia_proxy.tunnel import Tunnel
from tests.ssh.sshd import Account, Key, Sshd
from tests.unit.agent_support import INSTANCE, Agents, RunningAgent, eventually

pytestmark = pytest.mark.real_sshd
REFUSED = (6, b"saia-gate: refused\n")


@dataclass
class Gate:
    """An account whose one key may run the gate for the proxy `cloud`."""

    sshd: Sshd
    account: Account
    key: Key
    routes: Path

    def run(self, *words: str, options: tuple[str, ...] = (), **environment: str):
        return self.sshd.run(self.account, self.key, *words, options=options, **environment)

    def publish(self, *listed: Route) -> None:
        """As the engine does it: its own file, readable for the gate's group."""
        table = RouteTable(
            version=1,
            generation=7,
            written_at=time.time(),
            installation="k7f3",
            cluster="hpc",
            gate_socket=str(self.routes.parent / "gate.sock"),
            proxies={"cloud": ProxyLimits()},
            services={"chat": ServiceEntry(models=("llama-3",), replicas=1, ready=1)},
            routes=listed,
        )
        routes.write(self.routes, table, gid=self.account.gid)

    def relays(self) -> set[int]:
        """The processes that run the gate."""
        return {pid for pid, line in self._running().items() if "saia_engine.gate" in line}

    def processes(self) -> list[str]:
        """What runs as the gate's account."""
        return list(self._running().values())

    def _running(self) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if entry.stat().st_uid == self.account.uid:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = words
            except OSError:
                continue
        return found


def make_gate(sshd: Sshd, rc: str = "") -> Gate:
    account = sshd.account(rc=rc)
    directory = sshd.directory / f"gate-{account.name}"
    directory.mkdir(mode=0o750)
    os.chown(directory, 0, account.gid)
    key = sshd.key()
    gate = Gate(sshd, account, key, directory / "routes.json")
    line = authorized_keys_line(
        key.public,
        proxy="cloud",
        routes_path=str(gate.routes),
        python=str(sshd.python),
        sources=["127.0.0.0/8"],
    )
    sshd.authorize(account, line)
    gate.publish()
    return gate


@pytest.fixture(scope="module")
def gate(sshd: Sshd) -> Gate:
    return make_gate(sshd)


@pytest.fixture
def agents() -> Iterator[Agents]:
    agents = Agents()
    yield agents
    agents.close()


# ---------------------------------------------------------------- what the key cannot do


def test_ping_answers_one_line(gate: Gate):
    answer = gate.run("ping")
    assert answer.returncode == 0 and answer.stderr == b""
    assert answer.stdout.startswith(b"saia-gate 0.") and b" wire 1 routes 7 age " in answer.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("relay; id",),
        ("ping && id",),
        ("$(id)",),
        ("/bin/sh",),
        ("scp", "-t", "/tmp"),
        ("ping", "ping"),
        ("relay", "--help"),
        ("internal-sftp",),
    ],
)
def test_other_commands_are_refused(gate: Gate, words: tuple[str, ...]):
    answer = gate.run(*words)
    assert (answer.returncode, answer.stdout) == REFUSED
    assert answer.stderr == b""


def test_a_shell_is_refused_with_and_without_a_terminal(gate: Gate):
    answer = gate.run()
    assert (answer.returncode, answer.stdout) == REFUSED
    answer = gate.run(options=("-tt",))
    assert answer.returncode != 0 and b"PTY allocation request failed" in answer.stderr
    assert answer.stdout in (b"", b"saia-gate: refused\n")


def test_file_transfer_is_refused(gate: Gate, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    target = f"{gate.account.name}@127.0.0.1"
    for program in (["scp"], ["scp", "-O"]):
        words = [*program, *gate.sshd.client_options(gate.key), "-P", str(gate.sshd.port)]
        for pair in (
            (str(tmp_path / "file"), f"{target}:/tmp/stolen"),
            (f"{target}:/etc/passwd", str(tmp_path / "got")),
        ):
            done = subprocess.run([*words, *pair], capture_output=True, timeout=20)
            assert done.returncode != 0
    assert not (tmp_path / "got").exists() and not Path("/tmp/stolen").exists()
    sftp = subprocess.run(
        ["sftp", *gate.sshd.client_options(gate.key), "-P", str(gate.sshd.port), "-b", "-", target],
        input=b"ls /\n",
        capture_output=True,
        timeout=20,
    )
    assert sftp.returncode != 0 and b"etc" not in sftp.stdout


def test_forwarding_is_refused(gate: Gate):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        through = gate.run(options=("-W", f"127.0.0.1:{port}"))
        assert through.returncode != 0
        with pytest.raises(TimeoutError):
            listener.accept()
    back = gate.run("ping", options=("-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"))
    assert back.returncode == 255


def test_the_environment_of_a_client_does_no_harm(gate: Gate):
    options = ("-o", "SetEnv=LC_ALL=xx_YY.bad LC_PYTHON=1 LANG=C.UTF-8 PYTHONPATH=/tmp PYTHONHOME=/tmp")
    answer = gate.run("ping", options=options)
    assert answer.returncode == 0 and answer.stdout.startswith(b"saia-gate 0.")
    assert b"saia" not in answer.stderr  # what the login shell says of a locale is its own


def test_another_key_another_host_key_and_another_source_are_refused(gate: Gate, tmp_path: Path):
    stranger = gate.sshd.run(gate.account, gate.sshd.key(), "ping")
    assert stranger.returncode == 255 and b"Permission denied" in stranger.stderr
    forged = tmp_path / "known_hosts"
    forged.write_text(gate.sshd.known_hosts.read_text().split(" ")[0] + " " + gate.sshd.key().public)
    options = ("-o", f"UserKnownHostsFile={forged}")
    pinned = subprocess.run(
        [
            gate.sshd.command(gate.account, gate.key)[0],
            *options,
            *gate.sshd.command(gate.account, gate.key, "ping")[1:],
        ],
        capture_output=True,
        timeout=20,
    )
    assert pinned.returncode == 255
    elsewhere = gate.sshd.key()
    line = authorized_keys_line(
        elsewhere.public, proxy="cloud", routes_path=str(gate.routes), python=str(gate.sshd.python),
        sources=["192.0.2.0/24"],
    )  # fmt: skip
    gate.sshd.authorize(gate.account, line)
    assert gate.sshd.run(gate.account, elsewhere, "ping").returncode == 255


# ---------------------------------------------------------------- relays


class Connected:
    def __init__(self, mux: Mux, told: list[Control]) -> None:
        self.mux = mux
        self.told = told

    @property
    def routes(self) -> Routes:
        return [message for message in self.told if isinstance(message, Routes)][-1]

    async def ask(self, path: str, **fields) -> tuple[int, bytes]:
        return await ask(self.mux.open(Open(INSTANCE, "GET", path, **fields)))


async def ask(stream: Stream) -> tuple[int, bytes]:
    stream.end()
    async with asyncio.timeout(20):
        return (await stream.response()).status, await read_all(stream)


async def read_all(stream: Stream) -> bytes:
    received = b""
    while data := await stream.receive():
        received += data
    return received


@asynccontextmanager
async def connected(gate: Gate) -> AsyncIterator[Connected]:
    """As the proxy connects: its own SSH transport, the pinned host key."""
    told: list[Control] = []
    link = await connect(gate, told)
    try:
        async with asyncio.timeout(20):
            await link.mux.ready()
        await eventually(lambda: told)
        yield Connected(link.mux, told)
    finally:
        await link.close()


def transport(gate: Gate) -> Connect:
    return connector(
        host="127.0.0.1",
        port=gate.sshd.port,
        user=gate.account.name,
        key=str(gate.key.path),
        known_hosts=str(gate.sshd.known_hosts),
        timeout_s=20,
    )


async def connect(gate: Gate, told: list[Control]) -> Link:
    return await transport(gate)(lambda write: Mux(write, program="saia-proxy/test", on_control=told.append))


def route(running: RunningAgent, endpoint: Endpoint, **changes) -> Route:
    listed = Route(
        instance=INSTANCE,
        service="chat",
        generation=running.generation,
        host="127.0.0.1",
        port=endpoint.port,
        secret=endpoint.gate_secret,
        protocol=endpoint.protocol,
        methods=("GET",),
        paths=("/facts", "/stream/"),
        admit_until=time.time() + 3000,
        end=time.time() + 3600,
    )
    return msgspec.structs.replace(listed, **changes)


async def test_requests_pass_sshd_gate_and_agent_to_the_service(sshd: Sshd, agents: Agents):
    gate = make_gate(sshd)
    running = agents.start()
    await running.ready()
    gate.publish(route(running, running.endpoint))
    # The gate's account may read the table, and neither write it nor list the instance's directory.
    assert gate.routes.stat().st_mode & 0o777 == 0o640 and gate.routes.stat().st_uid == 0
    async with connected(gate) as proxy:
        assert [instance.id for instance in proxy.routes.instances] == [INSTANCE]
        status, facts = await proxy.ask("/facts")
        assert status == 200 and b'"SAIA_INSTANCE"' in facts
        before = gate.processes()
        assert sum("saia_engine.gate" in line for line in before) == 1
        answers = await asyncio.gather(*(proxy.ask("/stream/3") for _ in range(100)))
        assert answers == [(200, b"data: 0\ndata: 1\ndata: 2\n")] * 100
        assert sorted(gate.processes()) == sorted(before)
        # A drain that the routes never hear of: the open stream ends whole, nothing new is opened.
        slow = asyncio.create_task(proxy.ask("/stream/40"))
        await asyncio.sleep(0.2)
        await running.status(agent.DRAINING)
        await eventually(lambda: proxy.routes.instances[0].draining)
        refused = proxy.mux.open(Open(INSTANCE, "GET", "/facts"))
        with pytest.raises(StreamReset) as caught:
            await refused.response()
        assert caught.value.code == messages.DRAINING
        assert (await slow)[1] == b"".join(b"data: %d\n" % number for number in range(40))
        assert (await running.status(agent.DRAINING))["open"] == 0
    await eventually(lambda: not gate.processes())


async def test_newer_code_on_the_login_node_takes_new_streams_and_cuts_none(
    sshd: Sshd, agents: Agents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(line, "SPREAD_S", 0.5)
    gate = make_gate(sshd)
    running = agents.start()
    await running.ready()
    gate.publish(route(running, running.endpoint))
    table = RoutingTable(("login1",))
    tunnel = Tunnel(
        "login1",
        transport(gate),
        table=table,
        orders=Orders(tmp_path, ("a",)),
        connections=2,
        handshake_s=20,
    )
    keeping = asyncio.create_task(tunnel.run())
    try:
        await eventually(lambda: len(tunnel._relays) == 2)
        await eventually(lambda: "chat" in table.services and table.services["chat"].ready)
        old = gate.relays()
        slow = [asyncio.create_task(ask(tunnel.open(Open(INSTANCE, "GET", "/stream/400")))) for _ in range(4)]
        [module] = sshd.directory.glob("venv/lib/*/site-packages/saia_engine/gate/relay.py")
        with module.open("a") as text:
            text.write("# newer\n")
        await eventually(lambda: len(gate.relays()) == 4)
        await eventually(lambda: sum(relay.retired for relay in tunnel._relays) == 2)
        assert (await ask(tunnel.open(Open(INSTANCE, "GET", "/facts"))))[0] == 200
        assert not any(answer.done() for answer in slow)
        whole = b"".join(b"data: %d\n" % number for number in range(400))
        assert [await answer for answer in slow] == [(200, whole)] * 4
        await eventually(lambda: len(gate.relays()) == 2 and not old & gate.relays())
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    await eventually(lambda: not gate.processes())


async def test_a_killed_sshd_connection_ends_the_relay(sshd: Sshd):
    gate = make_gate(sshd)
    told: list[Control] = []
    link = await connect(gate, told)
    await link.mux.ready()
    assert any("saia_engine.gate" in line for line in gate.processes())
    link._connection.abort()  # type: ignore[attr-defined]
    await eventually(lambda: not gate.processes())
    await link.close()


async def test_an_account_whose_rc_file_prints_is_a_named_error(sshd: Sshd):
    gate = make_gate(sshd, rc="echo 'Welcome to the cluster: 3 new messages'\n")
    told: list[Control] = []
    link = await connect(gate, told)
    with pytest.raises(NotOurPeer) as caught:
        async with asyncio.timeout(20):
            await link.mux.ready()
    assert caught.value.seen.startswith(b"Welcome to the cluster: 3 new messages\n")
    await link.close()


async def test_an_rc_file_that_prints_to_stderr_only_does_no_harm(sshd: Sshd):
    gate = make_gate(sshd, rc="echo 'module: not found' >&2\n")
    async with connected(gate) as proxy:
        assert proxy.routes.generation == 7


async def test_a_refused_proxy_is_told_so_before_the_handshake(sshd: Sshd):
    gate = make_gate(sshd)
    gate.routes.write_bytes(gate.routes.read_bytes().replace(b'"cloud"', b'"other"'))
    told: list[Control] = []
    link = await connect(gate, told)
    with pytest.raises(NotOurPeer) as caught:
        async with asyncio.timeout(20):
            await link.mux.ready()
    assert caught.value.seen == b"saia-gate: refused\n"
    await link.close()


async def test_the_proxys_transport_pins_the_host_key(gate: Gate, tmp_path: Path):
    forged = tmp_path / "known_hosts"
    forged.write_text(gate.sshd.known_hosts.read_text().split(" ")[0] + " " + gate.sshd.key().public)
    with pytest.raises(Unusable, match="host key"):
        await connector(
            host="127.0.0.1", port=gate.sshd.port, user=gate.account.name, key=str(gate.key.path),
            known_hosts=str(forged), timeout_s=20,
        )(lambda write: Mux(write, program="x", on_control=lambda _: None))  # fmt: skip
