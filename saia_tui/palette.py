"""Styles and marks by meaning. A state always has a mark and a word too: colour only helps."""

from __future__ import annotations

from rich.style import Style

from saia_tui.looks import DARK, Look

STYLES: dict[str, Style] = dict(DARK.styles)
"""Of the look in use: read it when painting, never at import."""

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

_look = DARK


def use(look: Look) -> None:
    """From now on everything is painted in this look; who keeps painted lines must forget them."""
    global _look
    _look = look
    STYLES.clear()
    STYLES.update(look.styles)


def look_in_use() -> Look:
    return _look


def state(word: str) -> tuple[str, str]:
    return STATES.get(word, ("·", "quiet"))


def on_cursor(style: Style | None) -> Style | None:
    """A cell's style on the row under the cursor, where faint words would vanish."""
    if _look.plain_cursor:
        return Style(bold=True) if style is not None and style.bold else None
    return STYLES["quiet"] if style == STYLES["faint"] else style
