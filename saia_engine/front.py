"""Client of the agent's front, for engine and gate: the proof both ways, and the files that agents write.

Every FrontError is raised before a byte of a request could be sent, so the instance provably did not take it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from saia_engine import agent
from saia_engine.agent import CONTROL, DATA, PROTOCOL, WATCH, endpoint_name, exit_name

__all__ = [
    "CONTROL",
    "DATA",
    "PROTOCOL",
    "WATCH",
    "Endpoint",
    "EndpointFault",
    "ExitRecord",
    "FrontError",
    "FrontRefused",
    "FrontUnreachable",
    "FrontUntrusted",
    "connect",
    "connect_protocol",
    "endpoint_name",
    "exit_name",
    "parse_endpoint",
    "parse_exit",
]


BUSY_PAUSE_S = 0.05
P = TypeVar("P", bound=asyncio.Protocol)


class FrontError(Exception):
    """No proven connection came about; the instance took nothing."""


class FrontRefused(FrontError):
    """The front answered with a refusal; `code` is one of agent.REFUSALS."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the agent's front refused: {code}")
        self.code = code


class FrontUnreachable(FrontError):
    """No connection, or no whole handshake in time."""


class FrontUntrusted(FrontError):
    """Whoever answered does not know the secret, or does not speak the front's protocol."""


# ---------------------------------------------------------------- connections


async def connect(
    host: str,
    port: int,
    role: str,
    *,
    secret: str,
    instance: str,
    generation: int,
    timeout_s: float = agent.HANDSHAKE_S,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams of a connection proven both ways. Raises FrontError within `timeout_s` seconds."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await connect_protocol(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
        host,
        port,
        role,
        secret=secret,
        instance=instance,
        generation=generation,
        timeout_s=timeout_s,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def connect_protocol(
    factory: Callable[[], P],
    host: str,
    port: int,
    role: str,
    *,
    secret: str,
    instance: str,
    generation: int,
    timeout_s: float = agent.HANDSHAKE_S,
) -> tuple[asyncio.Transport, P]:
    """As `connect`, for a protocol of the caller's.

    The protocol's `connection_made` is called once both sides are proven, and at once after it `data_received`
    with whatever came along with the agent's proof. A front that is crowded is tried again until `timeout_s`.
    """
    crowded: FrontRefused | None = None
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await _attempt(_Handshake(factory, role, secret, instance, generation), host, port)
                except FrontRefused as refusal:
                    if refusal.code != "busy":
                        raise
                    crowded = refusal
                await asyncio.sleep(BUSY_PAUSE_S * (1 + random.random()))
    except TimeoutError:
        late = FrontUnreachable(f"no whole handshake with {host}:{port} within {timeout_s:g} s")
        raise crowded or late from None
    except (OSError, ValueError) as fault:  # ValueError: a host that can't be a name
        raise FrontUnreachable(f"no connection to {host}:{port}: {fault}") from None


async def _attempt(handshake: _Handshake[P], host: str, port: int) -> tuple[asyncio.Transport, P]:
    try:
        await asyncio.get_running_loop().create_connection(lambda: handshake, host, port)
        return await handshake.done
    except BaseException:
        handshake.give_up()
        raise


class _Handshake(asyncio.Protocol, Generic[P]):
    """The client's side of the proof; then it makes way for the protocol of the caller."""

    def __init__(
        self, factory: Callable[[], P], role: str, secret: str, instance: str, generation: int
    ) -> None:
        self.done: asyncio.Future[tuple[asyncio.Transport, P]] = asyncio.get_running_loop().create_future()
        self._factory = factory
        self._role = role
        self._identity = (instance, generation)
        self._secret = secret
        self._nonce = agent.new_nonce()
        self._agent_nonce = ""
        self._received = b""
        self._budget = agent.HANDSHAKE_BYTES
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(agent.hello_line(self._role, self._nonce))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(FrontUnreachable(f"the connection ended during the handshake: {exc or 'closed'}"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        while not self.done.done():
            line, newline, rest = self._received.partition(b"\n")
            if len(line) >= self._budget:
                self._fail(FrontUntrusted("the answer is longer than a handshake may be"))
            elif not newline:
                return
            else:
                self._budget -= len(line) + 1
                self._received = rest
                self._take(line)

    def _take(self, line: bytes) -> None:
        word, _, value = line.decode("ascii", "replace").partition(" ")
        if word == "refused" and value in agent.REFUSALS:
            self._fail(FrontRefused(value))
        elif word == "nonce" and not self._agent_nonce and agent.NONCE.fullmatch(value):
            self._agent_nonce = value
            self._write(agent.proof_line(self._proof(agent.CLIENT)))
        elif word == "proof" and self._agent_nonce and self._matches(value):
            self._make_way()
        else:
            self._fail(FrontUntrusted("the answer proves no knowledge of the secret"))

    def _matches(self, proof: str) -> bool:
        return hmac.compare_digest(proof.encode(), self._proof(agent.AGENT).encode())

    def _proof(self, speaker: str) -> str:
        return agent.mac(self._secret, speaker, self._role, *self._identity, self._nonce, self._agent_nonce)

    def _make_way(self) -> None:
        transport = self._transport
        assert transport is not None
        protocol = self._factory()
        transport.set_protocol(protocol)
        self.done.set_result((transport, protocol))
        protocol.connection_made(transport)
        if self._received:
            protocol.data_received(self._received)

    def _write(self, line: bytes) -> None:
        assert self._transport is not None
        self._transport.write(line)

    def _fail(self, fault: FrontError) -> None:
        if not self.done.done():
            self.done.set_exception(fault)
        if self._transport is not None:
            self._transport.abort()

    def give_up(self) -> None:
        """Nobody waits any more: leaves nothing behind."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()
        if self._transport is not None:
            self._transport.abort()


# ---------------------------------------------------------------- files in the instance directory

FILE_MAX = 4096
"""Characters; what an agent writes is a tenth of it."""


class EndpointFault(ValueError):
    """An endpoint file or exit record that can't be believed; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is believed of an endpoint file. The address to use is Slurm's, never `host`."""

    port: int
    protocol: int
    gate_secret: str
    control_secret: str
    host: str
    """The host's own word, which serves only to raise an alarm where it contradicts Slurm's."""


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a service ended, in its agent's word."""

    exit_code: int
    signal: int | None
    stopped_by: str
    """`service`: it ended by itself; `term`: it was asked to."""
    at: float
    """Seconds since the epoch, by the node's clock."""


def parse_endpoint(text: str, port_range: tuple[int, int] = (1, 65535)) -> Endpoint:
    """The believed part of an endpoint file. Raises EndpointFault."""
    content = _parse(text)
    low, high = port_range
    endpoint = Endpoint(
        port=_number(content, "port", low, high),
        protocol=_number(content, "protocol", 1, 1000),
        gate_secret=_word(content, "gate_secret", agent.SECRET),
        control_secret=_word(content, "control_secret", agent.SECRET),
        host=_word(content, "host", re.compile("[A-Za-z0-9._:-]{1,253}")),
    )
    if endpoint.gate_secret == endpoint.control_secret:
        raise EndpointFault("gate_secret and control_secret must differ")
    return endpoint


def parse_exit(text: str) -> ExitRecord:
    """An exit record. Raises EndpointFault."""
    content = _parse(text)
    at = content.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < math.inf:
        raise EndpointFault("'at' must be a time in seconds")
    return ExitRecord(
        exit_code=_number(content, "exit_code", 0, 255),
        signal=None if content.get("signal") is None else _number(content, "signal", 1, 64),
        stopped_by=_word(content, "stopped_by", re.compile("service|term")),
        at=float(at),
    )


def _parse(text: str) -> dict[str, Any]:
    if len(text) > FILE_MAX:
        raise EndpointFault(f"longer than {FILE_MAX} characters")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise EndpointFault("not JSON") from None
    if not isinstance(content, dict):
        raise EndpointFault("not a JSON object")
    _number(content, "version", agent.FILE_VERSION, agent.FILE_VERSION)
    return content


def _number(content: dict[str, Any], key: str, low: int, high: int) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        span = str(low) if low == high else f"a whole number from {low} to {high}"
        raise EndpointFault(f"'{key}' must be {span}")
    return value


def _word(content: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    value = content.get(key)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise EndpointFault(f"'{key}' is missing or malformed")
    return value
