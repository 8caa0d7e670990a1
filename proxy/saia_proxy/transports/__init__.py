"""How the proxy reaches a gate: the port that both transports fill."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

from saia_engine.edge.text import plain
from saia_engine.wire.mux import Mux

EXIT_WAIT_S = 1.0
"""After the end of the gate's output: how long its exit status may take to arrive."""
STDERR_KEPT = 400
VERB = "relay"
LIFELINE = "SAIA_LIFELINE_FD"
"""Environment variable: a pipe whose end means that the demo is over."""


class Trouble(StrEnum):
    """Why an upstream can't be used; the words that operators see."""

    KEY_REFUSED = "key refused"
    HOST_KEY = "host key mismatch"
    UNREACHABLE = "host unreachable"
    UNEXPECTED_OUTPUT = "unexpected output before the handshake"
    GATE_REFUSED = "refused by the gate"
    GATE_ENDED = "connection ended"
    PROTOCOL = "protocol error"
    LOCAL = "not usable here"


class Unusable(Exception):
    """An upstream could not be connected. The text is one safe line that says what to do."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(f"{trouble}: {text}" if text else str(trouble))
        self.trouble = trouble


MakeMux = Callable[[Callable[[bytes], None]], Mux]


class Link:
    """One running gate with the mux that talks to it. A transport calls `start` once bytes can flow."""

    def __init__(self, make_mux: MakeMux) -> None:
        self._make_mux = make_mux
        self.mux: Mux
        self.exit_status: int | None = None
        self.connect_s = 0.0
        """How long it may take to connect after it was started; then the handshake's own time begins."""
        self.stderr = b""

    def start(self, write: Callable[[bytes], None]) -> None:
        self.mux = self._make_mux(write)

    async def close(self) -> None:
        """End the gate and wait until it is gone."""
        raise NotImplementedError

    def keep_stderr(self, data: bytes) -> None:
        self.stderr = (self.stderr + data)[-STDERR_KEPT:]

    def output_ended(self) -> None:
        """Nothing more comes, but the exit status may."""
        asyncio.get_running_loop().call_later(EXIT_WAIT_S, self.ended)

    def ended(self) -> None:
        self.mux.connection_lost(self.epitaph())

    def end(self) -> Unusable:
        """Why it is of no more use."""
        return Unusable(Trouble.GATE_ENDED, plain(self.mux.closed_because, 500))

    def epitaph(self) -> str:
        """How the gate ended, as far as known."""
        text = "the gate ended" + (f" with status {self.exit_status}" if self.exit_status is not None else "")
        said = plain(self.stderr.strip(), STDERR_KEPT)
        return f"{text}: {said}" if said else text


Connect = Callable[[MakeMux], Awaitable[Link]]
"""Starts a gate. Raises Unusable."""
