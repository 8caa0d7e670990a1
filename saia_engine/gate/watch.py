"""The gate's one proven connection to an instance on which the agent says that it serves, or drains."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable

import msgspec

from saia_engine import agent
from saia_engine.front import FrontError, FrontUnreachable
from saia_engine.wire.stream import Bell

FIRST_WORD_S = 2.0
"""How long a request waits for a watch that had no time yet: a new one, or one that was just lost. Where nobody listens
there is nothing to wait for."""
RETRY_FIRST_S, RETRY_MOST_S = 0.1, 3.0
LONGEST_LINE = 4096

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Word(msgspec.Struct):
    """A line of a watch connection."""

    state: str
    ready: bool = False
    open: int = 0


class Watch:
    """Keeps the connection until closed. `changed` is called when what it says changes, or it is lost or found."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], changed: Callable[[], None]) -> None:
        self._connect = connect
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._decoder = msgspec.json.Decoder(Word)
        self._heard_at: float | None = None
        self._since = self._loop.time()
        self._bell = Bell()
        self.draining = False
        self._task = self._loop.create_task(self._run())

    @property
    def live(self) -> bool:
        return self._heard_at is not None and self._loop.time() - self._heard_at < agent.LIVE_S

    @property
    def young(self) -> bool:
        """It had no time yet for a first word on this connection."""
        return self._heard_at is None and self._loop.time() - self._since < FIRST_WORD_S

    async def settled(self) -> None:
        """Returns once it is live, draining or no longer young."""
        while self.young and not self.draining:
            left_s = FIRST_WORD_S - (self._loop.time() - self._since)
            try:
                async with asyncio.timeout(max(left_s, 0.001)):
                    await self._bell.wait()
            except TimeoutError:
                pass

    def close(self) -> None:
        self._task.cancel()
        self._since = -math.inf
        self._bell.ring()

    def drains(self) -> None:
        """The agent said so, here or when it refused a connection."""
        if not self.draining:
            self.draining = True
            self._tell()

    async def _run(self) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                reader, writer = await self._connect()
            except FrontUnreachable:
                if self.young:
                    self._since = -math.inf
                    self._tell()
            except FrontError:
                pass
            else:
                try:
                    await self._listen(reader)
                except (
                    OSError,
                    msgspec.MsgspecError,
                    asyncio.IncompleteReadError,
                    asyncio.LimitOverrunError,
                ):
                    pass
                finally:
                    writer.transport.abort()
                if self._heard_at is not None:
                    delay_s = RETRY_FIRST_S
                    self._heard_at, self._since = None, self._loop.time()
                    self._tell()
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, RETRY_MOST_S)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Until the connection ends, is silent for too long, or says what is no word."""
        while True:
            async with asyncio.timeout(agent.LIVE_S):
                line = await reader.readuntil(b"\n")
            if len(line) > LONGEST_LINE:
                return
            word = self._decoder.decode(line)
            first = not self.live
            self._heard_at = self._loop.time()
            draining = word.state != agent.SERVING
            if first or draining != self.draining:
                self.draining = draining
                self._tell()

    def _tell(self) -> None:
        self._bell.ring()
        self._changed()
