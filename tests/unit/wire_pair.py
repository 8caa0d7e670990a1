"""Two muxes joined in memory, as a proxy and a gate are by SSH, with a transport that can be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from saia_engine.wire.messages import Control, Open
from saia_engine.wire.mux import Mux, Stream


class Pipe:
    """Bytes one way: in chunks of a chosen size, while it is not stopped."""

    def __init__(self, chunk: Callable[[], int] = lambda: 1 << 20) -> None:
        self.sink: Mux
        self.source: Mux
        self.written = 0
        self.stopped = False
        self._chunk = chunk
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self._held += data
        if self.stopped:
            self.source.pause_writing()
        else:
            asyncio.get_running_loop().call_soon(self._pass_on)

    def stop(self) -> None:
        self.stopped = True

    def go(self) -> None:
        self.stopped = False
        self._pass_on()
        self.source.resume_writing()

    @property
    def held(self) -> int:
        return len(self._held)

    def _pass_on(self) -> None:
        while self._held and not self.stopped:
            size = max(1, self._chunk())
            part = bytes(self._held[:size])
            del self._held[:size]
            self.sink.data_received(part)


class Pair:
    """`proxy` opens streams, `gate` serves them; what each was told is kept."""

    def __init__(self, *, chunk: Callable[[], int] = lambda: 1 << 20, **gate_options: int) -> None:
        self.up, self.down = Pipe(chunk), Pipe(chunk)
        self.opened: list[Stream] = []
        self.at_proxy: list[Control] = []
        self.at_gate: list[Control] = []
        self.proxy = Mux(self.up.write, program="proxy", on_control=self.at_proxy.append)
        self.gate = Mux(
            self.down.write,
            program="gate",
            on_control=self.at_gate.append,
            on_open=self.opened.append,
            **gate_options,
        )
        self.up.source = self.down.sink = self.proxy
        self.up.sink = self.down.source = self.gate

    async def __aenter__(self) -> Pair:
        await self.proxy.ready()
        await self.gate.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.proxy.close("the test is over")
        self.gate.close("the test is over")

    async def open(self, path: str = "/v1/x") -> tuple[Stream, Stream]:
        """One new stream, as both ends see it."""
        ours = self.proxy.open(Open(instance="i", method="POST", path=path))
        await settle()
        return ours, self.opened[-1]


async def settle() -> None:
    """Lets all that is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)
