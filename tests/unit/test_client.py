"""The client against the real server, and what it says when there is none."""

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from saia_engine import client as client_module
from saia_engine.api import sockets
from saia_engine.client import (
    ClientError,
    EngineClient,
    EngineUnreachable,
    NeedsConfirmation,
    NotFound,
    StreamGap,
    Tables,
)
from saia_engine.view import TABLES, Change, LogPiece
from tests.unit.fake_engine import served


@asynccontextmanager
async def answering(*chunks: bytes, hang: bool = False):
    """A server that answers each connection with these bytes."""
    directory = tempfile.mkdtemp(dir="/tmp", prefix="saia-client.")
    path = Path(directory) / "s"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        if hang:
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, path)
    try:
        yield path
    finally:
        server.close()
        shutil.rmtree(directory)


HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


async def collect(client: EngineClient) -> list[Change]:
    async with aclosing(client.changes()) as changes:
        return [change async for change in changes]


async def test_a_log_comes_in_pieces():
    async with served() as running, EngineClient(running.operator) as client:
        piece = await client.instance_log("i1.hpc.chat.aaaa0001", offset=8, most=5, file="fd00-1", wait_s=1.5)
        assert piece == LogPiece(b"[31m\n", 8, 21, "fd00-1", 1_700_000_000.25)
        assert (piece.end, running.engine.log_questions[-1].wait_s) == (13, 1.5)
        with pytest.raises(NotFound):
            await client.instance_log("i1.hpc.chat.none")


@pytest.mark.parametrize("head", [b"", b"saia-log-from: x\r\nsaia-log-size: 1\r\nsaia-log-file: f\r\n"])
async def test_a_piece_without_its_headers_is_a_client_error(head: bytes):
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + head + b"\r\n"
    async with answering(answer) as path, EngineClient(path) as client:
        with pytest.raises(ClientError) as caught:
            await client.instance_log("i1.hpc.chat.aaaa0001")
        assert caught.value.code == "bad_answer"


async def test_state_is_the_tables():
    async with served() as api, EngineClient(api.operator) as client:
        tables = await client.state()
        assert tables.engine is not None
        assert tables.engine.cluster == "hpc"
        assert tables.instances == api.engine.instances
        assert tables.services["chat"].configured_replicas == 2


async def test_the_stream_follows_each_intent():
    async with served() as api, EngineClient(api.operator) as client:
        tables, changes = Tables(), client.changes()
        async with aclosing(changes), asyncio.timeout(10):
            for _ in TABLES:
                tables.apply(await anext(changes))

            assert await client.scale("chat", 3) == {"service": "chat", "replicas": 3}
            while tables.services["chat"].replicas != 3 or not tables.events:
                tables.apply(await anext(changes))
            assert tables.services["chat"].override_by_uid == os.geteuid()
            assert [event.code for event in tables.events.values()] == ["scale"]

            await client.maintenance("cloud", True)
            while not tables.proxies["cloud"].maintenance:
                tables.apply(await anext(changes))
            await client.drain("i1.hpc.chat.aaaa0001")
            await client.clear_override("chat")
            while tables.services["chat"].override_by_uid is not None:
                tables.apply(await anext(changes))
        assert (await client.plan())["actions"][0]["subject"] == "chat"
        assert (await client.health())["acting"] is True


async def test_refusals_are_exceptions_with_the_engines_words():
    async with served() as api, EngineClient(api.operator) as client:
        with pytest.raises(NeedsConfirmation, match="min_available"):
            await client.scale("chat", 0)
        await client.scale("chat", 0, confirm=True)
        with pytest.raises(NotFound, match="no nosuch"):
            await client.scale("nosuch", 1)
        with pytest.raises(NotFound):
            await client.drain("i1.hpc.chat.nosuch")
        with pytest.raises(ClientError) as refused:
            await client.scale("chat", -1)
        assert refused.value.code == "bad_request"


async def test_no_engine_is_unreachable():
    async with EngineClient("/tmp/saia-nosuch/operator.sock") as client:
        with pytest.raises(EngineUnreachable, match=r"no engine answers at .* \(No such file or directory\)"):
            await client.state()
        with pytest.raises(EngineUnreachable):
            await collect(client)


async def test_a_dead_engines_socket_is_unreachable():
    path = Path(tempfile.mkdtemp(dir="/tmp")) / "run" / "operator" / "operator.sock"
    try:
        sockets.bind(path, None).socket.close()
        async with EngineClient(path) as client:
            with pytest.raises(EngineUnreachable, match="Connection refused"):
                await client.health()
    finally:
        shutil.rmtree(path.parent.parent.parent)


AS_ANOTHER_USER = """
import asyncio, os, sys
from saia_engine.client import EngineClient, NotAllowed

async def main():
    async with EngineClient(sys.argv[1]) as client:
        await client.health()  # as root: now all modules are loaded
    os.setegid(65534)
    os.seteuid(65534)
    async with EngineClient(sys.argv[1]) as client:
        try:
            await client.health()
        except NotAllowed as exc:
            print(exc)

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_a_socket_that_may_not_be_opened_is_not_allowed():
    async with served() as api:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", AS_ANOTHER_USER, str(api.operator), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert b"you may not open" in output


async def test_a_gap_in_the_stream_is_noticed():
    lines = b'{"seq":0,"table":"jobs","reset":true}\n{"seq":2,"table":"jobs"}\n'
    async with answering(HEAD, lines) as path, EngineClient(path) as client:
        with pytest.raises(StreamGap, match="line 2 of the stream came where 1 was due"):
            await collect(client)


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b'{"seq":"x"}\n', b"\xff\xff\n"])
async def test_a_broken_line_is_a_gap(line: bytes):
    async with answering(HEAD, line) as path, EngineClient(path) as client:
        with pytest.raises(StreamGap, match="can't be read"):
            await collect(client)


def test_a_row_of_another_shape_is_a_gap_and_an_unknown_table_is_passed_over():
    tables = Tables()
    tables.apply(Change(seq=0, table="of_the_future", set={"a": msgspec.Raw(b"1")}))
    with pytest.raises(StreamGap, match="a row of jobs"):
        tables.apply(Change(seq=0, table="jobs", set={"1": msgspec.Raw(b'{"id":"x"}')}))


async def test_lines_may_be_cut_anywhere():
    body = b'{"seq":0,"table":"jobs","reset":true}\n\n{"seq":1,"table":"jobs","gone":["7"]}\n'
    async with answering(HEAD, *(bytes([byte]) for byte in body)) as path, EngineClient(path) as client:
        changes: list[Change] = []
        with pytest.raises(EngineUnreachable, match="ended the stream"):
            async for change in client.changes():
                changes.append(change)
        assert [change.gone for change in changes] == [[], ["7"]]


async def test_an_endless_line_is_refused(monkeypatch):
    monkeypatch.setattr(client_module, "LONGEST_LINE", 100_000)
    async with answering(HEAD, b"x" * 300_000, hang=True) as path, EngineClient(path) as client:
        with pytest.raises(StreamGap, match="does not end"):
            await collect(client)


async def test_a_silent_engine_is_unreachable(monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE_S", 0.05)
    async with answering(HEAD, hang=True) as path, EngineClient(path) as client:
        with pytest.raises(EngineUnreachable, match="does not answer"):
            await collect(client)


async def test_an_engine_that_goes_away_ends_the_stream():
    async with served() as api:
        client = EngineClient(api.operator)
        changes = client.changes()
        for _ in TABLES:
            await anext(changes)
    with pytest.raises(EngineUnreachable):
        await anext(changes)
    await client.aclose()


@pytest.mark.parametrize("answer", [b"hello", b'{"error":1}', b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"])
async def test_a_stranger_at_the_socket_is_a_client_error(answer: bytes):
    async with answering(answer) as path, EngineClient(path) as client:
        with pytest.raises(ClientError):
            await client.health()
