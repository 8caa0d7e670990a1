"""A real OpenSSH sshd on loopback with accounts of its own, and a Python with saia that these may run.

All of it lives in one temporary directory, on a port of its own; the accounts are removed with it. Needs root.
Nothing of the machine's own sshd, its keys or its configuration is used.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = ("sshd", "ssh", "ssh-keygen", "useradd", "userdel")
GATE_NEEDS = ("saia_engine", "msgspec", "httptools")
START_LIMIT_S = 10.0
NOBODY = 65534

# A home below a temporary directory fails StrictModes; everything else is as strict as a site's, and AcceptEnv as
# Debian's.
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {dir}/host_key
PidFile none
UsePAM no
StrictModes no
AuthorizedKeysFile {dir}/keys/%u
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitUserEnvironment no
AcceptEnv LANG LC_*
AllowTcpForwarding yes
AllowAgentForwarding yes
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


class SshdUnavailable(Exception):
    """This machine cannot run it; the text says why."""


@dataclass(frozen=True)
class Account:
    """A Unix account that only this sshd's keys open."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class Key:
    """A client's key pair."""

    path: Path
    public: str


class Sshd:
    """One running sshd; a context manager. Raises SshdUnavailable where it cannot run.

    `settings` are further lines of its configuration.
    """

    def __init__(self, *settings: str) -> None:
        _check_machine()
        self._settings = settings
        self.directory = Path(tempfile.mkdtemp(prefix="saia-sshd-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.port = _free_port()
        self.known_hosts = self.directory / "known_hosts"
        self.python = self.directory / "venv" / "bin" / "python"
        """Has saia's engine and gate, and may be run by every account."""
        self._names: list[str] = []
        """Of the accounts; noted before they are made, for an interrupt may come in between."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        (self.directory / "keys").mkdir()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        _install(self.directory / "venv")
        host_key = self._make_key("host_key")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key.public}")
        config = self.directory / "sshd_config"
        config.write_text(
            CONFIG.format(port=self.port, dir=self.directory)
            + "".join(f"{line}\n" for line in self._settings)
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [_program("sshd"), "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_for_port()

    def close(self) -> None:
        if self._process is not None:
            for pid in descendants(self._process.pid):
                _kill(pid)
            self._process.kill()
            self._process.wait()
        for name in self._names:
            _remove_account(name)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.directory / "sshd.log"

    def account(self, *, shell: str = "/bin/bash", rc: str = "") -> Account:
        """A new account; `rc` is what its .bashrc holds, which bash reads for forced commands too."""
        name = f"saia-t{secrets.token_hex(4)}"
        self._names.append(name)
        home = self.directory / name
        _user_program("useradd", "-M", "-U", "-p", "*", "-d", str(home), "-s", shell, name)
        entry = pwd.getpwnam(name)
        account = Account(name, entry.pw_uid, entry.pw_gid, home)
        home.mkdir(mode=0o755)
        if rc:
            (home / ".bashrc").write_text(rc)
        return account

    def key(self) -> Key:
        """A new key pair for a client."""
        return self._make_key(f"client_{secrets.token_hex(4)}")

    def authorize(self, account: Account, line: str) -> None:
        """Adds a line to the account's authorized keys."""
        path = self.directory / "keys" / account.name
        path.write_text((path.read_text() if path.exists() else "") + line + "\n")
        path.chmod(0o644)

    def command(self, account: Account, key: Key, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        """An `ssh` that uses this key and the pinned host key only."""
        return [_program("ssh"), *self.client_options(key), "-p", str(self.port), *options,
                f"{account.name}@127.0.0.1", *words]  # fmt: skip

    def client_options(self, key: Key) -> list[str]:
        """Options that ssh, scp and sftp have in common."""
        settings = (
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        return [
            "-F",
            "none",
            "-i",
            str(key.path),
            *(word for setting in settings for word in ("-o", setting)),
        ]

    def run(
        self, account: Account, key: Key, *words: str, options: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(account, key, *words, options=options),
            input=b"",
            capture_output=True,
            timeout=20,
            env={"PATH": SYSTEM_PATH, **environment},
        )

    def _make_key(self, name: str) -> Key:
        path = self.directory / name
        subprocess.run(
            [_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True
        )
        return Key(path, path.with_suffix(".pub").read_text())

    def _wait_for_port(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SshdUnavailable(f"sshd did not start: {self.log.read_text()[-500:]}") from None
                time.sleep(0.02)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise SshdUnavailable("a real sshd with accounts of its own needs root")
    missing = [program for program in PROGRAMS if shutil.which(program, path=SYSTEM_PATH) is None]
    if missing:
        raise SshdUnavailable(f"a real sshd needs {', '.join(missing)} (tests/system_deps installs them)")


def _program(name: str) -> str:
    found = shutil.which(name, path=SYSTEM_PATH)
    assert found is not None, name
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _user_program(name: str, *words: str) -> None:
    """useradd and userdel lock the password file: another test may hold it for a moment."""
    for _ in range(100):
        done = subprocess.run([_program(name), *words], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "try again" not in done.stderr and "lock" not in done.stderr:
            break
        time.sleep(0.1)
    raise SshdUnavailable(f"{name} failed: {done.stderr.strip()}")


def _install(venv: Path) -> None:
    """A virtual environment for all accounts: this checkout may lie where they can't go."""
    subprocess.run([_python_for_all(), "-m", "venv", "--without-pip", str(venv)], check=True)
    site = next(venv.glob("lib/python3*/site-packages"))
    for name in GATE_NEEDS:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    for info in Path(importlib.util.find_spec("msgspec").origin).parent.parent.glob("saia-*.dist-info"):  # type: ignore
        shutil.copytree(info, site / info.name)


def _python_for_all() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (getattr(sys, "_base_executable", sys.executable), f"/usr/local/bin/python{version}",
                      f"/usr/bin/python{version}"):  # fmt: skip
        check = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", check],
                capture_output=True,
                text=True,
                cwd="/",
                user=NOBODY,
                group=NOBODY,
                extra_groups=(),
            )
        except OSError:
            continue
        if done.stdout.strip() == version:
            return candidate
    raise SshdUnavailable(f"there is no Python {version} that other accounts may run")


def descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
        waiting += map(int, children)
    return found


def _remove_account(name: str) -> None:
    """With all that it runs, where it was made at all."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    _end_processes(uid)
    _user_program("userdel", name)
    for left in Path("/dev/shm").glob(f"saia-gate-{uid}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _end_processes(uid: int) -> None:
    """Whatever still runs as an account that is to be removed."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if entry.stat().st_uid == uid:
                _kill(int(entry.name))
        except OSError:
            continue


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
