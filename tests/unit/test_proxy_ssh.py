"""The ssh transport against a real OpenSSH sshd on loopback, with every refusal that an operator may meet."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import asyncssh
import httpx
import openai
import pytest
import uvloop
from websockets.sync.client import connect

from saia_proxy.config import Client, ProxyConfig, SshUpstream
from saia_proxy.ping import ping_all
from saia_proxy.server import listen, serve
from saia_proxy.transports import Unusable, ssh
from tests import clean_login
from tests.unit import openai_site
from tests.unit.proxy_running import KEY, TIMEOUTS, config, until_async

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
ROOT = Path(__file__).parents[2]
GATE = f"cd {ROOT} && exec {sys.executable} -m tests.unit.proxy_gate"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Overriding the"),
    pytest.mark.real_sshd,
    pytest.mark.skipif(SSHD is None or os.geteuid() != 0, reason="needs OpenSSH's sshd, and root to run it"),
]


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True, params=["openssh", "asyncssh"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who speaks SSH for the proxy."""
    monkeypatch.setattr(Sshd, "client", request.param)
    return request.param


@dataclass
class Sshd:
    directory: Path
    port: int
    pid: int
    client: ClassVar[Client] = "auto"

    def table(self) -> str:
        """What an upstream's table says of it."""
        there = self.upstream()
        return (
            f'host = "127.0.0.1"\nport = {there.port}\nuser = "{there.user}"\n'
            f'key = "{there.key}"\nknown_hosts = "{there.known_hosts}"\nclient = "{there.client}"\n'
        )

    def upstream(self, **changes) -> SshUpstream:
        values = {
            "name": "login1",
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key": self.directory / "key",
            "known_hosts": self.directory / "known_hosts",
            "client": self.client,
        }
        return SshUpstream(**(values | changes))

    def settings(self, **changes) -> ProxyConfig:
        plain = config(self.directory)
        return ProxyConfig(
            file=plain.file,
            server=plain.server,
            upstreams=(self.upstream(**changes),),
            timeouts=TIMEOUTS,
            keys=plain.keys,
        )


def make_key(path: Path, algorithm: str = "ssh-ed25519") -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key(algorithm)
    key.write_private_key(path)
    path.chmod(0o600)
    return key


@contextlib.contextmanager
def sshd(directory: Path, command: str) -> Iterator[Sshd]:
    """A real sshd that accepts one key and runs `command` for it."""
    assert SSHD is not None
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host_key, client_key = make_key(directory / "host_key"), make_key(directory / "key")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = client_key.export_public_key().decode()
    (directory / "authorized_keys").write_text(f'restrict,command="{command}" {public}')
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    (directory / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {directory}/host_key\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nLogLevel ERROR\n"
    )
    process = subprocess.Popen(
        clean_login.argv(SSHD, "-D", "-e", "-f", str(directory / "sshd_config")), stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            time.sleep(0.03)
        yield Sshd(directory, port, process.pid)
    finally:
        process.terminate()
        process.wait(5)


async def ping(settings: ProxyConfig) -> str:
    [(name, line, good)] = await ping_all(settings)
    assert name == "login1"
    assert good == line.startswith("connected")
    return line


async def test_requests_go_through_sshd(tmp_path):
    with sshd(tmp_path, GATE) as server:
        listener, stop = listen("127.0.0.1", 0), asyncio.Event()
        port = listener.getsockname()[1]
        task = asyncio.create_task(serve(server.settings(), listener, stop))
        try:
            headers = {"authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:

                async def connected() -> bool:
                    return (await client.get("/healthz")).status_code == 200

                await until_async(connected, within_s=10)
                big = {"model": "llama", "input": "x" * 700_000}
                calls = [client.post("/v1/embeddings", json=big, timeout=20) for _ in range(8)]
                answers = await asyncio.gather(*calls)
                assert {answer.status_code for answer in answers} == {200}
                assert all(len(answer.json()["body"]) > 700_000 for answer in answers)
        finally:
            stop.set()
            await task


def test_openais_client_and_a_websocket_through_sshd_and_the_real_gate(tmp_path):
    """Nothing here is a stand-in but the model."""
    site = tmp_path / "site"
    site.mkdir()
    gate = " ".join(["exec", *openai_site.gate_command(site)])
    with sshd(tmp_path, gate) as server, openai_site.chain(site, server.table()) as chain:
        options = {"base_url": f"{chain.url}/v1", "api_key": openai_site.KEY, "max_retries": 0}
        with openai.OpenAI(**options, timeout=30) as client:
            stream = client.chat.completions.create(
                model="llama", messages=[{"role": "user", "content": "count"}], stream=True, max_tokens=50
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            spoken = client.audio.transcriptions.create(model="whisper", file=("a.wav", b"\xff" * 700_000))
        assert text == "".join(f"{number} " for number in range(50))
        assert spoken.text.startswith("/v1/audio/transcriptions whisper a.wav ")
        headers = {"Authorization": f"Bearer {openai_site.KEY}"}
        address = f"ws://127.0.0.1:{chain.port}/v1/realtime?model=llama"
        with connect(address, additional_headers=headers, open_timeout=30) as socket:
            assert json.loads(socket.recv(30))["type"] == "session.created"
            socket.send(b"\x00" * 500_000)
            assert socket.recv(30) == b"\x00" * 500_000


async def test_ping_says_that_all_is_well(tmp_path):
    with sshd(tmp_path, GATE) as server:
        assert await ping(server.settings()) == "connected to test-gate/1; services 1, instances ready 1"


async def test_a_key_that_is_not_accepted(tmp_path):
    with sshd(tmp_path, GATE) as server:
        make_key(tmp_path / "other")
        line = await ping(server.settings(key=tmp_path / "other"))
    assert line.startswith("key refused: ")
    assert "authorized_keys" in line


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [("ssh-ed25519", "host key mismatch: "), ("ecdsa-sha2-nistp256", "has it a host key of the kind pinned")],
)
async def test_a_host_whose_key_is_another(tmp_path, client, algorithm, words):
    if client == "openssh":
        words = "host key mismatch: "  # it is told so in either case
    with sshd(tmp_path, GATE) as server:
        other = asyncssh.generate_private_key(algorithm).export_public_key().decode()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
        line = await ping(server.settings())
    assert words in line
    assert "known_hosts" in line


async def test_a_host_that_is_not_pinned_is_not_trusted(tmp_path):
    with sshd(tmp_path, GATE) as server:
        (tmp_path / "known_hosts").write_text("# nobody\n")
        assert (await ping(server.settings())).startswith("host key mismatch: ")


async def test_hosts_that_cannot_be_reached(tmp_path):
    with sshd(tmp_path, GATE) as server:
        settings = server.settings()
        assert (await ping(server.settings(host="no-such-host.invalid"))).startswith("host unreachable: ")
    assert (await ping(settings)).startswith("host unreachable: ")


async def test_a_start_up_file_that_prints_is_shown_safely(tmp_path):
    with sshd(tmp_path, f"printf 'Welcome \\033[31m to login1'; {GATE}") as server:
        line = await ping(server.settings())
    assert line.startswith("unexpected output before the handshake: ")
    assert "Welcome \\x1b[31m to login1" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("where", ["1", "2"])
async def test_the_gates_own_refusal_is_passed_on(tmp_path, where):
    with sshd(tmp_path, f"echo 'saia-gate: proxy cloud2 is not known here' >&{where}; exit 6") as server:
        line = await ping(server.settings())
    assert line.startswith(("refused by the gate: ", "connection ended: the gate ended with status 6: "))
    assert "proxy cloud2 is not known here" in line


async def test_a_gate_that_says_nothing_and_ends(tmp_path):
    with sshd(tmp_path, "exit 3") as server:
        assert await ping(server.settings()) == "connection ended: the gate ended with status 3"


async def test_a_key_file_that_is_none(tmp_path):
    for text in ("not a key", ""):
        (tmp_path / "key").write_text(text)
        connect = ssh.connector(
            host="h", port=1, user="u", key=str(tmp_path / "key"), known_hosts="none", timeout_s=1
        )
        with pytest.raises(Unusable, match="not usable here: the private key"):
            await connect(lambda write: None)  # type: ignore[arg-type,return-value]
