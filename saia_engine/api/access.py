"""Who may give orders: the one check that every call of `operator.sock` passes."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from saia_engine.api.port import Refused


@dataclass(frozen=True, slots=True)
class Operators:
    """root, the engine's own user, and the members of one group; None: no group."""

    gid: int | None = None

    def authorize(self, uid: int, verb: str, subject: str = "") -> None:
        """Raises Refused. May ask the user database, which can block: call it in a thread."""
        if uid in (0, os.geteuid()):
            return
        if self.gid is None or self.gid not in _groups(uid):
            about = f" {subject}" if subject else ""
            raise Refused("not_allowed", f"uid {uid} is not an operator: it may not {verb}{about}", 403)


def _groups(uid: int) -> list[int]:
    try:
        user = pwd.getpwuid(uid)
        return os.getgrouplist(user.pw_name, user.pw_gid)
    except (KeyError, OSError):
        return []
