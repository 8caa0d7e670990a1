"""Accounts of this machine for the time of a test."""

from __future__ import annotations

import grp
import itertools
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
PREFIX = "saia-t"
OURS = re.compile(rf"{PREFIX}(\d+)-[a-z]+\d*")
BUSY_LIMIT_S = 20.0
BUSY = (1, 8, 10)
"""Exit codes: /etc/passwd is locked, a process of the user still runs, /etc/group is locked."""
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int
    groups: tuple[str, ...] = ()

    def argv(self, *command: str) -> list[str]:
        """What a root process executes to become `command`, run by this account."""
        return ["/usr/bin/setpriv", f"--reuid={self.name}", f"--regid={self.gid}", "--init-groups", *command]


class Accounts:
    """Users and groups that are removed at the end, with those that a killed test run has left. A context manager."""

    def __init__(self) -> None:
        self._users: list[str] = []
        self._groups: list[str] = []

    def __enter__(self) -> Self:
        forget_the_dead()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._users:
            uid = pwd.getpwnam(name).pw_uid
            _change("userdel", name)
            for slots in Path("/dev/shm").glob(f"saia-gate-{uid}-*"):  # of gates that it ran
                shutil.rmtree(slots, ignore_errors=True)
        for name in self._groups:
            _change("groupdel", name)

    def user(self, role: str, groups: Iterable[str] = (), home: str = "/nonexistent") -> Account:
        """A new user with a group of its own; `*` for its password: sshd takes no locked account's key."""
        name = _new_name(role)
        more = tuple(groups)
        _change(
            "useradd", "--no-create-home", "--user-group", "--password=*", "--shell=/bin/bash",
            f"--home-dir={home}", f"--groups={','.join(more)}", name,
        )  # fmt: skip
        self._users.append(name)
        found = pwd.getpwnam(name)
        return Account(name, found.pw_uid, found.pw_gid, more)

    def group(self, role: str) -> str:
        name = _new_name(role)
        _change("groupadd", name)
        self._groups.append(name)
        return name


def forget_the_dead() -> None:
    """Remove the accounts of test runs that have ended without doing so."""
    for user in pwd.getpwall():
        if _is_dead(user.pw_name):
            _change("userdel", user.pw_name, missing_ok=True)
    for group in grp.getgrall():
        if _is_dead(group.gr_name):
            _change("groupdel", group.gr_name, missing_ok=True)


def _is_dead(name: str) -> bool:
    found = OURS.fullmatch(name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    return False


def _new_name(role: str) -> str:
    return f"{PREFIX}{os.getpid()}-{role}{next(_numbers)}"


def _change(program: str, *options: str, missing_ok: bool = False) -> None:
    """Run it, again while it is busy."""
    deadline = time.monotonic() + BUSY_LIMIT_S
    while True:
        done = subprocess.run([program, *options], env={"PATH": SBIN}, capture_output=True, text=True)
        if done.returncode == 0 or (missing_ok and done.returncode == 6):
            return
        if done.returncode not in BUSY or time.monotonic() > deadline:
            raise RuntimeError(f"{program} {' '.join(options)}: {done.stderr.strip()}")
        time.sleep(0.2)
