"""Flags about the terminal, and how they meet the settings and the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from saia_tui import settings
from saia_tui.settings import Settings
from saia_tui.terminal import THEMES, Terminal, Wishes, chosen

_OPTIONS = (
    click.option("--theme", type=click.Choice(THEMES), help="Colours; `ansi` takes the terminal's own 16."),
    click.option("--no-color", "no_color", is_flag=True, help="The same as --theme none."),
    click.option("--ascii/--no-ascii", default=None, help="Nothing but ASCII; else the locale decides."),
    click.option("--mouse/--no-mouse", default=None, help="By default not in tmux and screen."),
    click.option("--low-bandwidth/--full-bandwidth", default=None, help="For bad lines: fewer repaints."),
    click.option("--bell/--no-bell", default=None, help="Ring once for each new critical alarm."),
    click.option(
        "--tui-config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings of the screen, by default ~/.config/saia/tui.toml.",
    ),
)


def terminal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; `taken` reads them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def taken(flags: Mapping[str, Any]) -> tuple[Settings, Terminal]:
    """Flags come first, then the settings, then what the environment says. Raises ConfigFaults."""
    read = settings.read(flags["tui_config"])
    asked = Wishes(
        theme="none" if flags["no_color"] else flags["theme"],
        ascii=flags["ascii"],
        mouse=flags["mouse"],
        low_bandwidth=flags["low_bandwidth"],
        bell=flags["bell"],
    )
    return read, chosen(asked.over(read.terminal), os.environ)
