"""The one door to the screen: whatever comes from outside becomes a clean rich `Text` here."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells
from rich.text import Text

from saia_engine.edge.text import clean
from saia_tui.palette import STYLES, state

SPARKS = "▁▂▃▄▅▆▇"
"""Without the full block: bars of two rows never touch."""
UNKNOWN = "–"


def text(value: object, style: str = "") -> Text:
    """One line of clean text; never parsed as markup."""
    return Text(clean(str(value)), STYLES[style], no_wrap=True, end="")


def known(value: object | None, style: str = "") -> Text:
    """The value, or a faint dash where it is unknown: unknown is never shown as zero."""
    return text(UNKNOWN, "faint") if value is None or value == "" else text(value, style)


def count(value: int, style: str = "") -> Text:
    """A number that is quiet while it is zero."""
    return text(f"{value:,}", style if value else "faint")


def join(*parts: Text | str) -> Text:
    """Parts in a row; plain strings are our own words."""
    line = Text(no_wrap=True, end="")
    for part in parts:
        line.append_text(part) if isinstance(part, Text) else line.append(part, STYLES[""])
    return line


def state_cell(word: str) -> Text:
    """Mark and word, so that the state can be told without colour."""
    mark, style = state(word)
    return text(f"{mark} {word}", style)


def sparkline(values: Sequence[float], width: int, style: str = "ours") -> Text:
    """The newest values as bars from zero to the highest, on a faint base line `width` long."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return text(SPARKS[0] * width, "faint")
    bars = "".join(SPARKS[round(value / top * (len(SPARKS) - 1))] for value in shown)
    return join(text(SPARKS[0] * (width - len(shown)), "faint"), text(bars, style))


def gpu_cells(total: int, ours: int, allocated: int, width: int, *, usable: bool = True) -> Text:
    """One cell per GPU: `■` ours, `▣` others', `□` free; as numbers where there are more than cells."""
    others = max(0, allocated - ours)
    free = max(0, total - ours - others)
    if total > width:
        return text(f"{ours}+{others}/{total}", "ours" if ours else "quiet")
    rest = text("□" * free, "ok") if usable else text("×" * free, "faint")
    return join(text("■" * ours, "ours"), text("▣" * others, "quiet"), rest)


def heat_cells(marks: str, percents: Sequence[float | None], width: int) -> Text:
    """One GPU after the other: the use of those that report one as a shade, with its number where there is room;
    the others by their mark (`■` ours, `▣` others', `□` free, `×` not usable)."""
    roomy = width >= len(marks) * 4
    parts: list[Text] = []
    for number, mark in enumerate(marks):
        percent = percents[number] if number < len(percents) else None
        if mark == "■" and percent is not None:
            parts.append(shade(percent))
            parts.append(text(f"{percent:<3.0f}" if roomy else "", "quiet"))
        else:
            parts.append(text(mark, GPU_STYLES[mark]))
            parts.append(text("   " if roomy else ""))
    return join(*parts)


GPU_STYLES = {"■": "ours", "▣": "quiet", "□": "ok", "×": "faint"}


def gpu_marks(total: int, ours: int, allocated: int, *, usable: bool = True) -> str:
    """Ours first, then others', then what is free."""
    others = max(0, allocated - ours)
    free = max(0, total - ours - others)
    return "■" * ours + "▣" * others + ("□" if usable else "×") * free


def meter(percent: float | None, width: int) -> Text:
    """A bar with its number; a dash where nobody reports."""
    if percent is None:
        return known(None)
    filled = min(width, max(0, round(percent / 100 * width)))
    return join(
        text("━" * filled, "ours"), text("─" * (width - filled), "faint"), text(f"{percent:4.0f}%", "quiet")
    )


def fold(words: str, width: int) -> list[str]:
    """Clean words in lines of at most `width` cells (2 or more), at spaces where it can be; never none."""
    lines: list[str] = []
    line, used = "", -1
    for word in words.split(" "):
        cells = cell_len(word)
        if used + 1 + cells <= width:
            line, used = (f"{line} {word}" if used >= 0 else word), used + 1 + cells
            continue
        if used >= 0:
            lines.append(line)
        *full, line = chop_cells(word, width) or [word]
        lines += full
        used = cell_len(line)
    return [*lines, line]


SHADES = "░▒▓█"


def shade(percent: float | None, style: str = "ours") -> Text:
    """One cell: `░` to `█` by quarters, `·` for idle, a dash where nobody reports."""
    if percent is None:
        return known(None)
    if percent < 1:
        return text("·", "faint")
    return text(SHADES[min(3, int(percent // 25))], style)


def gpu_bar(percent: float | None, width: int, style: str = "ours") -> Text:
    """A bar of full blocks with a shaded end."""
    if percent is None:
        return known(None)
    filled, rest = divmod(min(100.0, max(0.0, percent)) / 100 * width, 1)
    bar = "█" * int(filled) + (SHADES[int(rest * 4)] if rest >= 0.25 and filled < width else "")
    return join(text(bar, style), text("·" * (width - len(bar)), "faint"))
