"""What is copied for a ticket, and how it gets to the clipboard."""

from __future__ import annotations

import base64

import msgspec
import pytest

from saia_engine.client import Tables
from saia_tui import clipboard, incident
from saia_tui.alarm_bell import AlarmBell
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until


def tables() -> Tables:
    known = Tables()
    for change in sample.changes():
        known.apply(change)
    return known


@pytest.mark.parametrize(
    ("table", "key", "said"),
    [
        ("alarms", "service_down:images", ["critical service_down images, for 10m", "3 starts in a row failed",
                                           "service images: down, 0 of 1 ready", "images.bad1 failed",
                                           r"CUDA out of memory [/x]\x1b[31m", "images.bad1: Ended: exit code 1"]),
        ("services", "chat-large", ["degraded, 2 of 3 ready", "warning replacement_late chat-large.a81f",
                                    "uid 1004 asks for 3; the file says 2", "chat-large: Desired 2 → 3 (uid 1004)"]),
        ("instances", "k7q2.hpc.chat-small.11d7", ["instance: chat-small.11d7 draining", "service chat-small: ok"]),
        ("jobs", "88409", ["jobs: 88409 RUNNING", "service chat-small: ok"]),
        ("jobs", "70000", ["jobs: 70000 RUNNING"]),
        ("nodes", "gpu06", ["nodes: gpu06 idle+drain ECC errors on GPU 2"]),
        ("proxies", "dmz", ["warning proxy_away dmz", "dmz: No relay reports any more"]),
        ("events", "900", ["service images: down"]),
        ("jobs", "1", ["jobs: 1 is gone"]),
    ],
)  # fmt: skip
def test_it_holds_what_a_colleague_needs(table: str, key: str, said: list[str]) -> None:
    words = incident.report(tables(), table, key, sample.NOW)
    assert words.startswith(
        "saia 0.1.0 of cluster hpc (k7q2) on svc01, 2026-11-24 03:12:07; Slurm's word: <1m old\n"
    )
    for part in said:
        assert part in words
    assert all(char.isprintable() or char == "\n" for char in words)


def test_it_is_bounded_whatever_it_is_told() -> None:
    known = tables()
    long = msgspec.structs.replace(known.instances["k7q2.hpc.images.bad1"], outcome="é\n" * 100_000)
    known.instances = {f"{number}": msgspec.structs.replace(long, id=f"{number}") for number in range(100)}
    words = incident.report(known, "services", "images", sample.NOW)
    assert len(words.encode()) <= incident.LARGEST_BYTES
    assert "and 92 more" in words


def test_terminals_and_multiplexers_get_it_as_each_wants_it() -> None:
    plain = clipboard.sequence("Störung\n", {})
    assert plain == "\x1b]52;c;" + base64.b64encode("Störung\n".encode()).decode() + "\x07"
    tmux = clipboard.sequence("x", {"TMUX": "/tmp/s"})
    assert tmux == "\x1b]52;c;eA==\x07\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\"
    screen = clipboard.sequence("x" * 400, {"STY": "1"})
    parts = screen.removeprefix("\x1bP").removesuffix("\x1b\\").split("\x1b\\\x1bP")
    assert len(parts) == 3 and max(map(len, parts)) <= clipboard.SCREENS_ROOM
    assert "".join(parts) == clipboard.sequence("x" * 400, {})


async def test_the_key_copies_the_row_under_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.delenv("STY", raising=False)
    async with shown(FakeEngine()) as (app, pilot):
        sent: list[str] = []
        driver = app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", sent.append)
        await pilot.press("down", "y")
        await until(pilot, lambda: any("\x1b]52;" in part for part in sent))
        copied = next(part for part in sent if part.startswith("\x1b]52;c;"))
        words = base64.b64decode(copied.removeprefix("\x1b]52;c;").removesuffix("\x07")).decode()
        assert "service chat-large: degraded" in words


def test_the_bell_rings_once_for_what_is_new_critical_and_not_taken_up() -> None:
    bell = AlarmBell()
    first = sample.alarms()
    assert not bell.rings(first)  # it stood there when the screen opened
    down = first["service_down:images"]
    new = msgspec.structs.replace(down, subject="embed")
    assert bell.rings(first | {"service_down:embed": new})
    assert not bell.rings(first | {"service_down:embed": new})
    assert not bell.rings(first)
    assert bell.rings(first | {"service_down:embed": new}), "it came again"
    taken = msgspec.structs.replace(new, subject="whisper", acked_by=1004)
    assert not bell.rings(first | {"service_down:embed": new, "service_down:whisper": taken})
    mild = msgspec.structs.replace(new, severity="warning")
    assert not bell.rings(first | {"x:y": mild})


@pytest.mark.parametrize("wanted", [True, False])
async def test_it_rings_only_for_who_asked_for_it(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from saia_tui.terminal import Terminal

    engine = FakeEngine()
    async with shown(engine, terminal=Terminal(bell=wanted)) as (app, pilot):
        rung: list[int] = []
        monkeypatch.setattr(app, "bell", lambda: rung.append(1))
        new = msgspec.structs.replace(sample.alarms()["service_down:images"], subject="embed")
        engine.put("alarms", {"service_down:embed": new})
        await until(pilot, lambda: "service_down:embed" in app.feed.tables.alarms)
        app.repaint()
        app.repaint()
        assert len(rung) == int(wanted)
