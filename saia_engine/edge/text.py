"""The one sanitiser: text from outside, made safe to show in a terminal, a table or a log.

What a terminal would obey, or a reader could not see, is shown as its escape: `\\x1b`, `\\n`, `\\u202e`.
"""

from __future__ import annotations

import re
import unicodedata

_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Invisible, though Unicode calls them letters, marks or symbols."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
CUT = "…"


def clean(value: str, limit: int = 2000) -> str:
    """One line of visible characters, at most `limit` of them (1 or more); what is longer ends in `…`.

    Escaped: control, bidi, zero-width and other format characters, surrogates, line and paragraph
    separators, private and unassigned code points. Applying it twice changes nothing.
    """
    if len(value) <= limit and value.isprintable() and (value.isascii() or not _BLANKS.search(value)):
        return value
    shown = "".join(map(_visible, value[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + CUT


def plain(value: object, limit: int = 2000) -> str:
    """`clean` for anything: bytes as UTF-8 with what is none as `\\xNN`, other values as `str` shows them."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        head = bytes(value[: 4 * (limit + 1)])
        return clean(head.decode("utf-8", "backslashreplace"), limit)
    return clean(value if isinstance(value, str) else str(value), limit)


def _visible(char: str) -> str:
    if (char.isprintable() or unicodedata.category(char) == "Zs") and not _BLANKS.match(char):
        return char
    point = ord(char)
    if point < 0x100:
        return _SHORT.get(char) or f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
