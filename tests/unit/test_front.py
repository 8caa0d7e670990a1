"""The client of the front, against honest agents and impostors; and what is believed of an agent's files."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from saia_engine import agent, front
from tests.unit.agent_support import Agents

SECRET, OTHER_SECRET = "ab" * 32, "cd" * 32
INSTANCE = "k7f3.hpc.chat.ab12"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(talk: Talk) -> AsyncIterator[dict[str, Any]]:
    """A listener that says what `talk` says; yields what to call `front.connect` with."""
    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "role": front.DATA}
    try:
        yield address | {"secret": SECRET, "instance": INSTANCE, "generation": 1}
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def honest(surplus: bytes = b"", secret: str = SECRET, speaker: str = agent.AGENT) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, role, nonce = (await reader.readline()).decode().split()
        writer.write(agent.nonce_line("7" * 32))
        await reader.readline()
        proof = agent.mac(secret, speaker, role, INSTANCE, 1, nonce, "7" * 32)
        writer.write(agent.proof_line(proof) + surplus)
        while chunk := await reader.read(1000):
            writer.write(chunk)

    return talk


def says(*answers: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readline()
            writer.write(answer)
        await reader.read()

    return talk


NONCE_LINE = agent.nonce_line("7" * 32)


async def test_proof_both_ways_then_raw_bytes():
    async with peer(honest(surplus=b"already ")) as address:
        reader, writer = await front.connect(**address)
        writer.write(b"here")
        assert await reader.readexactly(12) == b"already here"
        writer.close()
        await writer.wait_closed()


async def test_protocol_gets_the_connection_and_the_surplus_in_order():
    heard: list[object] = []

    class Listener(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            heard.append("made")

        def data_received(self, data: bytes) -> None:
            heard.append(data)

    async with peer(honest(surplus=b"early")) as address:
        transport, protocol = await front.connect_protocol(Listener, **address)
        assert isinstance(protocol, Listener)
        assert heard == ["made", b"early"]
        transport.abort()


async def test_protocol_on_a_real_agent(short_lived_agents: Agents):
    running = short_lived_agents.start()
    await running.ready()
    ended = asyncio.get_running_loop().create_future()
    received = bytearray()

    class Collector(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set_result(exc)

    transport, _ = await front.connect_protocol(Collector, **running.address(front.DATA))
    transport.write(b"GET /stream/3 HTTP/1.1\r\n\r\n")
    assert await asyncio.wait_for(ended, 5) is None
    assert received.endswith(b"data: 0\ndata: 1\ndata: 2\n")


@pytest.fixture
def short_lived_agents() -> Iterator[Agents]:
    started = Agents()
    yield started
    started.close()


@pytest.mark.parametrize("code", agent.REFUSALS)
async def test_refusal_at_either_point(code: str):
    for answers in ([agent.refusal_line(code)], [NONCE_LINE, agent.refusal_line(code)]):
        async with peer(says(*answers)) as address:
            with pytest.raises(front.FrontRefused) as refused:
                await front.connect(**address, timeout_s=0.3)
            assert refused.value.code == code


async def test_crowded_front_is_tried_again():
    refusals = [b"refused busy\n", b"refused busy\n"]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if refusals:
            writer.write(refusals.pop())
        else:
            await honest()(reader, writer)

    async with peer(talk) as address:
        reader, writer = await front.connect(**address)
        writer.write(b"in")
        assert await reader.readexactly(2) == b"in"
        writer.close()


@pytest.mark.parametrize(
    "talk",
    [
        honest(secret=OTHER_SECRET),
        honest(speaker=agent.CLIENT),
        says(agent.proof_line("0" * 64)),
        says(NONCE_LINE, NONCE_LINE),
        says(NONCE_LINE, b"proof \xff\n"),
        says(b"nonce " + b"7" * 31 + b"\n"),
        says(b"refused because\n"),
        says(b"HTTP/1.1 400 Bad Request\r\n"),
        says(b"x" * 300),
        says(b"\n"),
    ],
)
async def test_impostor_is_not_trusted(talk: Talk):
    async with peer(talk) as address:
        with pytest.raises(front.FrontUntrusted):
            await front.connect(**address)


async def test_impostor_that_echoes_our_proof_is_not_trusted():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = (await reader.readline()).split()[3]
        writer.write(b"nonce " + nonce + b"\n")
        writer.write(await reader.readline())
        await reader.read()

    async with peer(talk) as address:
        with pytest.raises(front.FrontUntrusted):
            await front.connect(**address)


async def test_silence_and_a_closed_door_are_unreachable():
    async with peer(says(b"")) as address:
        with pytest.raises(front.FrontUnreachable, match=r"within 0\.1 s"):
            await front.connect(**address, timeout_s=0.1)
    with pytest.raises(front.FrontUnreachable, match="no connection"):
        await front.connect(**address)

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    async with peer(hangs_up) as address:
        with pytest.raises(front.FrontUnreachable, match="ended during the handshake"):
            await front.connect(**address)


@pytest.mark.parametrize("host", ["a\0b", "x" * 300, "..", "no-such-host.invalid"])
async def test_host_that_is_no_host_is_unreachable(host: str):
    with pytest.raises(front.FrontUnreachable):
        await front.connect(host, 1, front.DATA, secret=SECRET, instance=INSTANCE, generation=0)


async def test_cancelled_connect_leaves_no_connection_behind():
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asking.cancel()
        await reader.read()
        closed.set()

    async with peer(talk) as address:
        asking = asyncio.ensure_future(front.connect(**address))
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(closed.wait(), 2)


# ---------------------------------------------------------------- files

ENDPOINT = {
    "version": 1,
    "protocol": 1,
    "instance": INSTANCE,
    "generation": 0,
    "host": "gpu01",
    "port": 20017,
    "gate_secret": SECRET,
    "control_secret": OTHER_SECRET,
    "written_at": 1700000000.0,
}
EXIT = {
    "version": 1,
    "instance": INSTANCE,
    "generation": 0,
    "exit_code": 143,
    "signal": 15,
    "stopped_by": "term",
    "at": 1700000000.0,
}


def test_endpoint_as_an_agent_writes_it():
    endpoint = front.parse_endpoint(json.dumps(ENDPOINT), port_range=(20000, 20999))
    assert endpoint == front.Endpoint(20017, 1, SECRET, OTHER_SECRET, "gpu01")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("port", 22),
        ("port", "20017"),
        ("port", True),
        ("port", 20017.0),
        ("protocol", 0),
        ("protocol", None),
        ("gate_secret", SECRET.upper()),
        ("gate_secret", SECRET + "\n"),
        ("gate_secret", OTHER_SECRET),
        ("control_secret", ["x"]),
        ("host", "gpu01\x1b]52;c;eA==\x07"),
        ("host", ""),
        ("host", "h" * 5000),
    ],
)
def test_endpoint_with_a_hostile_field_is_a_fault(key: str, value: object):
    with pytest.raises(front.EndpointFault):
        front.parse_endpoint(json.dumps(ENDPOINT | {key: value}), port_range=(20000, 20999))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "[" * 4000, "9" * 5000, "NaN", '{"version": 1}', "\0"]
)
def test_file_that_is_no_record_is_a_fault(text: str):
    for parse in (front.parse_endpoint, front.parse_exit):
        with pytest.raises(front.EndpointFault):
            parse(text)


def test_exit_record_as_an_agent_writes_it():
    assert front.parse_exit(json.dumps(EXIT)) == front.ExitRecord(143, 15, "term", 1700000000.0)
    assert front.parse_exit(json.dumps(EXIT | {"signal": None, "exit_code": 0})).signal is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("exit_code", 256),
        ("exit_code", None),
        ("signal", "TERM"),
        ("stopped_by", "root"),
        ("at", float("inf")),
    ],
)
def test_exit_record_with_a_hostile_field_is_a_fault(key: str, value: object):
    with pytest.raises(front.EndpointFault):
        front.parse_exit(json.dumps(EXIT | {key: value}))
