"""Colours, signs and sizes as a real terminal gets them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.pty.conftest import Serve, operator_socket
from tests.pty.terminal import Terminal, own_home, terminal

pytestmark = pytest.mark.pty

COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
RGB = re.compile(r"\x1b\[(?:[0-9;]*;)?[34]8[;:][25][;:]")


def tui(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "saia_tui.cli", "--socket", str(operator_socket(directory)), *options]


def coloured(window: Terminal) -> str:
    """The screen with its sequences."""
    return window.tmux("capture-pane", "-p", "-e", "-t", "saia")


def test_no_color_sends_none(short: Path, served: Serve) -> None:
    served()
    with terminal(short, tui(short), environment={"NO_COLOR": "1"}) as window:
        window.wait("● acting", "✖ down")
        assert not COLOUR.search(coloured(window))
        window.press("W", "s")
        window.wait("replicas:")
        assert not COLOUR.search(coloured(window))


def test_16_colours_are_the_terminals_own(short: Path, served: Serve) -> None:
    served()
    with terminal(short, ["env", "TERM=screen", "COLORTERM=", *tui(short)]) as window:
        window.wait("● acting", "✖ down")
        screen = coloured(window)
        assert COLOUR.search(screen) and not RGB.search(screen)


def test_a_locale_without_our_signs_gets_ascii(short: Path, served: Serve) -> None:
    served()
    with terminal(short, tui(short), environment={"LC_ALL": "C"}) as window:
        screen = window.wait("o acting", "X down", "> ")
        assert screen.isascii()
        window.press("?")
        assert window.wait("+- Help").isascii()


def test_every_size_is_of_use_and_a_resize_is_followed(short: Path, served: Serve) -> None:
    served()
    with terminal(short, tui(short), size=(60, 15)) as window:
        small = window.wait("● acting", "✖ critical", "✖ down", "▲ degraded")
        assert "No instance is ready" in small
        window.resize(200, 60)
        window.wait("LIVE USE", "MAINTENANCE", "EVENT", "chat-large.a81f")
        window.resize(80, 24)
        window.until(lambda screen: "LIVE USE" not in screen and "EVENT" in screen, "the small layout")
        window.resize(60, 15)
        window.until(lambda screen: "✖ critical" in screen and "✖ down" in screen, "the least layout")


def test_a_new_operator_sees_the_first_page_once(short: Path, served: Serve) -> None:
    served()
    home = own_home(short / "new", knows_saia=False)
    with terminal(short, tui(short), size=(80, 24), environment=home) as window:
        window.wait("Welcome to saia", "the worst first")
        window.press("3")
        window.wait("[3 Jobs]", "88415")
    with terminal(short, tui(short), size=(80, 24), environment=home) as window:
        window.wait("● acting", "chat-large")
        assert "Welcome" not in window.screen()


def test_what_is_copied_is_in_tmuxs_buffer(short: Path, served: Serve) -> None:
    served()
    with terminal(short, tui(short)) as window:
        window.wait("● acting", "chat-large")
        window.press("Down", "y")
        window.wait("copied")
        words = window.tmux("show-buffer")
        assert "service chat-large: degraded" in words and "Desired 2 → 3 (uid 1004)" in words
