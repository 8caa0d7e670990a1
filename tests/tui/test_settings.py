"""`tui.toml`, and the keys that it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from saia_engine.edge.faults import ConfigFaults
from saia_tui import settings
from saia_tui.actions import ACTIONS
from saia_tui.keymap import normal
from saia_tui.settings import Settings
from saia_tui.terminal import Wishes
from saia_tui.windows.pages import Page
from saia_tui.windows.scale import ScaleWindow
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words

SAMPLE = Path(__file__).parents[2] / "sample_configs" / "tui" / "tui.toml"


def told(content: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "tui.toml"
    file.write_text(content)
    with pytest.raises(ConfigFaults) as caught:
        settings.read(file)
    return [str(fault).replace(f"{file}: ", "") for fault in caught.value.faults]


def test_the_sample_loads_and_shows_every_setting() -> None:
    loaded = settings.read(SAMPLE)
    assert None not in [getattr(loaded.terminal, name) for name in loaded.terminal.__slots__]
    assert loaded.keys


def test_without_a_file_all_is_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings.read() == Settings()
    (tmp_path / "saia").mkdir()
    (tmp_path / "saia" / "tui.toml").write_text('theme = "light"\n')
    assert settings.read().terminal == Wishes(theme="light")


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ('theme = "ligth"', ["theme: must be 'dark', 'light', 'ansi' or 'none'; did you mean light?"]),
        ("bel = true", ["bel: unknown key; did you mean bell?"]),
        ('ascii = "yes"', ["ascii: must be true or false"]),
        ('[keys]\nscael = "x"', ["keys.scael: there is no such action; did you mean scale?"]),
        ('[keys]\nhelp = "ctrl+s"', ["keys.help: can't be ctrl+s: terminals take it, to stop output; "
                                    "take a letter, a sign or F1 to F12"]),
        ('[keys]\nhelp = "ctrl+b"', ["keys.help: can't be ctrl+b: tmux takes it; take a letter, a sign or F1 to F12"]),
        ('[keys]\nhelp = ""', ["keys.help: needs a key; take a letter, a sign or F1 to F12"]),
        ('[keys]\nhelp = "F99"', ["keys.help: f99 is no key; did you mean f9?"]),
        ('[keys]\nscale = "T"', ["keys.scale: T is the key of next_theme too; "
                                 "give next_theme another key, or take another here"]),
        ('[keys]\nquit = "x"\nhelp = "x"', ["keys.help: x is the key of quit too; "
                                            "give quit another key, or take another here"]),
    ],
)  # fmt: skip
def test_faults_say_what_to_do(content: str, faults: list[str], tmp_path: Path) -> None:
    assert told(content, tmp_path) == faults


@pytest.mark.parametrize("action", [each.id for each in ACTIONS if each.group == "Act"])
@pytest.mark.parametrize("key", ["ctrl+x", "ctrl+f5", "enter", "escape", "space", "up", "shift+tab"])
def test_no_act_lies_where_a_finger_may_slip(action: str, key: str, tmp_path: Path) -> None:
    assert "an act must not be hit by chance" in told(f'[keys]\n{action} = "{key}"', tmp_path)[0]


def test_the_keys_that_come_with_the_program_keep_the_rules() -> None:
    assert settings.parse({"keys": {each.id: each.keys for each in ACTIONS}}, "own")
    assert len({each.id for each in ACTIONS}) == len(ACTIONS)


def test_two_actions_can_change_places() -> None:
    swapped = settings.parse({"keys": {"scale": "d", "drain": ["s", "F6"]}}, "own")
    assert swapped.keys == {"scale": "d", "drain": "s,F6"}
    assert normal("s, F6,?,Esc,/") == "s,f6,question_mark,escape,slash"


async def test_keys_act_where_they_were_put_and_the_help_tells_of_them() -> None:
    asked = Settings(keys={"scale": "z", "help": "h", "show_jobs": "F7"})
    async with shown(FakeEngine(), settings=asked) as (app, pilot):
        assert "z scale" in words(app) and "h help" in words(app)
        await pilot.press("s")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        await pilot.press("z")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
        await pilot.press("escape", "f7")
        await until(pilot, lambda: "NODES (REASON)" in words(app))
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, Page))
        shown_help = words(app)
        assert any("scale the service" in line and " z " in line for line in shown_help.splitlines())
        assert any("Jobs: all" in line and " F7 " in line for line in shown_help.splitlines())
    async with shown(FakeEngine()) as (app, pilot):
        assert "s scale" in words(app)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ScaleWindow))
