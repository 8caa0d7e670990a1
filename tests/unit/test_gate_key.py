"""The line of authorized_keys: one key, one command, nothing that came along."""

from __future__ import annotations

import base64
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from saia_engine.gate_key import KeyFault, authorized_keys_line, read_key


def blob(kind: str, *fields: bytes) -> str:
    return base64.b64encode(
        b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *fields))
    ).decode()


ED25519 = blob("ssh-ed25519", b"k" * 32)
KEY = f"ssh-ed25519 {ED25519}"


def line(text: str = KEY, **options) -> str:
    options = {
        "proxy": "cloud",
        "routes_path": "/var/lib/saia/gate/routes.json",
        "python": "/opt/saia/bin/python",
    } | options
    return authorized_keys_line(text, **options)


def test_the_line():
    assert line(f"{KEY} someone@laptop\n") == (
        'restrict,command="exec /opt/saia/bin/python -I -m saia_engine.gate'
        ' --routes /var/lib/saia/gate/routes.json --proxy cloud" ' + KEY
    )


def test_sources_and_expiry():
    expiry = datetime.now(UTC) + timedelta(days=30)
    made = line(sources=["192.0.2.1", "2001:db8::/32", "*.example.org"], expiry=expiry)
    assert ',from="192.0.2.1,2001:db8::/32,*.example.org",expiry-time="' in made
    assert f'expiry-time="{expiry.astimezone():%Y%m%d%H%M%S}" {KEY}' in made


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_real_keys_pass(kind: str, tmp_path: Path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen")
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / "key")], check=True)
    text = (tmp_path / "key.pub").read_text()
    assert line(text).endswith(" ".join(text.split()[:2]))
    with pytest.raises(KeyFault, match="private key"):
        line((tmp_path / "key").read_text())


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_keys_of_security_tokens_pass(kind: str):
    fields = (b"k" * 32, b"ssh:") if "ed25519" in kind else (b"nistp256", b"\x04" * 65, b"ssh:")
    assert read_key(f"{kind} {blob(kind, *fields)} comment") == (kind, blob(kind, *fields))


def test_comments_and_empty_lines_do_not_count():
    assert line(f"\n# my key\n\n{KEY}\n\n") == line()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "found 0"),
        (f"{KEY}\n{KEY}", "found 2"),
        (f'command="sh" {KEY}', "without options"),
        (f"no-pty,{KEY}", "without options"),
        ("ssh-dss " + blob("ssh-dss", b"p"), "accepted:"),
        (f"ssh-ed25519-cert-v01@openssh.com {ED25519}", "accepted:"),
        ("ssh-ed25519", "missing"),
        ("ssh-ed25519 %%%%", "damaged"),
        (f"ssh-ed25519 {ED25519[:-8]}", "damaged"),
        ("ssh-ed25519 " + blob("ssh-rsa", b"e", b"n"), "another type"),
        ("ssh-rsa " + ED25519, "another type"),
        ("ssh-ed25519 " + blob("ssh-ed25519", b"k" * 31), "32 bytes"),
        ("ssh-ed25519 " + blob("ssh-ed25519", b"k" * 32, b"more"), "parts"),
        ("ssh-ed25519 " + blob("ssh-ed25519"), "parts"),
        ("ssh-rsa " + blob("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128), "2048 bits"),
        ("ssh-ed25519 é", "damaged"),
        ("x" * 20_000, "longer"),
    ],
)
def test_anything_odd_is_refused(text: str, says: str):
    with pytest.raises(KeyFault, match=says):
        line(text)


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": 'x" no-restrict'},
        {"proxy": ""},
        {"proxy": "-x"},
        {"routes_path": "relative.json"},
        {"routes_path": "/a b"},
        {"routes_path": '/a"b'},
        {"routes_path": "/a$b"},
        {"routes_path": "/a;b"},
        {"routes_path": "/a\nb"},
        {"python": "python3"},
        {"sources": ["a,b"]},
        {"sources": ['a"b']},
        {"sources": ["10.0.0.1/8"]},
        {"sources": ["!10.0.0.1"]},
        {"sources": [""]},
        {"expiry": datetime.now()},
        {"expiry": datetime.now(UTC) - timedelta(minutes=1)},
    ],
)
def test_odd_options_are_refused(options):
    with pytest.raises(KeyFault):
        line(**options)
