"""What clients and instances see of the whole way: the proxy's own program, the real gate, a real agent.

What was measured on the way is logged: `pytest -o log_cli=true --log-cli-level=INFO`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.sshd import descendants
from tests.unit import openai_site, paced_service
from tests.unit.openai_site import KEY, Chain
from tests.unit.proxy_running import until
from tests.unit.test_proxy_ssh import SSHD, Sshd, sshd

SERVICE = [sys.executable, paced_service.__file__, "--uds", "{socket}"]
PATIENCE_S = 30.0
LEAVE_BOUND_S = 2.0
"""The goal is 0.1 s; a loaded machine may take longer."""
MIB = 1024 * 1024
BUFFERS_MIB = 32
"""What a proxy or a gate may need above its usual while large bodies pass: the SSH channel's window and the like."""
numbers = itertools.count(1)
measured = logging.getLogger("measured")
over_ssh = pytest.mark.skipif(
    SSHD is None or os.geteuid() != 0, reason="needs OpenSSH's sshd, and root to run it"
)
BOTH_WAYS = ["pipes", pytest.param("sshd", marks=[pytest.mark.real_sshd, over_ssh])]


@contextmanager
def chain(way: str, connections: int, hosts: int = 1) -> Iterator[tuple[Chain, list[Sshd]]]:
    """With all its lines connected; and its login nodes, where there are any."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="saia-test-", dir="/tmp"))
        if way == "pipes":
            servers, tables = [], [openai_site.subprocess_upstream(directory)]
        else:
            servers = [stack.enter_context(login_node(directory)) for _ in range(hosts)]
            tables = [server.table() for server in servers]
        tables = [f"{table}connections = {connections}\n" for table in tables]
        made = stack.enter_context(openai_site.chain(directory, *tables, service=SERVICE, max_body="60MiB"))
        deadline = time.monotonic() + PATIENCE_S
        while made.log.count("upstream connected") < connections * hosts:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield made, servers


@contextmanager
def login_node(site: Path) -> Iterator[Sshd]:
    keys = Path(tempfile.mkdtemp(prefix="saia-test-", dir="/tmp"))
    try:
        with sshd(keys, " ".join(["exec", *openai_site.gate_command(site)])) as server:
            yield server
    finally:
        shutil.rmtree(keys)


@pytest.fixture(scope="module", params=BOTH_WAYS)
def one_line(request) -> Iterator[Chain]:
    with chain(request.param, 1) as (made, _):
        yield made


@pytest.fixture(params=BOTH_WAYS)
def two_lines(request) -> Iterator[Chain]:
    with chain(request.param, 2) as (made, _):
        yield made


@pytest.fixture
def two_hosts() -> Iterator[tuple[Chain, list[Sshd]]]:
    with chain("sshd", 2, hosts=2) as made:
        yield made


# ---------------------------------------------------------------- a client by hand


class Client:
    """One connection of one client. It reads no more than it is asked to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str, *lines: str, method: str = "GET") -> None:
        """Sends a request's head."""
        head = [
            f"{method} /services/chat/api/{path} HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {KEY}",
            *lines,
        ]
        self.writer.write("\r\n".join([*head, "", ""]).encode())
        await self.writer.drain()

    async def head(self) -> dict[str, str]:
        """The answer's status, as `status`, and its headers."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = (line.partition(":") for line in lines[1:] if line)
        return {"status": lines[0].split(" ")[1]} | {
            name.lower(): value.strip() for name, _, value in headers
        }

    async def whole(self) -> tuple[int, bytes]:
        """An answer of known length."""
        head = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            return int(head["status"]), await self.reader.readexactly(int(head["content-length"]))

    async def pieces(self) -> AsyncIterator[bytes]:
        """A chunked answer's. Raises IncompleteReadError where it broke off."""
        async with asyncio.timeout(PATIENCE_S):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)


@asynccontextmanager
async def client(site: Chain) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def get(site: Chain, path: str = "plain") -> int:
    async with client(site) as asking:
        await asking.ask(path)
        return (await asking.whole())[0]


def unique(path: str) -> str:
    return f"{path}?{next(numbers)}"


def events(site: Chain, what: str, path: str) -> list[dict[str, Any]]:
    """What the service noted of the request for this path."""
    file = site.agent.directory / "events"
    lines = file.read_text().splitlines() if file.exists() else []
    noted = [json.loads(line) for line in lines]
    return [event for event in noted if event["what"] == what and event["path"] == f"/api/{path}"]


async def event(site: Chain, what: str, path: str) -> dict[str, Any]:
    await until(lambda: events(site, what, path), PATIENCE_S)
    return events(site, what, path)[0]


class Memory:
    """How far proxy and gates grow from now on."""

    def __init__(self, site: Chain) -> None:
        self._before = {pid: self._mib(pid, "VmRSS") for pid in (site.proxy, *site.gates)}
        for pid in self._before:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak counts anew

    def most_mib(self) -> float:
        return max(self._mib(pid, "VmHWM") - before for pid, before in self._before.items())

    @staticmethod
    def _mib(pid: int, name: str) -> float:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


# ---------------------------------------------------------------- clients that leave


def _half_close(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@pytest.mark.parametrize("leave", [_close, _reset, _half_close])
@pytest.mark.parametrize("kind", ["wait", "trickle/2000/20"])
async def test_a_client_that_leaves_ends_its_request_at_the_instance(
    one_line: Chain, kind: str, leave: Callable
):
    """Before the answer or in it. Half an end is an end: only a WebSocket has two."""
    seen = []
    for _ in range(5):
        path = unique(kind)
        async with client(one_line) as asking:
            await asking.ask(path)
            if kind == "wait":
                await event(one_line, "began", path)
            else:
                assert (await asking.head())["status"] == "200"
                await anext(asking.pieces())
            left_at = time.monotonic()
            leave(asking.writer)
            seen.append((await event(one_line, "gone", path))["at"] - left_at)
    measured.info("gone_after_ms %s", [round(1000 * value, 1) for value in seen])
    assert max(seen) < LEAVE_BOUND_S


async def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_request(one_line: Chain):
    path = unique("digest")
    async with client(one_line) as asking:
        await asking.ask(path, f"Content-Length: {8 * MIB}", method="POST")
        asking.writer.write(paced_service.content(2 * MIB))
        await event(one_line, "first MiB", path)
    await event(one_line, "gone", path)


# ---------------------------------------------------------------- pace and size


async def test_a_slow_trickle_comes_as_it_is_made(one_line: Chain):
    lags = await lags_of_a_trickle(one_line)
    measured.info("lag_ms %s", round(1000 * statistics.median(lags), 2))
    assert len(lags) == 40 and max(lags) < 1


async def lags_of_a_trickle(site: Chain) -> list[float]:
    async with client(site) as asking:
        await asking.ask(unique("trickle/40/25"))
        assert (await asking.head())["status"] == "200"
        arrived = [(time.monotonic(), piece) async for piece in asking.pieces()]
    return [at - float(line) for at, piece in arrived for line in piece.split()]


async def test_clients_that_do_not_read_stop_only_themselves(one_line: Chain):
    memory = Memory(one_line)
    async with AsyncExitStack() as stack:
        paths = [unique(f"blob/{200 * MIB}") for _ in range(8)]
        for path in paths:
            stuck = await stack.enter_async_context(client(one_line))
            await stuck.ask(path)
            assert (await stuck.head())["status"] == "200"
        lags = await lags_of_a_trickle(one_line)
        assert not any(events(one_line, "sent", path) for path in paths), "they are stuck, not done"
    measured.info("lag_ms %s", round(1000 * statistics.median(lags), 2))
    measured.info("grown_mib %s", memory.most_mib())
    assert len(lags) == 40 and max(lags) < 1
    assert memory.most_mib() < BUFFERS_MIB
    for path in paths:
        assert (await event(one_line, "sent", path))["bytes"] < 32 * MIB


async def test_a_response_of_200_mb_passes_whole_and_is_nowhere_held(one_line: Chain):
    memory, size, check = Memory(one_line), 0, 0
    began_at = time.monotonic()
    async with client(one_line) as asking:
        await asking.ask(unique(f"blob/{200 * MIB}"))
        assert (await asking.head())["content-length"] == str(200 * MIB)
        while size < 200 * MIB:
            part = await asking.reader.read(MIB)
            assert part, "broke off"
            size, check = size + len(part), zlib.crc32(part, check)
    measured.info("mib_per_s %s", round(200 / (time.monotonic() - began_at)))
    measured.info("grown_mib %s", memory.most_mib())
    expected, piece = 0, paced_service.content(paced_service.PIECE)
    for _ in range(200 * MIB // len(piece)):
        expected = zlib.crc32(piece, expected)
    assert check == expected
    assert memory.most_mib() < BUFFERS_MIB


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_50_mb_goes_on_as_it_comes(one_line: Chain, chunked: bool):
    memory, path = Memory(one_line), unique("digest")
    piece, digest = paced_service.content(MIB), hashlib.sha256()
    async with client(one_line) as asking:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {50 * MIB}"
        await asking.ask(path, length, method="POST")
        for number in range(50):
            if number == 25:
                await event(one_line, "first MiB", path)  # the instance has part of it, and we the other half
            digest.update(piece)
            asking.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await asking.writer.drain()
        asking.writer.write(b"0\r\n\r\n" if chunked else b"")
        assert await asking.whole() == (200, f"{50 * MIB} {digest.hexdigest()}".encode())
    measured.info("grown_mib %s", memory.most_mib())
    assert memory.most_mib() < BUFFERS_MIB


async def test_half_an_end_of_a_websocket_is_passed_on_and_the_other_half_lives(one_line: Chain):
    async with client(one_line) as asking:
        await asking.ask(
            unique("raw"), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        assert (await asking.head())["status"] == "101"
        asking.writer.write(b"x" * 300_000)
        asking.writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert await asking.reader.read() == b"300000 bytes"


async def test_many_requests_of_one_connection_share_one_to_the_instance(one_line: Chain):
    async with client(one_line) as asking:
        seen = set()
        for _ in range(300):
            await asking.ask("plain")
            status, connection = await asking.whole()
            assert status == 200
            seen.add(connection)
    assert len(seen) <= 3  # one, but for those that idled too long on a machine that was held up


# ---------------------------------------------------------------- lines that end


async def follow(site: Chain, begun: asyncio.Event) -> int:
    """Reads an answer that goes on until the service is told to finish; how many pieces it had, -1 if it broke off."""
    async with client(site) as asking:
        await asking.ask(unique("told"))
        assert (await asking.head())["status"] == "200"
        begun.set()
        try:
            return len([piece async for piece in asking.pieces()])
        except (asyncio.IncompleteReadError, ConnectionError):
            return -1


async def open_answers(site: Chain, count: int) -> list[asyncio.Task[int]]:
    """As many as go on until `finish`, each begun."""
    begun = [asyncio.Event() for _ in range(count)]
    answers = [asyncio.create_task(follow(site, event)) for event in begun]
    async with asyncio.timeout(PATIENCE_S):
        for event in begun:
            await event.wait()
    return answers


def finish(site: Chain) -> None:
    (site.agent.directory / "finish").touch()


async def test_a_torn_line_ends_only_its_own_streams(two_lines: Chain):
    answers = await open_answers(two_lines, 6)
    first, _ = sorted(two_lines.gates)
    os.kill(first, signal.SIGKILL)
    await until(lambda: sum(answer.done() for answer in answers) == 3, PATIENCE_S)
    assert [answer.result() for answer in answers if answer.done()] == [-1] * 3
    assert [await get(two_lines) for _ in range(20)] == [200] * 20, "on the line that is left"
    finish(two_lines)
    lengths = [await answer for answer in answers]
    assert sorted(lengths)[:3] == [-1] * 3 and sorted(lengths)[3] > 0
    await until(lambda: len(two_lines.gates) == 2, PATIENCE_S)


async def test_an_upgrade_of_the_gate_cuts_nothing(two_lines: Chain):
    answers = await open_answers(two_lines, 6)
    old = two_lines.gates
    for gate in old:
        os.kill(gate, signal.SIGHUP)
    statuses = []
    async with asyncio.timeout(PATIENCE_S):
        while two_lines.log.count("upstream renewed") < 2:
            statuses.append(await get(two_lines))
    assert set(statuses) == {200}
    assert len(two_lines.gates) == 4 and old < two_lines.gates, "each old one beside its successor"
    assert not any(answer.done() for answer in answers)
    assert [await get(two_lines) for _ in range(20)] == [200] * 20
    finish(two_lines)
    assert all(length > 0 for length in [await answer for answer in answers])
    await until(lambda: len(two_lines.gates) == 2 and not old & two_lines.gates, PATIENCE_S)
    assert await get(two_lines) == 200


@pytest.mark.real_sshd
@over_ssh
async def test_where_a_login_node_is_lost_the_other_takes_all(two_hosts: tuple[Chain, list[Sshd]]):
    site, hosts = two_hosts
    answers = await open_answers(site, 12)
    for pid in [*descendants(hosts[0].pid), hosts[0].pid]:
        os.kill(pid, signal.SIGKILL)
    statuses = [await get(site) for _ in range(50)]
    assert statuses.count(200) >= 49, "one may have been on its way"
    await until(lambda: site.log.count("upstream down") >= 2, PATIENCE_S)
    finish(site)
    lengths = [await answer for answer in answers]
    measured.info("cut %s of 12", lengths.count(-1))
    assert max(lengths) > 0, "those through the other go on"
    assert [await get(site) for _ in range(20)] == [200] * 20
