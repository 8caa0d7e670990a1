"""A real terminal: a tmux server of its own, with one window that runs one command."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_numbers = count()


def need_tmux() -> None:
    if shutil.which("tmux") is None:
        if os.environ.get("SAIA_REQUIRE_REAL") == "1":
            pytest.fail("tmux is missing, and SAIA_REQUIRE_REAL=1 allows no skip")
        pytest.skip("needs tmux")


class Terminal:
    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments]
        # A fixed size in the environment, which pytest may bring, would keep programs from following a resize.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, env=environment
        )
        return done.stdout

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-t", "saia")

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", "-t", "saia", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-t", "saia", "-x", str(columns), "-y", str(lines))

    def wait(self, *parts: str, within_s: float = 20.0) -> str:
        """Until the screen shows all these parts; its text."""
        return self.until(lambda screen: all(part in screen for part in parts), str(parts), within_s)

    def until(self, good: Callable[[str], bool], what: str, within_s: float = 20.0) -> str:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if good(screen := self.screen()):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"the screen never showed {what}:\n{self.screen()}")


def own_home(directory: Path, *, knows_saia: bool = True) -> dict[str, str]:
    """Places for settings and state apart from those of who runs the tests, of an operator who is not new."""
    state = directory / "home-state" / "saia"
    state.mkdir(parents=True, exist_ok=True)
    if knows_saia:
        (state / "tui.json").write_text('{"tour": {"seen": true}}')
    return {"XDG_STATE_HOME": str(state.parent), "XDG_CONFIG_HOME": str(directory / "home-config")}


@contextmanager
def terminal(
    directory: Path,
    command: list[str],
    *,
    size: tuple[int, int] = (120, 40),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Runs the command; its exit code is written after it, as `exit code N`."""
    need_tmux()
    window = Terminal(directory / f"tmux{next(_numbers)}.sock")
    line = shlex.join(command) + "; echo exit code $?; exec sleep 600"
    fixed = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "TEXTUAL_ANIMATIONS": "none"}
    environment = fixed | own_home(directory) | dict(environment or {})
    options = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
    window.tmux("new-session", "-d", "-s", "saia", "-x", str(size[0]), "-y", str(size[1]), *options, line)
    try:
        yield window
    finally:
        subprocess.run(["tmux", "-S", str(window._socket), "kill-server"], capture_output=True, check=False)
