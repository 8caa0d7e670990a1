"""Windows to read: the help, and all fields of one row."""

from __future__ import annotations

from itertools import groupby
from typing import Any, ClassVar

import msgspec
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Static

from saia_engine.model import Gpu
from saia_tui import moments
from saia_tui.actions import ACTIONS, shown_keys
from saia_tui.cells import join, text
from saia_tui.windows.window import Window, facts, label

TIMES = (
    "since", "started_at", "ready_since", "end", "admit_until", "drain_by", "submit_time", "start_time",
    "end_time", "connected_since", "at", "next_end", "override_at", "ordered_at", "said_started_at",
    "paused_at", "excluded_until",
)  # fmt: skip
MARKS = (
    ("● ok, ready", "ok"), ("▲ degraded, unready", "warn"), ("✖ down, failed", "bad"), ("◑ starting", "busy"),
    ("◔ pending", "quiet"), ("▽ draining", "busy"), ("○ stopped", "faint"),
    ("‖ paused", "warn"),
)  # fmt: skip
GPU_MARKS = (("■ ours", "ours"), ("▣ others'", "quiet"), ("□ free", "ok"), ("× not usable", "faint"))


class Readable(VerticalScroll, can_focus=True):
    """Scrolls by the keys that move in tables."""

    BINDINGS: ClassVar = [
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("space", "page_down", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]


class Page(Window[None]):
    DEFAULT_CSS = "Page > Readable { width: 104; max-width: 100%; height: auto; max-height: 100%; }"
    BINDINGS: ClassVar = [Binding("q,enter,question_mark", "cancel", show=False)]
    AUTO_FOCUS = "Readable"

    def __init__(self, title: str, body: RenderableType) -> None:
        super().__init__()
        self._title = title
        self._body = body

    def compose(self) -> ComposeResult:
        with Readable() as box:
            box.border_title = label(self._title)
            yield Static(self._body)


def help_page() -> Page:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for group, actions in groupby(
        sorted(ACTIONS, key=lambda each: _first(each.group)), lambda each: each.group
    ):
        grid.add_row(text(group, "title"))
        for action in actions:
            where = f"  on {', '.join(action.on)}" if action.on else ""
            keys = text("  " + " ".join(shown_keys(action)), "key")
            grid.add_row(keys, join(text(action.help), text(where, "faint")))
    grid.add_row(text("Signs", "title"))
    grid.add_row(
        text("  states", "quiet"), _wrapping(*(text(words + "   ", style) for words, style in MARKS))
    )
    grid.add_row(text("  GPUs", "quiet"), join(*(text(words + "   ", style) for words, style in GPU_MARKS)))
    grid.add_row(text("  2/3*", "quiet"), text("two of three ready; an operator's override holds"))
    grid.add_row(text("  NAME~", "quiet"), text("a column of the proxy's own word"))
    return Page("Help", grid)


def _wrapping(*parts: Text) -> Text:
    line = join(*parts)
    line.no_wrap = False
    return line


def _first(group: str) -> int:
    return next(number for number, action in enumerate(ACTIONS) if action.group == group)


def row_page(row: Any, now: float) -> Page:
    """Every field of a row of the state that says something."""
    fields = [
        (field.name.replace("_", " "), _shown(field.name, getattr(row, field.name), now))
        for field in msgspec.structs.fields(row)
    ]
    key = str(getattr(row, "id", None) or getattr(row, "name", None) or getattr(row, "subject", ""))
    return Page(key, facts([pair for pair in fields if pair[1]]))


def _shown(name: str, value: Any, now: float) -> str:
    if value is None or value == "" or value == []:
        return ""
    if name in TIMES and isinstance(value, int | float):
        return _moment(float(value), now) if value else ""
    if isinstance(value, list):
        return ", ".join(_part(each) for each in value)
    return str(value)


def _moment(at: float, now: float) -> str:
    distance = f"in {moments.countdown(at - now)}" if at > now else f"{moments.age(now - at)} ago"
    return f"{moments.stamp(at)}  ({distance})"


def _part(each: Any) -> str:
    if isinstance(each, str):
        return each
    return _gpu(each) if isinstance(each, Gpu) else str(getattr(each, each.__struct_fields__[0]))


def _gpu(gpu: Any) -> str:
    use = "?" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent:.0f}%"
    return f"{gpu.index}: {use}"
