import re
import sys
from pathlib import Path

import pytest

from saia_proxy import config
from saia_proxy.config import ApiKey, ConfigFaults, ProxyConfig, SshUpstream, SubprocessUpstream
from saia_proxy.health import Tolerance

HASH = "sha256:" + "ab" * 32
SERVER = '[server]\nstate_dir = "state"\n'
DEMO = '[[upstreams]]\nname = "demo"\ntransport = "subprocess"\ncommand = ["{saia_python}", "-m", "gate"]\n'
SSH = """
[[upstreams]]
name = "hpc"
transport = "ssh"
host = "login1.example.org"
user = "saia-gate"
key = "id"
known_hosts = "hosts"
"""


def load(directory: Path, text: str) -> ProxyConfig:
    file = directory / "proxy.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)


def faults(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        load(directory, text)
    start = f"{directory / 'proxy.toml'}: "
    return [line.removeprefix(start) for line in str(caught.value).splitlines()]


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """A directory with an SSH key and a pinned host key."""
    for name in ("id", "hosts"):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    (tmp_path / "id").chmod(0o600)
    return tmp_path


def test_defaults_of_a_small_file(tmp_path: Path) -> None:
    loaded = load(tmp_path, SERVER + DEMO)
    assert loaded == ProxyConfig(
        file=tmp_path / "proxy.toml",
        server=config.Server(
            "127.0.0.1", 8080, 50 * 1024**2, 512 * 1024**2, tmp_path / "state", (), None, None
        ),
        upstreams=(SubprocessUpstream("demo", (sys.executable, "-m", "gate")),),
        timeouts=config.Timeouts(10.0, 600.0, 300.0, 3600.0),
        keys=(),
    )
    assert config.check_lines(loaded)[-1] == "no keys: every request will be refused"


def test_every_key_arrives(keyed: Path) -> None:
    text = f"""
    [server]
    host = "::1"
    port = 443
    max_body = "1MiB"
    max_buffered = "3MiB"
    state_dir = "/state"
    trusted_proxies = ["10.0.0.0/8", "::1"]
    tls_certificate = "hosts"
    tls_key = "id"
    {SSH}
    port = 2222
    [timeouts]
    connect = "1s"
    first_byte = "2s"
    idle = "3s"
    total = "4s"
    [balancing]
    affinity = "X-Session-Id"
    eject_after = 2
    eject_for = "7s"
    stall_after = "1m"
    [queue]
    max_waiting = 7
    max_wait = "3s"
    heartbeat = "2s"
    max_in_flight = 8
    [queue.services.search]
    max_wait = "0s"
    [keys.alice]
    hash = "{HASH}"
    models = ["llama-3", "service:search"]
    concurrency = 5
    requests_per_minute = 60
    """
    assert load(keyed, text) == ProxyConfig(
        file=keyed / "proxy.toml",
        server=config.Server(
            "::1",
            443,
            1024**2,
            3 * 1024**2,
            Path("/state"),
            ("10.0.0.0/8", "::1/128"),
            keyed / "hosts",
            keyed / "id",
        ),
        upstreams=(
            SshUpstream("hpc", "login1.example.org", 2222, "saia-gate", keyed / "id", keyed / "hosts"),
        ),
        timeouts=config.Timeouts(1, 2, 3, 4),
        keys=(ApiKey("alice", HASH, ("llama-3", "service:search"), 5, 60),),
        balancing=config.Balancing("x-session-id", Tolerance(2, 7.0, 60.0)),
        queues=config.Queues(config.QueueRule(7, 3.0, 2.0, 8), {"search": config.QueueRule(7, 0.0, 2.0, 8)}),
    )


def test_nobody_waits_longer_than_in_all_and_a_worker_has_its_share(tmp_path: Path) -> None:
    text = f"{SERVER}{DEMO}[timeouts]\nconnect = '4s'\nfirst_byte = '4s'\nidle = '4s'\ntotal = '4s'"
    queues = load(tmp_path, text).queues
    assert queues.of("any") == config.QueueRule(100, 4.0, 10.0, 0)
    assert queues.share(3).of("any") == config.QueueRule(34, 4.0, 10.0, 0)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    lines = faults(
        tmp_path,
        f"""
        [server]
        prot = 1
        trusted_proxies = ["everyone"]
        tls_key = "k"
        [[upstreams]]
        name = "a"
        transport = "ssh"
        host = "-oProxyCommand=x"
        command = ["x"]
        [[upstreams]]
        name = "a"
        transport = "subprocess"
        user = "x"
        [[upstreams]]
        transport = "telnet"
        [timeouts]
        idle = "2h"
        [balancing]
        affinity = "session id"
        eject_after = 0
        [queue]
        max_wait = "2h"
        heartbeat = "0.5s"
        [queue.services.search]
        max_wait = "500ms"
        max_waitng = 3
        [keys.one]
        hash = "{HASH}"
        [keys.two]
        hash = "{HASH}"
        models = []
        [keys.three]
        """,
    )
    assert lines == [
        'server.trusted_proxies[0]: must be an address or a network, such as "192.0.2.7" or "10.0.0.0/8"',
        "server.prot: unknown key; did you mean port?",
        "server.state_dir: is required; a directory of the proxy's own, such as /var/lib/saia-proxy",
        "server.tls_certificate: is required beside the other half; give both for TLS, or none behind a TLS proxy",
        "timeouts.idle: is longer than total, 1h; raise total or lower it",
        'balancing.affinity: must be "key" or the name of a header, such as "x-session-id"',
        "balancing.eject_after: must be at least 1",
        "queue.heartbeat: must be 1s or longer",
        "queue.max_wait: is longer than timeouts.total, 1h; raise total or lower it",
        'queue.services.search.max_wait: must be 1s or longer, or "0s"',
        "queue.services.search.max_waitng: unknown key; did you mean max_waiting?",
        "upstreams[0].host: must be a host name or an address",
        'upstreams[0].user: is required for transport = "ssh"',
        'upstreams[0].key: is required for transport = "ssh"',
        'upstreams[0].known_hosts: is required for transport = "ssh";'
        " the pinned host key: one line of `ssh-keyscan HOST`, checked with the site",
        'upstreams[0].command: is only for transport = "subprocess"; remove it',
        'upstreams[1].command: is required for transport = "subprocess"',
        'upstreams[1].user: is only for transport = "ssh"; remove it',
        "upstreams[2].transport: must be 'ssh' or 'subprocess'",
        "upstreams[2].name: is required",
        "upstreams[1].name: a is already the name of another upstream",
        "keys.two.models: needs at least 1",
        "keys.two.hash: is that of one too; give each client a key of its own",
        "keys.three.hash: is required",
    ]


def test_a_file_without_upstreams_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, SERVER) == [
        "upstreams: is required; add an [[upstreams]] table for each login node"
    ]


def test_the_ssh_key_must_be_there_and_private(keyed: Path) -> None:
    load(keyed, SERVER + SSH)
    (keyed / "id").chmod(0o640)
    assert faults(keyed, SERVER + SSH) == [
        f"upstreams[0].key: others can read {keyed / 'id'} (mode 0640); run: chmod 600 {keyed / 'id'}"
    ]
    (keyed / "id").write_bytes(b"")
    assert "is empty" in faults(keyed, SERVER + SSH)[0]
    (keyed / "id").unlink()
    assert faults(keyed, SERVER + SSH) == [f"upstreams[0].key: there is no file {keyed / 'id'}"]
    (keyed / "id").mkdir()
    assert "is not a regular file" in faults(keyed, SERVER + SSH)[0]


def test_a_key_pasted_for_its_hash_is_not_repeated(tmp_path: Path) -> None:
    key, _ = config.new_key()
    (line,) = faults(tmp_path, SERVER + DEMO + f'[keys.alice]\nhash = "{key}"')
    assert line.startswith('keys.alice.hash: must be "sha256:" and 64 hex digits')
    assert key not in line


def test_new_keys_are_long_random_and_known_by_their_hash() -> None:
    key, hashed = config.new_key()
    assert re.fullmatch(r"sk-saia-[A-Za-z0-9_-]{43}", key)
    assert hashed == config.hash_key(key)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", hashed)
    assert config.new_key()[0] != key
    assert config.hash_key("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_check_prints(keyed: Path) -> None:
    loaded = load(keyed, SERVER + 'host = "0.0.0.0"\n' + SSH + f'[keys.alice]\nhash = "{HASH}"')
    lines = config.check_lines(loaded)
    assert (
        lines[0]
        == f"serves http://0.0.0.0:8080, bodies up to 51200 KiB (524288 KiB in all), state in {keyed / 'state'}"
    )
    assert "without TLS" in lines[1]
    assert "upstream hpc: ssh saia-gate@login1.example.org port 22" in lines
    assert any(line.startswith("  2 relays there, for a time 4 when") for line in lines)
    assert "queue of a service: up to 100 requests wait 30s for an instance" in lines
    assert "key alice: all models" in lines
    assert HASH not in "\n".join(lines)
