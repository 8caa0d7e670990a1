"""The record as the engine keeps it and its API gives it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from saia_engine.api.hub import Hub
from saia_engine.client import ClientError, EngineClient
from saia_engine.record import files, recorder
from saia_engine.record.frames import Packer, RecordFault, Reel
from saia_engine.record.index import Indexer
from saia_engine.record.recorder import Recorder
from saia_engine.record.writer import Limits
from saia_engine.view import AlarmView, EventView, InstanceView, JobView
from tests.unit.fake_engine import Served, served

NOW = 1_795_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def api():
    async with served() as running:
        yield running


def keep(recorder: Recorder, clock: Clock, steps: int = 1) -> None:
    for _ in range(steps):
        clock.now += 10.0
        recorder._writer.write(recorder.sample())


async def until(true: Callable[[], object]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came about")


def job(number: int, state: str = "RUNNING") -> JobView:
    return JobView(number, f"job{number}", "anna", state)


# ---------------------------------------------------------------- notes


def test_what_is_of_note_is_told_with_its_moment(tmp_path: Path) -> None:
    hub, clock = Hub(), Clock()
    recorder = Recorder(hub, tmp_path / "record", Limits(), clock)
    hub.publish("events", {"7": EventView(7, NOW, "scale", "info", "chat", "to 3", 1000)})
    hub.publish("instances", {"i1": InstanceView("i1", "chat", "starting", NOW)})
    keep(recorder, clock)
    hub.publish("alarms", {"down:chat": AlarmView("down", "critical", "chat", "none is ready", NOW)})
    hub.publish("instances", {"i1": InstanceView("i1", "chat", "ready", NOW)})
    keep(recorder, clock)
    hub.publish("events", {"8": EventView(8, NOW, "drain", "info", "i1", "by hand", 1000)})
    keep(recorder, clock)
    hub.publish("alarms", {"slow:chat": AlarmView("slow", "warning", "chat", "a late one", NOW)})
    hub.publish("instances", {})
    keep(recorder, clock)
    index = Indexer(tmp_path / "record").index()
    assert [(moment.at - NOW, moment.kind, moment.subject) for moment in index.moments] == [
        (10, "engine", "engine"),
        (20, "alarm", "down:chat"),
        (30, "act", "i1"),
        (40, "alarm-end", "down:chat"),
    ]
    assert [at - NOW for at in index.changes] == [20]


# ---------------------------------------------------------------- the disk


async def test_a_disk_that_fails_is_told_once_and_the_record_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, directory = Hub(), tmp_path / "record"
    monkeypatch.setattr(recorder, "RETRY_S", 0.0)
    recording = Recorder(hub, directory, Limits(step_s=0.02), asyncio.get_running_loop().time)
    real_write = os.write
    broken = True

    def write(descriptor: int, data: bytes) -> int:
        if broken and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".rec":
            real_write(descriptor, bytes(data)[:5])  # a part still had room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    task = asyncio.create_task(recording.run())
    try:
        await until(lambda: "No space left" in recording.fault)
        broken = False
        hub.publish("jobs", {"1": job(1)})
        await until(lambda: not recording.fault)
        assert not task.done()
        found = Indexer(directory).index()
        assert found.spans
        assert found.faults and all("cut short" in fault for fault in found.faults)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_disk_that_hangs_is_told_of_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "HANG_S", 0.05)
    recording = Recorder(Hub(), tmp_path / "record", Limits(step_s=0.01), asyncio.get_running_loop().time)
    answers = asyncio.Event()
    loop = asyncio.get_running_loop()
    write = recording._writer.write

    def hangs(sample: object) -> None:
        asyncio.run_coroutine_threadsafe(answers.wait(), loop).result()
        write(sample)  # type: ignore[arg-type]

    monkeypatch.setattr(recording._writer, "write", hangs)
    task = asyncio.create_task(recording.run())
    try:
        await until(lambda: "has not answered" in recording.fault)
        answers.set()
        await until(lambda: not recording.fault)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_is_no_segment_of_ours_is_passed_over_with_a_word(tmp_path: Path) -> None:
    hub, clock = Hub(), Clock()
    directory = tmp_path / "record"
    keep(Recorder(hub, directory, Limits(), clock), clock, 3)
    names = [f"20990101T00000{number}Z-00090{number}.rec" for number in range(5)]
    (directory / names[0]).write_bytes(b"")
    (directory / names[1]).write_bytes(os.urandom(3000))
    (directory / names[2]).symlink_to("/etc/passwd")
    os.mkfifo(directory / names[3])
    newer = bytearray(Packer.header(10.0))
    newer[8] = 9
    (directory / names[4]).write_bytes(newer)
    (directory / "notes.txt").write_text("mine")
    index = Indexer(directory).index()
    assert len(index.spans) == 1 and index.spans[0].frames == 3
    assert len(index.faults) == 5
    for name in names:
        with pytest.raises((RecordFault, OSError)):
            Reel(files.read(directory, name))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saia_engine.record.frames.LARGEST_UNPACKED", 1 << 20)
    packer = Packer()
    data = packer.header(10.0) + packer.frame(NOW, [], [b" " * (2 << 20)])
    assert len(data) < 1 << 16
    with pytest.raises(RecordFault, match="more than"):
        Reel(data).rows(0)


# ---------------------------------------------------------------- the API


async def test_an_operator_reads_the_record_through_the_engine(api: Served) -> None:
    clock = Clock()
    recorder = Recorder(api.engine.hub, api.record, Limits(), clock)
    keep(recorder, clock, 2)
    api.engine.hub.publish("jobs", {"9": job(9, "PENDING")})
    keep(recorder, clock)
    async with EngineClient(api.operator) as client:
        index = await client.record()
        assert [(span.begin, span.end, span.frames) for span in index.spans] == [(NOW + 10, NOW + 30, 3)]
        reel = Reel(await client.record_segment(index.spans[0].name))
        assert msgspec.json.encode(reel.rows(2)) == api.engine.hub.state()
    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(api.operator)), base_url="http://saia"
    ) as http:
        told = (await http.get("/v1/record")).json()
        assert (told["from"], told["to"], told["gaps"]) == (NOW + 10, NOW + 30, [])
        at = (await http.get("/v1/record/at", params={"t": NOW + 33})).json()
        assert at["at"] == NOW + 30 and at["tables"]["jobs"]["9"]["state"] == "PENDING"
        for question, status in (
            (f"/v1/record/at?t={NOW}", 404),
            (f"/v1/record/at?t={NOW + 100}", 404),
            ("/v1/record/at?t=nan", 400),
            ("/v1/record/at?t=1e300", 400),
            ("/v1/record/at", 400),
            ("/v1/record/segments/20990101T000000Z-000900.rec", 404),
            ("/v1/record/segments/..%2f..%2fetc%2fpasswd", 404),
            ("/v1/record/segments/passwd", 404),
        ):
            answer = await http.get(question)
            assert answer.status_code == status, question
            assert answer.json()["error"]["message"]


async def test_no_record_is_no_error(api: Served) -> None:
    async with EngineClient(api.operator) as client:
        index = await client.record()
        assert index.spans == [] and index.end is None
        with pytest.raises(ClientError, match="not kept any more"):
            await client.record_segment("20990101T000000Z-000900.rec")
