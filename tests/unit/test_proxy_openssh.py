"""OpenSSH's client as the proxy's child: its command line, and what it says when it ends."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

from saia_engine.wire.mux import Mux
from saia_proxy import relay
from saia_proxy.transports import Link, Trouble, Unusable, openssh, subprocess

CALL = {"host": "login1", "port": 22, "user": "gate", "key": "/k", "known_hosts": "/h", "timeout_s": 5.0}


def test_nothing_that_a_user_set_up_counts_and_no_word_is_an_option():
    words = openssh.argv("login1", 2222, "gate", "/etc/my keys/50%", '/etc/"hosts"', 0.2)
    assert words[:3] == ["ssh", "-F", "none"]
    assert words[-3:] == ["--", "login1", "relay"]
    options = dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == "-o")
    assert options["IdentityFile"] == '"/etc/my keys/50%%"'
    assert options["UserKnownHostsFile"] == '"/etc/\\"hosts\\""'
    assert options["ConnectTimeout"] == "1"
    assert options["StrictHostKeyChecking"] == "yes"
    assert options["IdentityAgent"] == options["GlobalKnownHostsFile"] == "none"


class Fake:
    """An `ssh` that says something and ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def files(self, text: str, status: int, sleep_s: int = 0) -> dict[str, str]:
        """Puts it on the path; returns the files that a connection needs."""
        program = self._directory / "ssh"
        program.write_text(f"#!/bin/sh\nsleep {sleep_s}\nprintf '%b' '{text}' >&2\nexit {status}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        paths = {"key": self._directory / "k", "known_hosts": self._directory / "h"}
        for path in paths.values():
            path.write_text("x")
        return {name: str(path) for name, path in paths.items()}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Fake(tmp_path)


@pytest.mark.parametrize(
    ("text", "status", "trouble", "words"),
    [
        ("gate@login1: Permission denied (publickey).\\r\\n", 255, Trouble.KEY_REFUSED, "authorized_keys"),
        ("@@@@@\\r\\nIt is also possible...\\r\\nHost key verification failed.\\r\\n", 255, Trouble.HOST_KEY, "/h"),
        ("No ED25519 host key is known for login1.\\r\\n", 255, Trouble.HOST_KEY, "No ED25519"),
        ("ssh: connect to host login1 port 22: Connection refused\\r\\n", 255, Trouble.UNREACHABLE, "refused"),
        ("Load key \"/k\": bad permissions\\r\\n", 255, Trouble.LOCAL, "0600"),
        ("", 255, Trouble.UNREACHABLE, "without a word"),
        ("saia-gate: no place\\n", 6, Trouble.GATE_ENDED, "status 6: saia-gate: no place"),
        ("evil \\033[31m\\r\\n", 255, Trouble.UNREACHABLE, "\\x1b[31m"),
    ],
)  # fmt: skip
async def test_how_it_ended(said: Fake, text: str, status: int, trouble: Trouble, words: str):
    link: Link = await openssh.connector(**(CALL | said.files(text, status)))(  # type: ignore[arg-type]
        lambda write: Mux(write, program="test", on_control=lambda message: None)
    )
    await link.mux.wait_closed()
    await link.close()
    end = link.end()
    assert end.trouble is trouble
    assert words in str(end)
    assert "\x1b" not in str(end) and "@@@" not in str(end)


async def test_files_that_are_not_there_are_named_before_anything_is_started():
    with pytest.raises(Unusable, match="not usable here: the private key /k cannot be read"):
        await openssh.connector(**CALL)(lambda write: pytest.fail("started"))  # type: ignore[arg-type]


async def test_a_client_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not openssh.usable()
    with pytest.raises(Unusable, match="cannot run ssh"):
        await subprocess.connector(openssh.argv("h", 1, "u", "k", "h", 1))(
            lambda write: pytest.fail("started")
        )


async def test_a_connection_that_takes_too_long_is_no_fault_of_the_handshake(said: Fake):
    """ssh says so by itself, later than the time that a handshake has."""
    slow = said.files("ssh: connect to host login1 port 22: Connection timed out\\r\\n", 255, sleep_s=1)
    with pytest.raises(Unusable, match="host unreachable: gate@login1:22 did not answer in time"):
        await relay.connect(openssh.connector(**(CALL | slow)), 0.2)  # type: ignore[arg-type]
