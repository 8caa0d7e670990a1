"""Colours and marks by meaning. A state always has a mark and a word too: colour only helps."""

from __future__ import annotations

from rich.style import Style
from textual.theme import Theme

BACKGROUND = "#0f1419"
RAISED = "#18202a"
CURSOR = "#24405c"
FOREGROUND = "#d0d7de"
QUIET = "#8b97a5"
FAINT = "#566270"
OK = "#5fd38d"
BUSY = "#7cc4fa"
WARN = "#f2c14e"
BAD = "#ff7b72"
OURS = "#56d4c8"

THEME = Theme(
    name="saia",
    primary=BUSY,
    secondary=OURS,
    accent=BUSY,
    foreground=FOREGROUND,
    background=BACKGROUND,
    surface=RAISED,
    panel=RAISED,
    success=OK,
    warning=WARN,
    error=BAD,
    dark=True,
    variables={"scrollbar": "#2c3845", "scrollbar-background": BACKGROUND, "scrollbar-hover": "#3d4d5e"},
)

STYLES: dict[str, Style] = {
    "": Style(color=FOREGROUND),
    "strong": Style(color="#ffffff", bold=True),
    "quiet": Style(color=QUIET),
    "faint": Style(color=FAINT),
    "ok": Style(color=OK),
    "busy": Style(color=BUSY),
    "warn": Style(color=WARN),
    "bad": Style(color=BAD, bold=True),
    "ours": Style(color=OURS),
    "key": Style(color=BUSY, bold=True),
    "title": Style(color=BUSY, bold=True),
    "header": Style(color=QUIET, bold=True),
    "alert": Style(color="#14100a", bgcolor=WARN, bold=True),
    "tab": Style(color="#0b1016", bgcolor=BUSY, bold=True),
}

STATES: dict[str, tuple[str, str]] = {
    # services
    "ok": ("●", "ok"),
    "degraded": ("▲", "warn"),
    "down": ("✖", "bad"),
    "stopped": ("○", "faint"),
    "paused": ("‖", "warn"),
    "removed": ("◌", "faint"),
    # instances
    "intended": ("◌", "quiet"),
    "submitted": ("◌", "quiet"),
    "pending": ("◔", "quiet"),
    "starting": ("◑", "busy"),
    "ready": ("●", "ok"),
    "unready": ("▲", "warn"),
    "draining": ("▽", "busy"),
    "lost": ("?", "bad"),
    "failed": ("✖", "bad"),
    # alarms and events
    "critical": ("✖", "bad"),
    "warning": ("▲", "warn"),
    "info": ("·", "quiet"),
}
"""Mark and style of each state word."""


def state(word: str) -> tuple[str, str]:
    return STATES.get(word, ("·", "quiet"))
