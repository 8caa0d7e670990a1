"""Windows to read: the help, and all fields of one row."""

from __future__ import annotations

from itertools import groupby
from typing import Any, ClassVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from saia_tui import moments
from saia_tui.actions import ACTIONS, shown_keys
from saia_tui.cells import gpu_cells, join, text
from saia_tui.windows.window import Window, facts

TIMES = (
    "since", "started_at", "ready_since", "end", "admit_until", "drain_by", "submit_time", "start_time",
    "end_time", "connected_since", "at", "next_end", "override_at",
)  # fmt: skip
MARKS = (
    ("● ok, ready", "ok"), ("▲ degraded, unready", "warn"), ("✖ down, failed", "bad"), ("◑ starting", "busy"),
    ("◔ pending", "quiet"), ("▽ draining", "busy"), ("○ stopped", "faint"),
)  # fmt: skip


class Readable(Vertical, can_focus=True):
    """Scrolls by the arrow keys."""


class Page(Window[None]):
    BINDINGS: ClassVar = [Binding("q,enter,question_mark", "cancel", show=False)]
    AUTO_FOCUS = "Readable"

    def __init__(self, title: str, body: Text) -> None:
        super().__init__()
        self._title = title
        self._body = body

    def compose(self) -> ComposeResult:
        with Readable() as box:
            box.border_title = Content(text(self._title).plain)
            yield Static(self._body)


def help_page() -> Page:
    lines: list[Text] = []
    for group, actions in groupby(
        sorted(ACTIONS, key=lambda each: _first(each.group)), lambda each: each.group
    ):
        lines.append(text(group, "title"))
        for action in actions:
            where = f"  ({', '.join(action.on)})" if action.on else ""
            keys = " ".join(shown_keys(action))
            lines.append(join(text(f"  {keys:<12}", "key"), text(action.help), text(where, "faint")))
    lines.append(text("Signs", "title"))
    lines.append(join("  ", *(text(words + "   ", style) for words, style in MARKS[:4])))
    lines.append(join("  ", *(text(words + "   ", style) for words, style in MARKS[4:])))
    lines.append(
        join("  GPUs: ", gpu_cells(4, 2, 3, 4), text("  ■ ours  ▣ others'  □ free  × not usable", "quiet"))
    )
    lines.append(text("  READY 2/3* has an override; a column with ~ is a proxy's own word", "quiet"))
    return Page("Help", Text("\n").join(lines))


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
        return ", ".join(_gpu(each) if not isinstance(each, str) else each for each in value)
    return str(value)


def _moment(at: float, now: float) -> str:
    distance = f"in {moments.countdown(at - now)}" if at > now else f"{moments.age(now - at)} ago"
    return f"{moments.clock(at, now).strip()}  ({distance})"


def _gpu(gpu: Any) -> str:
    use = "?" if gpu.utilisation_percent is None else f"{gpu.utilisation_percent:.0f}%"
    return f"{gpu.index}: {use}"
