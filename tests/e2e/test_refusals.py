"""What goes wrong at the start has a message that says what to do, and an exit code: through the installed programs."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.slurm.cluster import free_ports
from tests.slurm.versions import SYSTEM_PATH

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd, pytest.mark.timeout(180)]

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def settled(site: Site) -> Iterator[Site]:
    """The standing site; whatever is refused here must not disturb it."""
    site.wait_settled(2)
    jobs = site.jobs()
    yield site
    assert site.jobs() == jobs and len(site.instances("ready")) == 2


def engine(site: Site, config: Path, path: str = SYSTEM_PATH) -> Done:
    """`saia-engine run` as the engine's user, to its end."""
    argv = site.engine.argv(str(site.installed.site / "saia-engine"), "run", "--config", str(config))
    env = site.environment(site.engine) | {"PATH": path}
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=30)


def proxy(site: Site, command: str, config: Path) -> Done:
    """`saia-proxy COMMAND` as the proxy's user, to its end."""
    place = [] if command == "check" else ["--config"]
    argv = site.proxy.argv(str(site.installed.proxy / "saia-proxy"), command, *place, str(config))
    return subprocess.run(
        argv, env=site.environment(site.proxy), cwd="/", capture_output=True, text=True, timeout=30
    )


def engine_config(site: Site, name: str, *changes: tuple[str, str]) -> Path:
    """The site's configuration with changes, each of which must fit."""
    return changed(site.config, name, site.engine.uid, *changes)


def proxy_config(site: Site, name: str, *changes: tuple[str, str]) -> Path:
    return changed(site.proxy_config, name, site.proxy.uid, *changes)


def changed(original: Path, name: str, owner: int, *changes: tuple[str, str]) -> Path:
    text = original.read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after, 1)
    file = original.with_name(name)
    file.write_text(text)
    file.chmod(0o600)
    os.chown(file, owner, owner)
    return file


def says(done: Done, code: int, *words: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said and "unexpected error" not in said
    for word in words:
        assert word in said, said


# ---------------------------------------------------------------- configuration: 2


def test_a_wrong_configuration_of_the_engine(settled: Site):
    wrong = engine_config(
        settled,
        "wrong.toml",
        ('time_limit = "1h"', 'time_limit = "6m"\nreadines_path = "/ok"'),
        ('listen = "socket"', 'listen = "sockets"'),
    )
    expected = (str(wrong), "services.chat.readines_path", "services.chat.listen", "can't work")
    says(engine(settled, wrong), 2, *expected)
    says(settled.command("check", str(wrong)), 2, *expected)
    says(engine(settled, settled.dir / "none.toml"), 2, "none.toml")


def test_a_wrong_configuration_of_the_proxy(settled: Site):
    wrong = proxy_config(
        settled, "wrong.toml", ("known_hosts =", "known_host ="), ("state_dir =", "state_dirs =")
    )
    for command in ("check", "run", "ping"):
        says(proxy(settled, command, wrong), 2, str(wrong), "known_hosts", "state_dir")


# ---------------------------------------------------------------- Slurm: 3


def test_slurm_is_missing(settled: Site):
    apart = separate(settled, "missing")
    nowhere = settled.dir / "bin"
    nowhere.mkdir(exist_ok=True)
    says(engine(settled, apart, path=str(nowhere)), 3, "squeue", "sbatch", str(nowhere), "slurm_bin", "local")
    named = engine_config(
        settled, "named.toml", ("slurm_conf =", f'slurm_bin = "{nowhere}"\nslurm_conf ='), *moved("named")
    )
    says(engine(settled, named), 3, "squeue", str(nowhere))
    lost = engine_config(
        settled, "lost.toml", ("slurm_conf =", 'slurm_conf = "/nonexistent.conf" #'), *moved("lost")
    )
    says(engine(settled, lost), 3, "/nonexistent.conf", "slurm_conf")


# ---------------------------------------------------------------- taken: 4


def test_a_second_engine(settled: Site):
    says(engine(settled, settled.config), 4, "another engine runs on this host", "engine.lock")


def test_an_occupied_socket(settled: Site):
    same_socket = engine_config(settled, "socket.toml", *moved("socket")[:2])
    says(engine(settled, same_socket), 4, "another engine answers at", str(settled.operator_socket))


def test_a_taken_port_of_the_proxy(settled: Site):
    port = re.findall(r"^port = (\d+)$", settled.proxy_config.read_text(), re.MULTILINE)[0]
    says(proxy(settled, "run", settled.proxy_config), 4, port)


def separate(site: Site, name: str) -> Path:
    """A configuration with directories of its own."""
    return engine_config(site, f"{name}.toml", *moved(name))


def moved(name: str) -> list[tuple[str, str]]:
    keys = {"shared_dir": "shared", "state_dir": "state", "runtime_dir": "run"}
    return [
        (f'{key} = "{directory}"', f'{key} = "state/{name}-{directory}"') for key, directory in keys.items()
    ]


# ---------------------------------------------------------------- no engine: 5


def test_no_engine_answers(settled: Site):
    nobody = settled.dir / "nobody.sock"
    says(settled.command("status", "--socket", str(nobody)), 5, str(nobody), "no engine answers")


# ---------------------------------------------------------------- host and key: 7


def test_a_refused_key(settled: Site):
    other = settled.dir / "proxy" / "other_key"
    if not other.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
        os.chown(other, settled.proxy.uid, settled.proxy.gid)
    config = proxy_config(settled, "refused.toml", ('key = "id_ed25519"', f'key = "{other.name}"'))
    says(proxy(settled, "ping", config), 7, "key refused", settled.gate.name, "authorized_keys")


def test_another_host_key_than_the_pinned_one(settled: Site):
    pinned = settled.dir / "proxy" / "other_hosts"
    shutil.copy(settled.dir / "proxy" / "known_hosts", pinned)
    forged = (settled.dir / "sshd" / "proxy_key.pub").read_text()
    pinned.write_text(f"[127.0.0.1]:{settled.ssh_port} {forged}")
    os.chown(pinned, settled.proxy.uid, settled.proxy.gid)
    config = proxy_config(
        settled, "forged.toml", ('known_hosts = "known_hosts"', 'known_hosts = "other_hosts"')
    )
    says(proxy(settled, "ping", config), 7, "host key mismatch", "other_hosts")


def test_an_unreachable_host(settled: Site):
    [port] = free_ports(1)
    config = proxy_config(settled, "closed.toml", (f"port = {settled.ssh_port}", f"port = {port}"))
    says(proxy(settled, "ping", config), 7, "host unreachable", str(port))
    with socket.create_server(("127.0.0.1", port)):  # takes connections, and is no sshd
        slow = proxy_config(
            settled,
            "mute.toml",
            (f"port = {settled.ssh_port}", f"port = {port}"),
            ("[keys.tests]", '[timeouts]\nconnect = "1s"\n\n[keys.tests]'),
        )
        says(proxy(settled, "ping", slow), 7, "host unreachable", "did not answer in time")


def test_all_is_well(settled: Site):
    says(
        proxy(settled, "ping", settled.proxy_config), 0, "login1: connected to saia-gate", "instances ready 2"
    )
