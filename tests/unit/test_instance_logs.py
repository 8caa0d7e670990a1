"""What an instance printed, read through the engine: pieces, waiting, rotation, and files that are none."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from saia_engine.instance_logs import MOST_BYTES, InstanceLogs, LogFault, LogQuestion, event_lines
from saia_engine.store import Event
from saia_engine.view import LogPiece

NAME = "k7q2.hpc.chat.a81f"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / NAME).mkdir()
    return tmp_path / NAME / "output.log"


@pytest.fixture
def logs(tmp_path: Path) -> InstanceLogs:
    return InstanceLogs(tmp_path, lambda name: EVENTS if name == NAME else [])


EVENTS = [
    Event(1, 1_700_000_000.0, "launch", "info", NAME, "missing: 1 of 2", None, {"rule": "missing"}),
    Event(2, 1_700_000_060.5, "drain-asked", "warning", NAME, "two\nlines \x1b[31m", 1004),
]


async def ask(logs: InstanceLogs, **asked: Any) -> LogPiece:
    return await logs.read(NAME, LogQuestion(**asked))


async def test_pieces_come_from_where_they_are_asked(logs: InstanceLogs, output: Path) -> None:
    output.write_bytes(b"0123456789")
    piece = await ask(logs, offset=3, most=4)
    assert (piece.data, piece.offset, piece.end, piece.size) == (b"3456", 3, 7, 10)
    assert piece.written_at == pytest.approx(output.stat().st_mtime, abs=0.001)
    assert (await ask(logs, offset=-4)).data == b"6789"
    assert (await ask(logs, offset=-400)).offset == 0
    beyond = await ask(logs, offset=400)
    assert (beyond.data, beyond.size) == (b"", 10)
    assert (await ask(logs, most=0)).data == b""


async def test_no_piece_is_larger_than_the_bound(logs: InstanceLogs, output: Path) -> None:
    output.write_bytes(b"x" * (MOST_BYTES + 5))
    assert len((await ask(logs, most=10 * MOST_BYTES)).data) == MOST_BYTES


async def test_an_answer_waits_for_new_bytes_but_not_for_ever(logs: InstanceLogs, output: Path) -> None:
    output.write_bytes(b"old")
    waiting = asyncio.create_task(ask(logs, offset=3, wait_s=20.0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    with output.open("ab") as file:
        file.write(b"new")
    assert (await waiting).data == b"new"
    assert (await ask(logs, offset=6, wait_s=0.2)).data == b""


async def test_where_inotify_is_silent_the_file_is_looked_at_all_the_same(
    logs: InstanceLogs, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saia_engine.instance_logs.watch", lambda path: None)
    monkeypatch.setattr("saia_engine.instance_logs.LOOK_EACH_S", 0.05)
    output.write_bytes(b"")
    waiting = asyncio.create_task(ask(logs, offset=0, wait_s=20.0))
    await asyncio.sleep(0.1)
    output.write_bytes(b"seen")
    assert (await waiting).data == b"seen"


async def test_inotify_tells_before_the_next_look(
    logs: InstanceLogs, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saia_engine.instance_logs.LOOK_EACH_S", 3600.0)
    output.write_bytes(b"")
    waiting = asyncio.create_task(ask(logs, offset=0, wait_s=20.0))
    await asyncio.sleep(0.3)
    output.write_bytes(b"told")
    assert (await waiting).data == b"told"


async def test_no_descriptor_is_left_after_waiting(logs: InstanceLogs, output: Path) -> None:
    output.write_bytes(b"")
    await ask(logs, wait_s=0.05)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        await ask(logs, wait_s=0.01)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_rotation_loses_nothing(logs: InstanceLogs, output: Path) -> None:
    output.write_bytes(b"first,")
    seen = await ask(logs)
    with output.open("ab") as file:
        file.write(b"late")
    output.rename(output.with_name("output.log.1"))
    output.write_bytes(b"second")
    rest = await ask(logs, offset=seen.end, file=seen.file)
    assert (rest.data, rest.file) == (b"late", seen.file)
    fresh = await ask(logs, offset=rest.end, file=rest.file)
    assert (fresh.data, fresh.offset) == (b"second", 0)
    assert fresh.file != seen.file


async def test_one_who_waits_is_told_of_a_rotation_and_of_a_file_cut_short(
    logs: InstanceLogs, output: Path
) -> None:
    output.write_bytes(b"something")
    seen = await ask(logs)
    waiting = asyncio.create_task(ask(logs, offset=seen.end, file=seen.file, wait_s=20.0))
    await asyncio.sleep(0.1)
    os.truncate(output, 2)
    assert (await waiting).size == 2
    other = output.with_name("other")
    other.write_bytes(b"")
    waiting = asyncio.create_task(ask(logs, offset=2, file=seen.file, wait_s=20.0))
    await asyncio.sleep(0.1)
    other.rename(output)
    assert (await waiting).file != seen.file


async def test_links_pipes_and_directories_are_refused(
    logs: InstanceLogs, output: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    output.symlink_to(secret)
    with pytest.raises(LogFault, match="can't be read"):
        await ask(logs)
    output.unlink()
    os.mkfifo(output)
    with pytest.raises(LogFault, match="not a regular file"):
        await ask(logs)
    output.unlink()
    output.mkdir()
    with pytest.raises(LogFault, match="not a regular file"):
        await ask(logs)


async def test_a_linked_directory_is_refused(logs: InstanceLogs, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "output.log").write_bytes(b"secret")
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LogFault):
        await ask(logs)


async def test_no_file_yet_is_said(logs: InstanceLogs, output: Path) -> None:
    with pytest.raises(LogFault, match="printed nothing"):
        await ask(logs)


async def test_a_file_system_that_hangs_is_told_of(
    logs: InstanceLogs, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event as Gate

    gate = Gate()
    monkeypatch.setattr("saia_engine.instance_logs._read", lambda *_: gate.wait(20))
    monkeypatch.setattr("saia_engine.instance_logs.ANSWER_S", 0.05)
    try:
        with pytest.raises(LogFault, match="has not answered"):
            await ask(logs)
    finally:
        gate.set()


async def test_events_are_lines_that_only_grow(logs: InstanceLogs) -> None:
    text = (await ask(logs, stream="events")).data
    assert text == event_lines(EVENTS)
    assert text.decode().splitlines() == [
        "2023-11-14T22:13:20Z info     launch: missing: 1 of 2 [missing]",
        r"2023-11-14T22:14:20Z warning  drain-asked: two\nlines \x1b[31m (uid 1004)",
    ]
    assert event_lines(EVENTS[:1]) == text[: len(event_lines(EVENTS[:1]))]
    half = await ask(logs, stream="events", offset=-10)
    assert (half.data, half.size, half.file) == (text[-10:], len(text), "events")
