"""What the terminal can show, and how much may be sent to it: from flags, the settings and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

THEMES: Final[tuple[str, ...]] = ("dark", "light", "ansi", "none")
"""Names of the looks in `looks`."""
DUMB: Final = frozenset({"", "dumb", "unknown"})
_FEW_SIGNS: Final = frozenset({"linux", "vt100", "vt102", "vt220", "ansi"})
"""Their fonts lack most of our signs, whatever the locale says."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What flags or the settings ask for; None leaves it to the next who is asked."""

    theme: str | None = None
    ascii: bool | None = None
    mouse: bool | None = None
    low_bandwidth: bool | None = None
    bell: bool | None = None

    def over(self, others: Wishes) -> Wishes:
        """These, and where they leave it open the others."""
        mine = {name: getattr(self, name) for name in self.__slots__}
        return Wishes(
            **{name: getattr(others, name) if value is None else value for name, value in mine.items()}
        )


@dataclass(frozen=True, slots=True)
class Terminal:
    theme: str = "dark"
    """A name of THEMES."""
    ascii: bool = False
    mouse: bool = True
    low_bandwidth: bool = False
    bell: bool = False


def chosen(wishes: Wishes, environ: Mapping[str, str]) -> Terminal:
    """The terminal as asked for, and otherwise as its environment lets expect."""
    return Terminal(
        theme=wishes.theme or _theme(environ),
        ascii=not shows_signs(environ) if wishes.ascii is None else wishes.ascii,
        mouse=not in_multiplexer(environ) if wishes.mouse is None else wishes.mouse,
        low_bandwidth=bool(wishes.low_bandwidth),
        bell=bool(wishes.bell),
    )


def is_dumb(environ: Mapping[str, str]) -> bool:
    """It moves no cursor: no screen can be drawn."""
    return environ.get("TERM", "") in DUMB


def in_multiplexer(environ: Mapping[str, str]) -> bool:
    """tmux or screen, whose own mouse selects and copies text: we leave it to them."""
    return bool(environ.get("TMUX") or environ.get("STY"))


def shows_signs(environ: Mapping[str, str]) -> bool:
    """Whether the locale, if one is set, is in UTF-8, and the terminal's font may have our signs."""
    if environ.get("TERM", "") in _FEW_SIGNS:
        return False
    names = (environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next((name for name in names if name), "")
    if locale in ("C", "POSIX"):
        return False
    charset = locale.partition(".")[2].partition("@")[0].lower().replace("-", "")
    return charset in ("", "utf8")


def _theme(environ: Mapping[str, str]) -> str:
    if environ.get("NO_COLOR"):
        return "none"
    return "dark" if _many_colours(environ) else "ansi"


def _many_colours(environ: Mapping[str, str]) -> bool:
    """At least 256."""
    if environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return True
    term = environ.get("TERM", "")
    return term.endswith(("256color", "kitty")) or "TEXTUAL_COLOR_SYSTEM" in environ
