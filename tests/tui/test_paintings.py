"""Each screen at three sizes in the terminal's own colours and in none, as text with a letter for each cell's style.

`--snapshot-update` writes them anew; look at what changed before accepting it.
"""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.style import Style

from saia_tui.app import SaiaApp
from saia_tui.headline import VIEWS
from saia_tui.terminal import Terminal
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import loaded, shown

PAINTINGS = Path(__file__).parent / "paintings"
SIZES = [(60, 15), (80, 24), (200, 60)]
LOOKS = {"ansi": Terminal("ansi"), "none": Terminal("none", ascii=True)}
PLAIN = "plain"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("screen", VIEWS)
async def test_painting(screen: str, look: str, request: pytest.FixtureRequest) -> None:
    letters: dict[str, str] = {PLAIN: " "}
    lines: list[str] = []
    for size in SIZES:
        async with shown(FakeEngine(), size, terminal=LOOKS[look]) as (app, pilot):
            app.action_show(screen)
            await loaded(pilot)
            lines += [f"== {size[0]}x{size[1]}", *painted(app, letters)]
    legend = [f"{letter} {style}" for style, letter in letters.items() if style != PLAIN]
    painting = "\n".join([*lines, "== styles", *legend, ""])
    file = PAINTINGS / f"{screen}-{look}.txt"
    if request.config.option.update_snapshots:
        PAINTINGS.mkdir(exist_ok=True)
        file.write_text(painting)
    assert file.read_text().splitlines() == painting.splitlines()


def painted(app: SaiaApp, letters: dict[str, str]) -> list[str]:
    """Each line of the screen, and below it the styles of its cells where they are not plain."""
    lines: list[str] = []
    for strip in app.screen._compositor.render_strips(app.size):
        lines.append(strip.text.rstrip())
        marks = "".join(
            _letter(part.style, letters, blank=char == " ") * cell_len(char)
            for part in strip
            for char in part.text
        ).rstrip()
        if marks:
            lines.append(f"~{marks}")
    return lines


def _letter(style: Style | None, letters: dict[str, str], *, blank: bool) -> str:
    name = _name(style, blank=blank)
    return letters.setdefault(name, (string.ascii_letters + string.digits)[len(letters) - 1])


def _name(style: Style | None, *, blank: bool) -> str:
    """Its attributes and colours; the terminal's own ones need no words, and of a blank only what can be seen."""
    if style is None:
        return PLAIN
    seen = ("underline", "reverse") if blank else ("bold", "dim", "italic", "underline", "reverse")
    words = [name for name in seen if getattr(style, name)]
    if style.color is not None and not style.color.is_default and not blank:
        words.append(style.color.name)
    if style.bgcolor is not None and not style.bgcolor.is_default:
        words.append(f"on {style.bgcolor.name}")
    return " ".join(words) or PLAIN
