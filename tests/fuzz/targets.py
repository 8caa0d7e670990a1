"""What is fed with harmed bytes, and what must hold of it whatever they are."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from saia_engine import agent, front
from saia_engine.gate.http1 import HOLD, BadResponse, Connection, ConnectionLost
from saia_engine.wire.frames import HEADER, MAGIC, MAX_PAYLOAD, Decoder, Kind, WireError
from saia_engine.wire.messages import Control, Head, Open
from saia_engine.wire.mux import WINDOW, Mux, MuxClosed
from saia_engine.wire.stream import Stream, StreamReset
from tests.fuzz import recordings
from tests.fuzz.mutations import harm, pieces, split
from tests.unit.wire_pair import settle

MEMORY = 200_000
STREAMS = 20


async def decoder(dice: random.Random) -> None:
    """Only WireError, never more in hand than one frame, and the frames that a plain reading finds."""
    said, heard = await recordings.tunnel(dice)
    data = harm(dice, said, with_frames=True, other=heard)
    whole, found = Decoder(), []
    try:
        for piece in pieces(dice, data):
            found += [tuple(frame) for frame in whole.feed(piece)]
            assert len(whole._buffer) <= MAX_PAYLOAD + HEADER.size
    except WireError:
        pass
    assert found == split(data)[0][: len(found)]


class _Peer:
    """A mux whose peer is not to be trusted, and readers that keep what each stream got."""

    def __init__(self, fed: bytes, **options: Any) -> None:
        self.sent = 0
        self.got: dict[int, bytes] = defaultdict(bytes)
        self.tasks: list[asyncio.Task[None]] = []
        self.controls: list[Control] = []
        self.expected: dict[int, bytes] = defaultdict(bytes)
        for kind, stream, payload in split(fed)[0] if fed.startswith(MAGIC) else ():
            if kind == Kind.DATA:
                self.expected[stream] += payload
        self.mux = Mux(self._write, program="fuzzed", on_control=self.controls.append, **options)

    def _write(self, data: bytes) -> None:
        self.sent += len(data)

    def read(self, stream: Stream, then: Any = None) -> None:
        self.tasks.append(asyncio.ensure_future(self._read(stream, then)))

    async def _read(self, stream: Stream, then: Any) -> None:
        try:
            if then is not None:
                then(stream)
            while data := await stream.receive():
                self.got[stream.id] += data
            if stream.request.method == "POST":
                stream.end()
        except StreamReset:
            pass
        finally:
            stream.reset("cancelled")

    async def feed(self, dice: random.Random, data: bytes) -> None:
        for piece in pieces(dice, data):
            self.mux.data_received(piece)
            if dice.random() < 0.5:
                await asyncio.sleep(0)
            if dice.random() < 0.02:
                self.mux.pause_writing()
            elif dice.random() < 0.1:
                self.mux.resume_writing()
            self.check()
        self.mux.resume_writing()
        await settle()
        self.check()
        self.mux.connection_lost("the end of the fuzz")
        await settle()
        assert all(task.done() for task in self.tasks), "somebody still waits"
        for task in self.tasks:
            task.result()
        assert not self.mux.streams and self.mux.buffered == 0 and not self.mux._held
        for number, got in self.got.items():
            assert self.expected[number].startswith(got), f"stream {number} got what was not sent on it"
        assert self.sent < 3 * MEMORY + 100 * len(data)

    def check(self) -> None:
        mux = self.mux
        assert mux.buffered <= MEMORY and len(mux.streams) <= STREAMS
        assert len(mux._decoder._buffer) <= MAX_PAYLOAD + HEADER.size or mux.closed
        assert mux._out_size <= mux.buffer_limit + MAX_PAYLOAD
        for stream in mux.streams.values():
            assert stream._buffered <= WINDOW and 0 <= stream._credit <= WINDOW


async def gate_mux(dice: random.Random) -> None:
    """The gate's end of a tunnel, with a proxy that breaks the rules."""
    said, heard = await recordings.tunnel(dice)
    data = harm(dice, said, with_frames=True, other=heard)

    def opened(stream: Stream) -> None:
        peer.read(stream, lambda stream: stream.respond(Head(200)))

    peer = _Peer(data, on_open=opened, buffer_limit=MEMORY, max_streams=STREAMS)
    await peer.feed(dice, data)


async def proxy_mux(dice: random.Random) -> None:
    """The proxy's end, with a gate that breaks the rules."""
    said, heard = await recordings.tunnel(dice)
    data = harm(dice, heard, with_frames=True, other=said)
    peer = _Peer(data, buffer_limit=MEMORY, max_streams=STREAMS)
    for _ in range(5):
        stream = peer.mux.open(Open("i", "POST", "/"))
        peer.read(stream)
        peer.tasks.append(asyncio.ensure_future(_ask(stream)))
    ready = asyncio.ensure_future(peer.mux.ready())
    await peer.feed(dice, data)
    assert ready.done()
    if ready.exception() is not None:
        assert isinstance(ready.exception(), WireError | MuxClosed)


async def _ask(stream: Stream) -> None:
    try:
        await stream.send(b"question" * 1000)
        await stream.response()
    except (StreamReset, RuntimeError):  # RuntimeError: its reader ended it
        pass


class _Transport:
    """Keeps what is written, and whether it was closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.paused = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, _: str) -> Any:
        return SimpleNamespace(setsockopt=lambda *_: None, fileno=lambda: -1)

    def get_write_buffer_size(self) -> int:
        return 0


async def agents_door(dice: random.Random) -> None:
    """The agent's side of the proof: whoever is let in has said exactly what proves the secret."""
    role = dice.choice(agent.ROLES)
    good = recordings.to_agent(role)
    data = harm(dice, good + dice.choice([b"", b"GET / HTTP/1.1\r\n\r\n"]), with_frames=False)
    service = SimpleNamespace()
    door = agent.Front(recordings.INSTANCE, recordings.GENERATION, service, agent.Gpus({}))  # type: ignore[arg-type]
    door.gate_secret = door.control_secret = recordings.SECRET
    joined: list[bytes] = []
    door.join = lambda handshake, surplus: joined.append(surplus)  # type: ignore[method-assign]
    left: list[Any] = []
    handshake = agent.Handshake(door, SimpleNamespace(left=left.append))  # type: ignore[arg-type]
    handshake._agent_nonce = recordings.AGENT_NONCE
    transport = _Transport()
    handshake.connection_made(transport)
    for piece in pieces(dice, data):
        if transport.closed or transport.paused or transport.protocol is not None:
            break
        handshake.data_received(piece)
    let_in = bool(joined) or transport.protocol is not None
    assert not let_in or _said(data, good), "let in without the proof"
    assert let_in or not data.startswith(good) or transport.closed is False
    assert len(transport.written) <= 2 * agent.HANDSHAKE_BYTES + 200
    assert let_in or left or len(handshake._received) < agent.HANDSHAKE_BYTES
    handshake.connection_lost(None)
    assert left


def _said(data: bytes, good: bytes) -> bool:
    """Whether these bytes begin with the proof for one of the roles."""
    return any(data.startswith(recordings.to_agent(role)) for role in agent.ROLES) or data.startswith(good)


async def gates_proof(dice: random.Random) -> None:
    """The gate's side of it: only the agent that knows the secret is believed, and every other end is named."""
    role = dice.choice([agent.DATA, agent.WATCH])
    good = recordings.to_client(role)
    if dice.random() < 0.2:
        good = dice.choice([b"", agent.nonce_line(recordings.AGENT_NONCE)]) + agent.refusal_line(
            dice.choice(agent.REFUSALS)
        )
    data = harm(dice, good, with_frames=False)
    received: list[bytes] = []
    inner = SimpleNamespace(connection_made=lambda _: None, data_received=received.append)
    words = (role, recordings.SECRET, recordings.INSTANCE, recordings.GENERATION)
    client = front._Handshake(lambda: inner, *words)  # type: ignore[arg-type, var-annotated]
    client._nonce = recordings.CLIENT_NONCE
    transport = _Transport()
    client.connection_made(transport)
    for piece in pieces(dice, data):
        if transport.closed or transport.protocol is not None:
            break
        client.data_received(piece)
        assert len(client._received) <= agent.HANDSHAKE_BYTES + len(piece)
    client.connection_lost(None)
    assert client.done.done()
    fault = client.done.exception()
    if fault is None:
        assert data.startswith(recordings.to_client(role)[: -len(b"first word")]), "believed without a proof"
    else:
        assert isinstance(fault, front.FrontError)
        assert not received


async def http_response(dice: random.Random) -> None:
    """One answer or one named fault, the same whatever the pieces; never more in hand than may be."""
    data = recordings.response(dice)
    if dice.random() < 0.9:
        data = harm(dice, data, with_frames=False, other=recordings.response(dice))
    method, upgrade = dice.choice(["GET", "GET", "HEAD"]), dice.random() < 0.5
    first = await _exchange(dice, data, method, upgrade)
    second = await _exchange(dice, data, method, upgrade)
    assert first == second, f"the pieces decided: {first} and {second}"


async def _exchange(dice: random.Random, data: bytes, method: str, upgrade: bool) -> tuple[object, ...]:
    """(status, headers, body or its beginning, how it ended, used again) of one response."""
    connection, transport = Connection(), _Transport()
    connection.connection_made(transport)
    connection.begin(method, upgrade=upgrade)
    seen: dict[str, Any] = {"status": 0, "headers": [], "body": b"", "end": "whole"}

    async def read() -> None:
        try:
            seen["status"], seen["headers"] = await connection.head()
            while part := await connection.read():
                seen["body"] += part
        except (ConnectionLost, BadResponse) as exc:
            seen["end"] = type(exc).__name__

    reader = asyncio.ensure_future(read())
    for piece in pieces(dice, data):
        if transport.closed:
            break
        connection.data_received(piece)
        response = connection._response
        assert response is not None
        assert response.size <= HOLD + len(piece)
        assert len(response.headers) <= HOLD + len(piece)
        while transport.paused and not reader.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            await asyncio.sleep(0)
    if not transport.closed:
        connection.eof_received()
    connection.connection_lost(None)
    await asyncio.wait_for(reader, 5)
    assert not connection.reusable
    return tuple(seen.values())


TARGETS = {
    "decoder": decoder,
    "gate-mux": gate_mux,
    "proxy-mux": proxy_mux,
    "agents-door": agents_door,
    "gates-proof": gates_proof,
    "http-response": http_response,
}
