"""One connection to a relay of the gate, from its hello to its end, and what it said last."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from importlib.metadata import version

from saia_engine.edge.text import plain
from saia_engine.wire.frames import NotOurPeer, WireError
from saia_engine.wire.messages import Admin, Control, Hello, Renew, Routes
from saia_engine.wire.mux import Mux, MuxClosed
from saia_proxy.transports import Connect, Link, Trouble, Unusable

VERSION = version("saia")
PROGRAM = f"saia-proxy/{VERSION}"
_numbers = itertools.count(1)


class Relay:
    """Made by `connect`, ended by `close`. A relay that is lost has said so by `on_lost`, once, and at once."""

    def __init__(self) -> None:
        self.name = f"{os.getpid()}.{next(_numbers)}"
        """In the logs: no other of this proxy, in whichever worker, has the same."""
        self.link: Link
        self.mux: Mux
        self.hello: Hello
        self.routes: Routes
        self.admin: Admin | None = None
        self.retired = False
        """It gets no new streams."""
        self.on_change: Callable[[], object] = _nobody
        """Called when it has told something, or was retired."""
        self.on_lost: Callable[[], object] = _nobody
        self.on_round_trip: Callable[[float], None] = _nobody
        """Told how many seconds a ping and its answer took."""
        self._told = asyncio.Event()
        self._due = asyncio.Event()

    @property
    def lost(self) -> bool:
        return self.mux.closed

    @property
    def streams(self) -> int:
        return len(self.mux.streams)

    async def due(self) -> None:
        """Returns once it is lost, or asks to be renewed."""
        await self._due.wait()

    async def lost_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.mux.wait_closed()
        except TimeoutError:
            return False
        return True

    def retire(self) -> None:
        """From now on it only ends what it has."""
        self.retired = True
        self.on_change()

    async def finish(self, longest_s: float) -> None:
        """Closes it once its last stream has ended, or after that time."""
        try:
            async with asyncio.timeout(longest_s):
                await self.mux.wait_idle()
        except TimeoutError:
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        await self.link.close()

    def make_mux(self, write: Callable[[bytes], None]) -> Mux:
        self.mux = Mux(
            write,
            program=PROGRAM,
            on_control=self._heard,
            on_closed=self._ended,
            alone=lambda: self.streams == 1,
            on_round_trip=lambda seconds: self.on_round_trip(seconds),
        )
        self.mux.name = self.name
        return self.mux

    async def greeted(self, timeout_s: float) -> None:
        """Returns once it has said hello and told its routes. Raises Unusable, which says what came instead."""
        try:
            async with asyncio.timeout(timeout_s):
                self.hello = await self.mux.ready()
                await self._told.wait()
        except TimeoutError:
            missing = "told no routes" if self.mux.peer else "no handshake"
            raise Unusable(Trouble.PROTOCOL, f"{missing} within {timeout_s:.0f} s") from None
        except NotOurPeer as exc:
            raise _not_ours(exc.seen) from None
        except WireError as exc:
            raise Unusable(Trouble.PROTOCOL, plain(exc, 300)) from None
        except MuxClosed:
            raise self.end() from None
        if self.lost:
            raise self.end()

    def end(self) -> Unusable:
        """How it was lost."""
        return self.link.end()

    def _heard(self, message: Control) -> None:
        if isinstance(message, Routes):
            self.routes = message
            self._told.set()
        elif isinstance(message, Admin):
            self.admin = message
        else:
            if isinstance(message, Renew):
                self._due.set()
            return
        self.on_change()

    def _ended(self, why: str) -> None:
        self._told.set()
        self._due.set()
        self.on_lost()


async def connect(start: Connect, timeout_s: float) -> Relay:
    """A relay that has greeted. Raises Unusable."""
    relay = Relay()
    relay.link = await start(relay.make_mux)
    try:
        await relay.greeted(relay.link.connect_s + timeout_s)
    except BaseException:
        await relay.close()
        raise
    return relay


def _nobody(*_: object) -> None:
    pass


def _not_ours(seen: bytes) -> Unusable:
    text = plain(seen.strip(), 200)
    if seen.strip() == b"saia-gate: refused":  # it tells no more to one that may have no right to know
        hint = "is this proxy's name among the engine's [proxies], and its key's line that of gate-key?"
        return Unusable(Trouble.GATE_REFUSED, f"{text}; {hint}")
    if seen.startswith(b"saia-gate: "):
        return Unusable(Trouble.GATE_REFUSED, text)
    hint = "does a shell start-up file of the gate's account print, or is its key not restricted?"
    return Unusable(Trouble.UNEXPECTED_OUTPUT, f"'{text}'; {hint}")
