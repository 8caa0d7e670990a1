"""Our signs in ASCII, for terminals and locales that can't show them: each twin is as wide as its sign."""

from __future__ import annotations

import unicodedata
from typing import Final

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

TWINS: Final = {
    # states
    "●": "o", "▲": "!", "✖": "X", "○": "-", "‖": "=", "◌": ".", "◔": ":", "◑": "/", "▽": "v", "·": ".",
    # GPUs and bars
    "■": "#", "▣": "@", "□": ".", "×": "x", "░": ".", "▒": ":", "▓": "%", "█": "#",
    "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "#", "▏": "|", "▕": "|", "▔": "-", "▀": "-",
    # lists
    "▸": ">", "▴": "^", "▾": "v", "≈": "~", "…": "~", "–": "-", "—": "-", "→": ">", "←": "<", "↑": "^", "↓": "v",
    "✓": "+", "≤": "<", "≥": ">", "−": "-", "•": "*", "µ": "u", "°": "o", "›": ">", "‹": "<", "⇒": ">", "◆": "*",
}  # fmt: skip
UNKNOWN: Final = "?"
_BRAILLE: Final = 0x2800
_ACROSS: Final = {"HORIZONTAL", "LEFT", "RIGHT"}
_DOWN: Final = {"VERTICAL", "UP", "DOWN"}


def ascii_twin(words: str) -> str:
    """The same cells in ASCII; a letter that has no twin is `?` in each of its cells."""
    return words if words.isascii() else words.translate(_TABLE)


class AsciiOnly(LineFilter):
    """Lets nothing but ASCII through to the terminal, whoever drew it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(ascii_twin(words), style, control) for words, style, control in segments]


class _Table(dict[int, str | int]):
    def __missing__(self, code: int) -> str | int:
        twin: str | int = code if code < 0x80 else _twin(chr(code))
        self[code] = twin
        return twin


def _twin(char: str) -> str:
    if char in TWINS:
        return TWINS[char]
    code = ord(char)
    if _BRAILLE <= code < _BRAILLE + 0x100:
        return " .:#"[((code - _BRAILLE).bit_count() + 2) // 3]
    name = unicodedata.name(char, "")
    if name.startswith("BOX DRAWINGS"):
        words = set(name.split())
        across, down = bool(words & _ACROSS), bool(words & _DOWN)
        return "+" if across == down else "-" if across else "|"
    if 0x2580 <= code < 0x25A0:
        return "#"
    return UNKNOWN * get_character_cell_size(char)


_TABLE: Final = _Table()
