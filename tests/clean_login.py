"""Starts a daemon for which root has no start-up files: what this machine's do is no part of a test.

They may take a lock for seconds (version managers do) that a test's own `kill -9` then leaves behind for all others.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from functools import cache
from pathlib import Path

START_UP_FILES = (".profile", ".bash_profile", ".bash_login", ".bashrc")
HIDE = 'until [ "$1" = -- ]; do mount --bind /dev/null "$1" || exit; shift; done; shift; exec "$@"'


@cache
def files() -> tuple[str, ...]:
    """Those that are there and can be hidden: none without the right to mount."""
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    found = tuple(str(home / name) for name in START_UP_FILES if (home / name).is_file())
    if not found:
        return ()
    tried = subprocess.run(_hidden(found, ("true",)), stderr=subprocess.DEVNULL, check=False)
    return found if tried.returncode == 0 else ()


def argv(*command: str) -> list[str]:
    """What becomes `command`, under the same process id, in a mount namespace of its own."""
    return _hidden(files(), command) if files() else list(command)


def _hidden(found: tuple[str, ...], command: tuple[str, ...]) -> list[str]:
    return ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", HIDE, "sh", *found, "--", *command]
