"""The program as its terminal lets it appear: the look, which can be changed while it runs, and what is sent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from rich.segment import Segment
from rich.style import Style
from textual import on
from textual.app import App
from textual.color import Color
from textual.events import DescendantFocus
from textual.filter import LineFilter
from textual.widgets import Input

from saia_tui import clipboard, keymap, palette
from saia_tui.looks import LOOKS, Look
from saia_tui.settings import Settings
from saia_tui.signs import AsciiOnly
from saia_tui.terminal import THEMES, Terminal
from saia_tui.widgets.row_table import RowTable
from saia_tui.widgets.tidy import Tidy

REPAINT_S: Final = 0.25
SLOW_REPAINT_S: Final = 2.0


class Themed(App[str]):
    """`terminal` is what was chosen at the start; `look` is what is worn now."""

    DEFAULT_CSS = """
    .low-bandwidth Window { background: $background; }
    .low-bandwidth RowTable, .low-bandwidth Readable { scrollbar-size-vertical: 0; }
    """

    def __init__(self, terminal: Terminal, settings: Settings) -> None:
        os.environ.pop("NO_COLOR", None)  # Textual would turn it into shades of grey
        super().__init__()
        self.terminal = terminal
        self.settings = settings
        keymap.put_in_force(self, settings.keys)
        self._ascii_only = AsciiOnly(enabled=terminal.ascii)
        self._colourless = Colourless()
        self._tidy = Tidy()
        for look in LOOKS.values():
            self.register_theme(look.theme)
        self.wear(LOOKS[terminal.theme])
        self.set_class(terminal.low_bandwidth, "low-bandwidth")
        if terminal.low_bandwidth:
            self.animation_level = "none"

    @property
    def repaint_s(self) -> float:
        """Seconds between two looks at what changed."""
        return SLOW_REPAINT_S if self.terminal.low_bandwidth else REPAINT_S

    @property
    def look(self) -> Look:
        return palette.look_in_use()

    def wear(self, look: Look) -> None:
        """Show everything in this look from now on."""
        palette.use(look)
        self._colourless.enabled = not look.colours
        self.theme = look.theme.name
        for screen in self.screen_stack if self.is_running else ():
            for table in screen.query(RowTable):
                table.forget_painted()
            screen.refresh(layout=True)

    @on(DescendantFocus)
    def _no_blinking(self, event: DescendantFocus) -> None:
        if self.terminal.low_bandwidth and isinstance(event.widget, Input):
            event.widget.cursor_blink = False

    def action_next_theme(self) -> None:
        names = list(THEMES)
        self.wear(LOOKS[names[(names.index(self.look.name) + 1) % len(names)]])

    async def copy(self, words: str) -> None:
        """To the clipboard of the terminal, which may refuse without a word."""
        in_tmux = bool(os.environ.get("TMUX")) and await clipboard.tell_tmux(words)
        if self._driver is not None and not in_tmux:
            self._driver.write(clipboard.sequence(words, os.environ))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What every line passes before it is sent."""
        own = (self._colourless, self._ascii_only, self._tidy)
        return [*super().get_line_filters(), *(each for each in own if each.enabled)]


class Colourless(LineFilter):
    """Takes every colour out; bold, dim, underline and reverse stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(words, _plain(style), control) for words, style, control in segments]


@lru_cache(1024)
def _plain(style: Style | None) -> Style | None:
    if style is None:
        return None
    return style.without_color + Style(meta=style.meta) if style.meta else style.without_color
