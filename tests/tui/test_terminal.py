"""What is chosen for which terminal."""

from __future__ import annotations

import pytest

from saia_tui.terminal import Terminal, Wishes, chosen, is_dumb

UTF8 = {"TERM": "xterm-256color", "LANG": "de_DE.UTF-8"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (UTF8, Terminal("dark")),
        (UTF8 | {"NO_COLOR": "1"}, Terminal("none")),
        (UTF8 | {"NO_COLOR": ""}, Terminal("dark")),
        ({"TERM": "xterm", "LANG": "C.UTF-8"}, Terminal("ansi")),
        ({"TERM": "xterm", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}, Terminal("dark")),
        ({"TERM": "screen", "STY": "1.pts", "LANG": "en_US"}, Terminal("ansi", mouse=False)),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/s,1,0"}, Terminal("dark", mouse=False)),
        (UTF8 | {"LC_ALL": "C"}, Terminal("dark", ascii=True)),
        (UTF8 | {"LC_CTYPE": "POSIX"}, Terminal("dark", ascii=True)),
        (UTF8 | {"LC_ALL": "de_DE.ISO-8859-15@euro"}, Terminal("dark", ascii=True)),
        (UTF8 | {"LC_ALL": "", "LANG": "en_US.utf8"}, Terminal("dark")),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, Terminal("ansi", ascii=True)),
    ],
)
def test_the_environment_decides_what_nobody_asked_for(environ: dict[str, str], expected: Terminal) -> None:
    assert chosen(Wishes(), environ) == expected


def test_wishes_come_first() -> None:
    environ = UTF8 | {"NO_COLOR": "1", "LC_ALL": "C", "TMUX": "x"}
    asked = Wishes("light", ascii=False, mouse=True, low_bandwidth=True, bell=True)
    assert chosen(asked, environ) == Terminal("light", mouse=True, low_bandwidth=True, bell=True)


def test_flags_stand_over_the_file() -> None:
    flags, file = Wishes(theme="light", mouse=False), Wishes(theme="none", mouse=True, bell=True)
    assert flags.over(file) == Wishes(theme="light", mouse=False, bell=True)


@pytest.mark.parametrize(
    ("environ", "dumb"), [({}, True), ({"TERM": "dumb"}, True), ({"TERM": "screen"}, False)]
)
def test_a_dumb_terminal_is_known(environ: dict[str, str], dumb: bool) -> None:
    assert is_dumb(environ) is dumb
