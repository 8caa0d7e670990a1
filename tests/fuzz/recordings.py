"""Valid bytes to begin with: what two muxes, a gate and an agent, a service and its client really say."""

from __future__ import annotations

import asyncio
import random

from saia_engine import agent
from saia_engine.wire import messages
from saia_engine.wire.messages import (
    Admin,
    Applied,
    Head,
    InstanceState,
    Metrics,
    Open,
    Renew,
    Routes,
    ServiceState,
)
from saia_engine.wire.stream import StreamReset
from tests.unit.wire_pair import Pair, settle

SECRET, CLIENT_NONCE, AGENT_NONCE = "5a" * 32, "1b" * 16, "2c" * 16
INSTANCE, GENERATION = "k7f3.hpc.chat.ab12", 3


async def tunnel(dice: random.Random) -> tuple[bytes, bytes]:
    """(what the proxy said, what the gate said) on a connection with a few requests of every kind of end."""
    said = {"up": b"", "down": b""}
    async with Pair() as pair:
        for name, pipe in (("up", pair.up), ("down", pair.down)):
            sink = pipe.sink.data_received

            def tap(data: bytes, name: str = name, sink=sink) -> None:
                said[name] += data
                sink(data)

            pipe.sink.data_received = tap  # type: ignore[method-assign]
        # The greeting went before the tap: both sides say it anew, as a new pair would.
        pair.gate.control(_routes(dice))
        pair.gate.control(Admin(dice.randrange(9), maintenance=dice.random() < 0.5))
        pair.proxy.control(Applied(1, 2))
        pair.gate.control(Renew())
        pair.proxy.control(Metrics("0.1.0", {"chat": dice.randrange(9)}))
        await asyncio.gather(*(_exchange(dice, pair, number) for number in range(1, dice.randint(2, 6))))
        await settle()
    hello = messages.pack(messages.Hello(1, "recorded"))
    greeting = b"\0saia\1\r\n" + len(hello).to_bytes(4, "big") + b"\0\0\0\0\0" + hello
    return greeting + said["up"], greeting + said["down"]


async def _exchange(dice: random.Random, pair: Pair, number: int) -> None:
    stream = pair.proxy.open(
        Open("i", "POST", f"/v1/{number}", [("accept", "*/*"), ("x", "é")], f"req_{number}")
    )
    how = dice.choice(["whole", "whole", "refused", "cancelled", "lost", "early"])
    question, answer = (dice.randbytes(dice.choice([0, 1, 900, 70_000])) for _ in range(2))
    await settle()
    theirs = next(opened for opened in pair.opened if opened.id == stream.id)
    try:
        if how == "refused":
            theirs.reset(messages.DRAINING, "this instance drains")
        await stream.send(question)
        if how == "early":
            theirs.respond(Head(413, [("content-length", "0")]))
            theirs.end()
        stream.end()
        await _take(theirs, len(question))
        if how == "early":
            return
        theirs.respond(Head(200, [("content-type", "text/plain")]))
        if how == "cancelled":
            stream.reset(messages.CANCELLED, "the client went away")
        await theirs.send(answer)
        if how == "lost":
            theirs.reset(messages.INSTANCE_LOST)
        theirs.end()
        await _take(stream, len(answer))
    except StreamReset:
        pass


async def _take(stream, size: int) -> None:
    while size > 0 and (data := await stream.receive()):
        size -= len(data)


def _routes(dice: random.Random) -> Routes:
    services = [ServiceState("chat", ["llama"], ["POST"], ["/v1/"], 2, 2, 0)]
    instances = [
        InstanceState(f"k7f3.hpc.chat.{number}", "chat", 0, 1e9, 2e9) for number in range(dice.randrange(4))
    ]
    return Routes(dice.randrange(100), services, instances)


def proof(speaker: str, role: str) -> bytes:
    words = (role, INSTANCE, GENERATION, CLIENT_NONCE, AGENT_NONCE)
    return agent.proof_line(agent.mac(SECRET, speaker, *words))


def to_agent(role: str) -> bytes:
    """All that a client says to prove itself."""
    return agent.hello_line(role, CLIENT_NONCE) + proof(agent.CLIENT, role)


def to_client(role: str) -> bytes:
    """All that an agent answers, with a first word of what follows."""
    return agent.nonce_line(AGENT_NONCE) + proof(agent.AGENT, role) + b"first word"


def response(dice: random.Random) -> bytes:
    """What a service might answer."""
    body = dice.randbytes(dice.choice([0, 1, 300, 20_000]))
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * dice.choice([0, 0, 0, 1, 2])
    kind = dice.randrange(6)
    if kind == 0:
        return interim + b"HTTP/1.1 200 OK\r\n\r\n" + body
    if kind == 1:
        cut = dice.randint(0, len(body))
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
        trailer = dice.choice([b"", b"X-Sum: 1\r\n"])
        return (
            interim
            + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
            + chunks
            + b"0\r\n"
            + trailer
            + b"\r\n"
        )
    if kind == 2:
        return b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + body
    if kind == 3:
        return b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    status = dice.choice([200, 206, 404, 500])
    head = b"HTTP/1.1 %d Fine\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % (status, len(body))
    return interim + head + body
