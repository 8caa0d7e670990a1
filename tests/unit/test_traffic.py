"""The traffic generator: its books, and its clients against the bundled server."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from saia_engine.demo import llm
from saia_engine.demo.traffic import Broken, Exchange, Settings, Tally, Traffic


def event(i: int, ident: str = "a") -> str:
    return "data: " + json.dumps({"id": ident, "choices": [{"delta": {"content": f" {i}"}}]})


def feed(lines: list[str], tokens: int) -> Exchange:
    exchange = Exchange("stream", tokens, 0.0)
    for number, line in enumerate(lines):
        exchange.line(line, float(number))
    exchange.whole()
    return exchange


def test_a_whole_stream_is_accepted() -> None:
    exchange = feed([event(1), "", ": comment", event(2), event(3), "data: [DONE]", ""], tokens=3)
    assert exchange.max_gap_s == 3.0


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([], "ended after 0 of 2"),
        ([event(1), "data: [DONE]"], "ended after 1 of 2"),
        ([event(1), event(2)], r"ended without \[DONE\]"),
        ([event(1), event(3)], "token 2 of 2 is ' 3'"),
        ([event(1), event(1)], "token 2 of 2 is ' 1'"),
        ([event(2)], "token 1 of 2 is ' 2'"),
        ([event(1), event(2, "b")], "another answer"),
        ([event(1), event(2), "data: [DONE]", event(3)], "after"),
        ([event(1), event(2), event(3), "data: [DONE]"], "ended after 3 of 2"),
        (["data: {"], "not a token"),
        (['data: {"error": {"message": "instance_lost"}}'], "instance_lost"),
        (["data: 5"], "not a token"),
        (["data: " + "[" * 5000], "not a token"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said(lines: list[str], fault: str) -> None:
    with pytest.raises(Broken, match=fault):
        feed(lines, tokens=2)


def test_a_short_answer_is_compared_whole() -> None:
    exchange = Exchange("short", 2, 0.0)
    exchange.answer(b'{"choices": [{"message": {"content": " 1 2"}}]}')
    for body in (b'{"choices": [{"message": {"content": " 1"}}]}', b"", b"{}", b"[]", b"\xff", b"[" * 5000):
        with pytest.raises(Broken):
            exchange.answer(body)


def test_the_books_add_up() -> None:
    tally = Tally()
    good, dropped, refused, open_, waiting = (tally.begin("stream", 9, float(n)) for n in range(5))
    short = tally.begin("short", 4, 5.0)
    for exchange in (good, dropped, open_, short):
        tally.answered(exchange, "one" if exchange is not open_ else "two")
    good.max_gap_s = 0.25
    tally.end(good, "", 10.0)
    tally.end(dropped, "cut off", 11.0)
    tally.end(refused, "status 503", 12.0)
    tally.end(short, "", 12.5)
    report = tally.report()
    assert report["open"] == [{"instance": "two", "since": 3.0}]
    tally.cut(13.0)
    report = tally.report()
    assert (report["requests"], report["failed"], report["dropped_streams"], report["cut_by_us"]) == (
        6,
        2,
        1,
        2,
    )
    assert report["served_by"] == {"one": 3, "two": 1}
    assert report["max_gap_ms"] == 250.0
    assert report["open"] == []
    assert [(row["started_at"], row["ok"], row["cut_by_us"]) for row in report["finished"]] == [
        (0.0, True, False),
        (1.0, False, False),
        (2.0, False, False),
        (3.0, False, True),
        (4.0, False, True),
    ]
    assert [row["fault"] for row in report["faults"]] == ["cut off", "status 503"]
    assert waiting.instance is None


# ---------------------------------------------------------------- with a server

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


async def bundled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    settings = llm.Settings(models=("a", "b"), rate=100.0, ready_at=0.0, instance="inst")
    await llm.Connection(reader, writer, settings).run()


async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with two tokens and then is gone, as a lost instance is."""
    await reader.readuntil(b"\r\n\r\n")
    head = "HTTP/1.1 200 OK\r\nx-saia-instance: bad\r\ntransfer-encoding: chunked\r\n\r\n"
    body = f"{event(1)}\n\n{event(2)}\n\n"
    writer.write(f"{head}{len(body):x}\r\n{body}\r\n".encode())
    await writer.drain()
    writer.close()


async def refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbusy")
    writer.close()


@asynccontextmanager
async def traffic(handler: Handler, **fields: object) -> AsyncIterator[Tally]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)  # type: ignore[arg-type]
    url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    settings = Settings(url, "key", ("a", "b"), **fields)  # type: ignore[arg-type]
    tally, stop = Tally(), asyncio.Event()
    running = asyncio.create_task(Traffic(settings, tally, random.Random(4)).run(stop))
    try:
        yield tally
    finally:
        stop.set()
        await asyncio.wait_for(running, 5)
        server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_it_keeps_its_streams_open_and_all_are_whole() -> None:
    fields = {"streams": 8, "short_rate": 50.0, "token_rate": 100.0, "stream_seconds": (0.2, 0.5)}
    async with traffic(bundled, **fields) as tally:
        await until(lambda: len(tally.report()["open"]) == 8)
        await until(lambda: len(tally.finished) >= 16 and tally.requests > 40)
        assert len(tally.report()["open"]) >= 6
        assert len(tally.report()["open"]) <= 8
    report = tally.report()
    assert (report["failed"], report["faults"]) == (0, [])
    assert report["cut_by_us"] >= 6
    assert set(report["served_by"]) == {"inst"}
    assert report["max_gap_ms"] > 5


@pytest.mark.parametrize(("handler", "dropped"), [(cutting, True), (refusing, False)])
async def test_faults_of_the_other_side_are_booked_and_not_retried(handler: Handler, dropped: bool) -> None:
    connections = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await handler(reader, writer)  # type: ignore[misc]

    async with traffic(counting, streams=2, short_rate=0.0) as tally:
        await until(lambda: tally.failed >= 4)
    assert tally.dropped_streams == (tally.failed if dropped else 0)
    assert connections == tally.requests
    assert tally.faults[0]["fault"].startswith("RemoteProtocolError" if dropped else "status 503")


# ---------------------------------------------------------------- the program


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("sk-test\n")
    return path


@pytest.fixture
def server() -> Iterator[str]:
    command = [sys.executable, "-m", "saia_engine.demo.llm", "--port", "0", "--model", "a"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield "http://" + process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        process.kill()
        process.communicate()


def command(url: str, key: Path, *more: str) -> list[str]:
    base = [sys.executable, "-m", "saia_engine.demo.traffic", "--base-url", url, "--key-file", str(key)]
    return [*base, "--models", "a", "--streams", "2", *more]


def read_when(path: Path, wanted: Callable[[dict], bool]) -> dict:
    deadline = time.monotonic() + 10
    while True:
        try:
            if wanted(report := json.loads(path.read_text())):
                return report
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("end", ["sigterm", "lifeline"])
def test_it_ends_at_once_and_books_what_it_cut_itself(
    server: str, key: Path, tmp_path: Path, end: str
) -> None:
    report = tmp_path / "report.json"
    lifeline, held = os.pipe()
    process = subprocess.Popen(
        command(server, key, "--report", str(report)),
        pass_fds=[lifeline],
        env={**os.environ, "SAIA_LIFELINE_FD": str(lifeline)},
    )
    os.close(lifeline)
    try:
        read_when(report, lambda r: len(r["open"]) == 2)
        if end == "sigterm":
            process.send_signal(signal.SIGTERM)
        else:
            os.close(held)
        assert process.wait(timeout=3) == 0
    finally:
        process.kill()
        process.wait()
        if end == "sigterm":
            os.close(held)
    final = json.loads(report.read_text())
    assert (final["failed"], final["open"]) == (0, [])
    assert final["cut_by_us"] >= 2


def test_it_ends_after_its_seconds_and_reports_in_lines(server: str, key: Path) -> None:
    ended = subprocess.run(command(server, key, "--seconds", "2"), capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0
    first, *_, last = [json.loads(line) for line in ended.stdout.splitlines()]
    assert first["requests"] == 0
    assert (last["failed"], last["dropped_streams"]) == (0, 0)
    assert last["requests"] >= 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--key-file", "/no/such/key"], "cannot read the key"),
        (["--key-file", "/dev/null"], "is empty"),
        (["--base-url", "ftp://x"], "no http URL"),
        (["--base-url", "http://x:port"], "base-url"),
        (["--models", ","], "at least one model"),
        (["--report", "/no/such/directory/file"], "cannot write the report"),
    ],
)
def test_bad_usage_is_one_clear_line(key: Path, change: list[str], says: str) -> None:
    ended = subprocess.run(
        command("http://127.0.0.1:1", key, "--seconds", "1", *change),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
