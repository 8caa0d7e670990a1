"""The sockets' files: directories that nobody else can swap, modes that hold from the first moment, no leftovers."""

from __future__ import annotations

import grp
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

RUNTIME_MODE = 0o711
DIRECTORY_MODE = 0o750
UMASK = 0o117
"""Sockets are made 0660."""
ANSWER_S = 2.0


class SocketFault(Exception):
    """A socket can't be made; the text says where, why and what to do."""


class SocketTaken(SocketFault):
    """Another process answers there."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and its file."""

    path: Path
    socket: socket.socket
    inode: int

    def close(self) -> None:
        """Stop listening, and remove the file unless another's lies there by now."""
        self.socket.close()
        try:
            if self.path.lstat().st_ino == self.inode:
                self.path.unlink()
        except OSError:
            pass


def group_id(name: str) -> int | None:
    """The gid of a group by name or number; None for the empty name. Raises SocketFault for an unknown one."""
    if not name:
        return None
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise SocketFault(
            f"there is no group {name}: create it, or name another in the configuration"
        ) from None


def bind(path: Path, gid: int | None) -> Listener:
    """A socket at `path`, 0660, in a directory 0750 below one of 0711; directories are made where missing.

    `gid` is the group of socket and directory, None the engine's own. Raises SocketFault.
    """
    gid = os.getegid() if gid is None else gid
    _prepare_directory(path.parent.parent, RUNTIME_MODE, owners=(os.geteuid(), 0))
    _prepare_directory(path.parent, DIRECTORY_MODE, owners=(os.geteuid(),), gid=gid)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(UMASK)
    try:
        listener.bind(str(path))
        os.chown(path, -1, gid)
        listener.listen(128)
        return Listener(path, listener, path.lstat().st_ino)
    except OSError as exc:
        listener.close()
        raise SocketFault(f"cannot make the socket {path}: {exc.strerror or exc}") from exc
    finally:
        os.umask(umask)


def _prepare_directory(path: Path, mode: int, *, owners: tuple[int, ...], gid: int | None = None) -> None:
    """Make it, or bring its mode and group to what they must be. Raises SocketFault where it is not ours."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        if path.is_symlink():
            raise SocketFault(f"{path} is a symbolic link: saia needs a directory of its own there") from exc
        raise SocketFault(f"cannot use the directory {path}: {exc.strerror or exc}") from exc
    try:
        now = os.fstat(directory)
        if now.st_uid not in owners:
            raise SocketFault(f"{path} belongs to uid {now.st_uid}: remove it, or name another runtime_dir")
        if now.st_uid == os.geteuid():
            if gid is not None and now.st_gid != gid:
                _give_to_group(directory, path, gid)
            os.fchmod(directory, mode)
        elif stat.S_IMODE(now.st_mode) & 0o022:
            raise SocketFault(f"others than root can write to {path}: name another runtime_dir")
    finally:
        os.close(directory)


def _give_to_group(directory: int, path: Path, gid: int) -> None:
    try:
        os.fchown(directory, -1, gid)
    except OSError as exc:
        raise SocketFault(
            f"cannot give {path} to the group {gid} ({exc.strerror}): the engine's user must be a member of it"
        ) from exc


def _remove_stale(path: Path) -> None:
    """Unlink the socket of an engine that is gone. Raises SocketTaken where one answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketFault(f"{path} is not a socket: remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as exc:
            # A full backlog, or no permission: somebody may well be there.
            raise SocketTaken(
                f"cannot tell whether an engine answers at {path}: {exc.strerror or exc}"
            ) from exc
    raise SocketTaken(f"another engine answers at {path}: use it, or stop it first")
