"""`saia-tui --drill` as an operator goes through it by docs/tui.md: each thing in so many keys, and no more."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saia_engine.demo.drill import REASON
from tests.pty.terminal import Terminal, terminal

pytestmark = [pytest.mark.pty, pytest.mark.timeout(240)]

MOST_KEYS = 10
HAPPENS_WITHIN_S = 60
HELD = "u revokes it"


class Operator:
    """Presses the keys that the documentation names, one at a time, each once the last has shown."""

    def __init__(self, window: Terminal) -> None:
        self._window = window

    def does(self, *keys: tuple[str, str]) -> str:
        """Each key, and what the screen then shows."""
        assert len(keys) <= MOST_KEYS
        screen = ""
        for key, shown in keys:
            self._window.press(key)
            screen = self._window.wait(shown)
        return screen

    def leaves(self, window: str) -> None:
        self._window.press("Escape")
        self._window.until(lambda screen: window not in screen, "what was behind the window")
        self.does(("q", "exit code 0"))

    def waits_until(self, good: Callable[[str], bool], what: str) -> None:
        self._window.until(good, what, within_s=HAPPENS_WITHIN_S)

    def waits(self, *shown: str) -> str:
        return self._window.wait(*shown, within_s=HAPPENS_WITHIN_S)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with terminal(tmp_path, [sys.executable, "-m", "saia_tui.cli", "--drill"], size=(100, 30)) as window:
        yield Operator(window)


def test_the_night_of_the_drill(operator: Operator) -> None:
    operator.waits("1 of 2 replicas ready", "▲ degraded", "auto_revert is off")

    # Why is chat degraded?
    page = operator.does(("Enter", "▲ unready"), ("Enter", "EVENTS, the newest first"))
    assert "no answer to /health within" in page

    # Replace it.
    operator.does(("W", "ARMED"), ("R", "saia-engine replace"), ("y", HELD))
    operator.does(("1", "ALARM"))
    operator.waits_until(lambda screen: bool(re.search(r"chat +● ok +2/2", screen)), "chat well again")

    # Roll the bad configuration of embed back.
    operator.does(
        ("2", "[2 Services]"),
        ("j", "▸ embed"),
        ("B", "Roll back embed"),
        ("Enter", "saia-engine rollback"),
        ("y", HELD),
    )

    operator.does(("1", "[1 Overview]"))
    operator.waits("instead of")

    # One more of embed.
    operator.does(
        ("2", "▸ embed"),
        ("s", "replicas:"),
        ("3", "replicas: 3"),
        ("Enter", "saia-engine scale embed 3"),
        ("y", HELD),
    )
    operator.waits("3/3")

    # Who asked for that configuration?
    operator.does(("6", "[6 Events]"), ("p", "config"))
    told = operator.does(("End", "▸"), ("Enter", "─ config"))
    assert REASON in " ".join(told.replace("│", " ").split()) and "uid" in told, told
    operator.leaves("─ config")
