"""The engine's own directories, its installation id and its user."""

from __future__ import annotations

import os
import pwd
import re
import secrets
from pathlib import Path

from saia_engine.api.sockets import group_id
from saia_engine.config import Config
from saia_engine.edge.files import write_atomically

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")


class SiteFault(Exception):
    """A directory can't be used; the text says which and why."""


def prepare(config: Config) -> None:
    """Make the directories that are missing, with the modes that keep others out. Raises SiteFault."""
    paths = config.paths
    try:
        paths.shared_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.instances_dir.mkdir(mode=0o700, exist_ok=True)
        # The gate's account passes through state_dir to its own directory, and sees nothing else there.
        paths.state_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        paths.gate_dir.mkdir(mode=0o750, exist_ok=True)
    except OSError as exc:
        raise SiteFault(f"{exc.filename}: {exc.strerror}: make it, or give it to the engine's user") from exc
    _give_to_gate(paths.gate_dir, config.gate_group)


def _give_to_gate(directory: Path, group: str) -> None:
    gid = group_id(group)
    try:
        if gid is not None and directory.stat().st_gid != gid:
            directory.chmod(0o750)
            os.chown(directory, -1, gid)
    except OSError as exc:
        raise SiteFault(
            f"cannot give {directory} to the group {group} ({exc.strerror}): the engine's user must be a member of it"
        ) from exc


def installation_id(config: Config) -> str:
    """The configured one, or the one made at the first start and kept in `shared_dir`. Raises SiteFault."""
    if config.installation:
        return config.installation
    file = config.paths.shared_dir / "installation"
    try:
        if not file.exists():
            write_atomically(file, f"{secrets.token_hex(4)}\n".encode(), mode=0o600)
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SiteFault(f"{file}: {exc}") from exc
    if not _ID.fullmatch(text):
        raise SiteFault(f"{file} does not hold an installation id; restore it, or set cluster.installation")
    return text


def user() -> str:
    """The name under which the engine, and so its jobs, run."""
    return pwd.getpwuid(os.geteuid()).pw_name
