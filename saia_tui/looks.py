"""The looks of the screen: styles by meaning, each for one kind of terminal.

`dark` and `light` bring their own colours; `ansi` takes the 16 of the terminal, on its own background; `none` sends
no colour at all: there bold, dim and reverse stand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme


@dataclass(frozen=True, slots=True)
class Look:
    name: str
    theme: Theme
    """For Textual's own widgets."""
    styles: Mapping[str, Style]
    colours: bool = True
    """False: every colour is taken out before it is sent."""
    plain_cursor: bool = False
    """The row under the cursor has one style; colours of cells would be illegible there."""


def _rich(
    name: str,
    *,
    background: str,
    raised: str,
    cursor: str,
    foreground: str,
    strong: str,
    quiet: str,
    faint: str,
    ok: str,
    busy: str,
    warn: str,
    bad: str,
    ours: str,
    alert: str,
    bar: str,
) -> Look:
    """A look of 24-bit colours; Textual finds the nearest ones where a terminal has only 256."""
    theme = Theme(
        name=f"saia-{name}",
        primary=busy,
        secondary=ours,
        accent=busy,
        foreground=foreground,
        background=background,
        surface=raised,
        panel=raised,
        success=ok,
        warning=warn,
        error=bad,
        dark=name == "dark",
        variables={"scrollbar": bar, "scrollbar-background": background, "scrollbar-hover": faint},
    )
    styles = {
        "": Style(color=foreground),
        "strong": Style(color=strong, bold=True),
        "quiet": Style(color=quiet),
        "faint": Style(color=faint),
        "ok": Style(color=ok),
        "busy": Style(color=busy),
        "warn": Style(color=warn),
        "bad": Style(color=bad, bold=True),
        "ours": Style(color=ours),
        "key": Style(color=busy, bold=True),
        "title": Style(color=busy, bold=True),
        "header": Style(color=quiet, bold=True),
        "alert": Style(color=background, bgcolor=alert, bold=True),
        "tab": Style(color=background, bgcolor=busy, bold=True),
        "cursor": Style(bgcolor=cursor),
        "stale": Style(color=faint, dim=True),
    }
    return Look(name, theme, styles)


DARK: Final = _rich(
    "dark", background="#0f1419", raised="#18202a", cursor="#24405c", foreground="#d0d7de", strong="#ffffff",
    quiet="#8b97a5", faint="#5b6775", ok="#5fd38d", busy="#7cc4fa", warn="#f2c14e", bad="#ff7b72", ours="#56d4c8",
    alert="#f2c14e", bar="#2c3845",
)  # fmt: skip
LIGHT: Final = _rich(
    "light", background="#ffffff", raised="#eef1f4", cursor="#cfe3fb", foreground="#1f2328", strong="#000000",
    quiet="#57606a", faint="#818b96", ok="#1a7f37", busy="#0959b8", warn="#8a5700", bad="#c01824", ours="#0b6e70",
    alert="#a34100", bar="#c3cbd4",
)  # fmt: skip

_ANSI_VARIABLES: Final = {
    **BUILTIN_THEMES["ansi-dark"].variables,
    "ansi-background": "ansi_default",
    "ansi-foreground": "ansi_default",
    "block-cursor-foreground": "ansi_black",
    "block-cursor-background": "ansi_cyan",
    "border-blurred": "ansi_default",
    "input-cursor-background": "ansi_default",
    "input-cursor-foreground": "ansi_default",
    "input-cursor-text-style": "reverse",
    "input-selection-background": "ansi_cyan",
    "input-selection-foreground": "ansi_black",
    "scrollbar": "ansi_bright_black",
    "scrollbar-hover": "ansi_white",
    "scrollbar-active": "ansi_white",
    "scrollbar-background": "ansi_default",
    "scrollbar-background-hover": "ansi_default",
    "scrollbar-background-active": "ansi_default",
    "scrollbar-corner-color": "ansi_default",
}


def _terminals_own(name: str) -> Theme:
    """Of the terminal's own colours, on its own background."""
    return Theme(
        name=f"saia-{name}",
        ansi=True,
        primary="ansi_bright_blue",
        secondary="ansi_cyan",
        accent="ansi_bright_blue",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        variables=_ANSI_VARIABLES,
    )


ANSI: Final = Look(
    "ansi",
    _terminals_own("ansi"),
    {
        "": Style(),
        "strong": Style(bold=True),
        "quiet": Style(),
        "faint": Style(dim=True),
        "ok": Style(color="green"),
        "busy": Style(color="bright_blue"),
        "warn": Style(color="yellow"),
        "bad": Style(color="red", bold=True),
        "ours": Style(color="cyan"),
        "key": Style(color="bright_blue", bold=True),
        "title": Style(color="bright_blue", bold=True),
        "header": Style(bold=True),
        "alert": Style(color="black", bgcolor="yellow"),
        "tab": Style(color="black", bgcolor="cyan"),
        "cursor": Style(color="black", bgcolor="cyan"),
        "stale": Style(dim=True),
    },
    plain_cursor=True,
)
NONE: Final = Look(
    "none",
    _terminals_own("none"),
    {
        "": Style(),
        "strong": Style(bold=True),
        "quiet": Style(),
        "faint": Style(dim=True),
        "ok": Style(),
        "busy": Style(),
        "warn": Style(),
        "bad": Style(bold=True),
        "ours": Style(),
        "key": Style(bold=True),
        "title": Style(bold=True),
        "header": Style(),
        "alert": Style(bold=True, reverse=True),
        "tab": Style(bold=True, reverse=True),
        "cursor": Style(reverse=True),
        "stale": Style(dim=True),
    },
    colours=False,
    plain_cursor=True,
)
LOOKS: Final = {look.name: look for look in (DARK, LIGHT, ANSI, NONE)}
