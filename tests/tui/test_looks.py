"""The looks, and that no look, and no lack of signs, hides a state."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.style import Style
from textual.pilot import Pilot

import saia_tui
from saia_tui.app import SaiaApp
from saia_tui.looks import LOOKS
from saia_tui.palette import STATES
from saia_tui.signs import TWINS, UNKNOWN, ascii_twin
from saia_tui.terminal import THEMES, Terminal
from saia_tui.windows.pages import Page
from saia_tui.windows.scale import ScaleWindow
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

LEGIBLE, FAINT = 4.5, 3.0
"""Contrast by WCAG 2: of text, and of what may be overlooked."""


def luminance(colour: Any) -> float:
    parts = [part / 255 for part in colour.triplet]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Any, other: Any) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def painted(app: SaiaApp) -> list[tuple[str, Style | None]]:
    """What is on the screen, piece by piece, as it is sent."""
    strips = app.screen._compositor.render_strips(app.size)
    return [(segment.text, segment.style) for strip in strips for segment in strip]


def test_all_looks_have_the_same_styles() -> None:
    assert set(LOOKS) == set(THEMES)
    assert len({frozenset(look.styles) for look in LOOKS.values()}) == 1


@pytest.mark.parametrize("name", ["dark", "light"])
def test_every_style_is_legible(name: str) -> None:
    look = LOOKS[name]
    ground = Style(color=look.theme.background).color
    cursor = look.styles["cursor"].bgcolor
    for meaning, style in look.styles.items():
        if meaning in ("cursor", "stale"):
            continue
        least = FAINT if meaning == "faint" else LEGIBLE
        assert contrast(style.color, style.bgcolor or ground) >= least, meaning
        if style.bgcolor is None and meaning != "faint":
            assert contrast(style.color, cursor) >= FAINT, f"{meaning} on the cursor"


def test_looks_of_the_terminals_own_colours_have_no_others() -> None:
    for name in ("ansi", "none"):
        for style in LOOKS[name].styles.values():
            assert all(colour is None or colour.number is not None for colour in (style.color, style.bgcolor))


def test_every_sign_in_the_program_has_a_twin_of_its_width() -> None:
    missing = set()
    for file in Path(saia_tui.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                missing |= {(char, file.name) for char in node.value if ascii_twin(char) == UNKNOWN != char}
    assert not missing, "give each a twin in saia_tui/signs.py"
    assert all(cell_len(sign) == len(twin) == 1 and twin.isascii() for sign, twin in TWINS.items())


def test_twins_keep_states_apart() -> None:
    by_twin: dict[str, set[str]] = {}
    for mark, _ in STATES.values():
        by_twin.setdefault(ascii_twin(mark), set()).add(mark)
    # A removed, intended or submitted thing and mere news are told apart by their words.
    assert {twin: marks for twin, marks in by_twin.items() if len(marks) > 1} == {".": {"◌", "·"}}


@pytest.mark.parametrize(("given", "twin"), [
    ("plain", "plain"), ("漢字x", "????x"), ("é", "?"), ("╭─╮│╰┬╯", "+-+|+++"), ("⠀⠁⡇⣿", " ./#".replace("/", ":")),
    ("▁▄█", "_=#"), ("→ … ●", "> ~ o"),
])  # fmt: skip
def test_twins(given: str, twin: str) -> None:
    assert ascii_twin(given) == twin
    assert cell_len(given) == len(twin)


@pytest.mark.parametrize("key", "123456s?")
async def test_nothing_but_ascii_is_sent_where_only_that_can_be_shown(key: str) -> None:
    terminal = Terminal("none", ascii=True)
    async with shown(FakeEngine(), (200, 60), terminal=terminal) as (app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: key not in "s?" or isinstance(app.screen, ScaleWindow | Page))
        await pilot.pause()
        screen = words(app)
        assert screen.isascii()
        assert all(len(line) == 200 for line in screen.splitlines())


@pytest.mark.parametrize("key", "14s?")
async def test_no_colour_is_sent_where_none_is_wanted(key: str) -> None:
    async with shown(FakeEngine(), terminal=Terminal("none")) as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
        for words_, style in painted(app):
            assert style is None or (style.color is None and style.bgcolor is None), words_
        if key == "1":
            assert any("images" in text and style and style.reverse for text, style in painted(app))


@pytest.mark.parametrize("key", "14s?")
async def test_only_the_terminals_own_colours_are_sent_where_it_has_16(key: str) -> None:
    async with shown(FakeEngine(), terminal=Terminal("ansi")) as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
        colours = [colour for _, style in painted(app) if style for colour in (style.color, style.bgcolor)]
        assert not {str(colour) for colour in colours if colour and colour.triplet}
        assert len({colour.number for colour in colours if colour}) > 4


async def test_the_look_changes_while_it_runs() -> None:
    async with shown(FakeEngine(), (120, 40)) as (app, pilot):
        before = words(app)
        seen = {app.look.name: colours_of(app)}
        for _ in range(len(THEMES) - 1):
            await pilot.press("T")
            await settled(pilot)
            seen[app.look.name] = colours_of(app)
            assert words(app)[:800] == before[:800]
        assert set(seen) == set(THEMES) and len(set(map(str, seen.values()))) == len(THEMES)
        await pilot.press("T")
        await settled(pilot)
        assert app.look.name == "dark" and colours_of(app) == seen["dark"]


def colours_of(app: SaiaApp) -> list[str]:
    """Of the first lines, where no toast is."""
    strips = app.screen._compositor.render_strips(app.size)[:14]
    return [str(segment.style) for strip in strips for segment in strip]


async def settled(pilot: Pilot[Any]) -> None:
    for _ in range(3):
        await pilot.pause()
