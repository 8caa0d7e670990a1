"""A gate behind sshd, reached by OpenSSH's own client as our child: of what a user set up for ssh, nothing is read."""

from __future__ import annotations

import math
import os
import pwd
import shutil

from saia_engine.edge.text import plain
from saia_proxy.transports import STDERR_KEPT, VERB, Connect, Trouble, Unusable, subprocess
from saia_proxy.transports.files import readable

PROGRAM = "ssh"
KEEPALIVE_S = 5
SAYS_SO_S = 1.0
"""So much later than its own ConnectTimeout, in whole seconds, ssh has said that it was too long."""
FAILED = 255
"""ssh's own exit status where it could not connect, or lost the connection."""
CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr"

_TROUBLES = (
    (Trouble.LOCAL, ("bad permissions", "unprotected private key", "load key", "no user exists for uid")),
    (Trouble.HOST_KEY, ("host key",)),
    (Trouble.KEY_REFUSED, ("permission denied", "too many authentication failures")),
)
"""What ssh says, in lower case; in all other cases the host could not be reached."""


def usable() -> bool:
    """It is installed, and its user has an entry in the password file: it would end without one."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return shutil.which(PROGRAM) is not None


def connector(*, host: str, port: int, user: str, key: str, known_hosts: str, timeout_s: float) -> Connect:
    """Connects with public key authentication only; the host's key must be in the file `known_hosts`."""
    command = argv(host, port, user, key, known_hosts, timeout_s)

    def trouble(status: int | None, said: bytes) -> Unusable | None:
        if status != FAILED:
            return None  # the gate's own end
        lines = [plain(line.strip(), STDERR_KEPT) for line in said.splitlines() if line.strip()]
        return _trouble(lines, f"{user}@{host}:{port}", key, known_hosts)

    def check() -> None:
        readable(key, "private key")
        readable(known_hosts, "known_hosts file")

    return subprocess.connector(command, check=check, trouble=trouble, connect_s=timeout_s + SAYS_SO_S)


def argv(host: str, port: int, user: str, key: str, known_hosts: str, timeout_s: float) -> list[str]:
    """Its command line. Paths may hold blanks, and `%`, which ssh would replace."""
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        "IdentityFile": _path(key),
        "IdentityAgent": "none",
        "CertificateFile": "none",
        "PreferredAuthentications": "publickey",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": _path(known_hosts),
        "GlobalKnownHostsFile": "none",
        "UpdateHostKeys": "no",
        "Ciphers": CIPHERS,
        "Compression": "no",
        "ConnectTimeout": str(math.ceil(timeout_s)),
        "ServerAliveInterval": str(KEEPALIVE_S),
        "ServerAliveCountMax": "3",
        "TCPKeepAlive": "yes",
        "ClearAllForwardings": "yes",
        "ControlPath": "none",
        "LogLevel": "ERROR",
    }
    words = [PROGRAM, "-F", "none", "-T", "-a", "-x", "-p", str(port), "-l", user]
    words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return [*words, "--", host, VERB]


def _path(path: str) -> str:
    return '"' + path.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _trouble(lines: list[str], where: str, key: str, known_hosts: str) -> Unusable:
    lower, said = "\n".join(lines).lower(), lines[-1] if lines else ""
    kind = next((kind for kind, words in _TROUBLES if any(word in lower for word in words)), None)
    if kind is Trouble.KEY_REFUSED:
        text = f"{where} does not accept {key}; is its line (saia-engine gate-key) in authorized_keys there?"
    elif kind is Trouble.HOST_KEY:
        text = f"the key that {where} shows is not the one pinned in {known_hosts} ({said})"
    elif kind is Trouble.LOCAL:
        text = f"ssh can't use the private key {key}: {said}; it must be our user's own, mode 0600"
    elif "timed out" in lower:
        kind, text = Trouble.UNREACHABLE, f"{where} did not answer in time"
    else:
        kind, text = Trouble.UNREACHABLE, f"{where}: {said or 'ssh ended without a word'}"
    return Unusable(kind, text)
