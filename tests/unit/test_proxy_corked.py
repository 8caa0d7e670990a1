from __future__ import annotations

import asyncio

import pytest

from saia_proxy.corked import FLUSH_AT, Corked


class Wire:
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("closed")

    def abort(self) -> None:
        self.told.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.told


@pytest.fixture
def wire() -> Wire:
    return Wire()


async def corked(wire: Wire) -> Corked:
    return Corked(wire, asyncio.get_running_loop())  # type: ignore[arg-type]


async def test_what_one_turn_writes_goes_as_one_piece_at_its_end(wire: Wire):
    transport = await corked(wire)
    transport.write(b"head")
    transport.write(b"body")
    assert wire.told == []
    await asyncio.sleep(0)
    assert wire.told == [b"headbody"]
    transport.write(b"more")
    await asyncio.sleep(0)
    assert wire.told == [b"headbody", b"more"]


async def test_much_goes_at_once_so_that_the_transport_can_pause_its_writer(wire: Wire):
    transport = await corked(wire)
    transport.write(b"x" * FLUSH_AT)
    assert wire.told == [b"x" * FLUSH_AT]
    await asyncio.sleep(0)
    assert len(wire.told) == 1


@pytest.mark.parametrize(
    ("end", "told"), [("close", [b"last", "closed"]), ("write_eof", [b"last", "eof"]), ("abort", ["aborted"])]
)
async def test_an_end_comes_after_what_was_written_but_for_an_abort(wire: Wire, end: str, told: list[object]):
    transport = await corked(wire)
    transport.write(b"last")
    getattr(transport, end)()
    await asyncio.sleep(0)
    assert wire.told == told


async def test_all_else_is_the_transports_own(wire: Wire):
    transport = await corked(wire)
    assert not transport.is_closing()
    transport.close()
    assert transport.is_closing()
