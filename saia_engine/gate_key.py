"""The line of `authorized_keys` that lets one key run the gate for one proxy, and nothing else."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import shlex
import struct
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

LARGEST_KEY = 16 * 1024
TYPES = frozenset(
    "ssh-ed25519 ssh-rsa ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521"
    " sk-ssh-ed25519@openssh.com sk-ecdsa-sha2-nistp256@openssh.com".split()
)
FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""Strings in a key's blob after its type; 2 where not listed (ecdsa)."""
LEAST_RSA_BITS = 2048
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PATH = re.compile(r"/[A-Za-z0-9._/+@:,=-]*")
_HOST = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9.*?-]{0,252}")


class KeyFault(ValueError):
    """The line can't be made; the text is one sentence that says why."""


def authorized_keys_line(
    pubkey_text: str,
    *,
    proxy: str,
    routes_path: str,
    python: str = sys.executable,
    sources: Sequence[str] | None = None,
    expiry: datetime | None = None,
) -> str:
    """One line without its newline. `sources` are addresses, networks or host patterns; `expiry` must be aware.

    Of the key only its type and its base64 are taken over: no option or comment that it came with. Raises KeyFault.
    """
    kind, blob = read_key(pubkey_text)
    if not _NAME.fullmatch(proxy):
        raise KeyFault("the proxy's name must be made of a-z, 0-9, - and _, with no - or _ first")
    options = ["restrict", f'command="{_command(proxy, routes_path, python)}"']
    if sources:
        options.append(f'from="{",".join(_source(source) for source in sources)}"')
    if expiry is not None:
        options.append(f'expiry-time="{_moment(expiry)}"')
    return f"{','.join(options)} {kind} {blob}"


def read_key(text: str) -> tuple[str, str]:
    """Type and base64 of the one public key in `text`. Raises KeyFault."""
    if len(text) > LARGEST_KEY:
        raise KeyFault(f"a public key is never longer than {LARGEST_KEY} characters")
    if "PRIVATE KEY" in text:
        raise KeyFault("this is a private key; give the file that ends in .pub, and keep this one secret")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1:
        raise KeyFault(f"expected exactly one public key, found {len(lines)} lines")
    words = lines[0].split()
    if words[0] not in TYPES:
        raise KeyFault(
            "the line must begin with a key type such as ssh-ed25519, without options before it;"
            f" accepted: {', '.join(sorted(TYPES))}"
        )
    if len(words) < 2:
        raise KeyFault("the key itself is missing after its type")
    _check_blob(words[0], words[1])
    return words[0], words[1]


def _check_blob(kind: str, text: str) -> None:
    try:
        fields = _fields(base64.b64decode(text.encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error, struct.error, ValueError):
        raise KeyFault("the key is damaged: it is not the base64 of a public key") from None
    if fields[0] != kind.encode():
        raise KeyFault("the key is damaged: inside it is of another type than the line says")
    if len(fields) - 1 != FIELDS.get(kind, 2):
        raise KeyFault("the key is damaged: it has too few or too many parts")
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < LEAST_RSA_BITS:
        raise KeyFault(f"an RSA key must have {LEAST_RSA_BITS} bits or more; better: ssh-keygen -t ed25519")
    if kind == "ssh-ed25519" and len(fields[1]) != 32:
        raise KeyFault("the key is damaged: an ed25519 key has 32 bytes")


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed strings of a blob. Raises struct.error or ValueError."""
    fields, position = [], 0
    while position < len(blob):
        (size,) = struct.unpack_from("!I", blob, position)
        position += 4 + size
        if position > len(blob):
            raise ValueError("cut short")
        fields.append(blob[position - size : position])
    if not fields:
        raise ValueError("empty")
    return fields


def _command(proxy: str, routes_path: str, python: str) -> str:
    for what, path in (("the path of routes.json", routes_path), ("the path of Python", python)):
        # A login shell reads the command, inside the quotes of authorized_keys: nothing that either would expand.
        if not _PATH.fullmatch(path) or shlex.quote(path) != path:
            raise KeyFault(
                f"{what} must be absolute and plain (letters, digits, and . _ / + @ : , = -): {path!r}"
            )
    return f"exec {python} -I -m saia_engine.gate --routes {routes_path} --proxy {proxy}"


def _source(source: str) -> str:
    try:
        return str(ipaddress.ip_network(source)) if "/" in source else str(ipaddress.ip_address(source))
    except ValueError:
        if "/" not in source and _HOST.fullmatch(source):
            return source
    raise KeyFault(f"{source!r} is no address, network (with its host bits zero) or host name")


def _moment(expiry: datetime) -> str:
    """As every sshd reads it, in this host's local time: only since 9.1 it knows of UTC."""
    if expiry.tzinfo is None:
        raise KeyFault("the expiry must have a time zone")
    if expiry <= datetime.now(UTC):
        raise KeyFault("the expiry is in the past")
    return expiry.astimezone().strftime("%Y%m%d%H%M%S")
