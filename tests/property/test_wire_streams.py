"""Whatever the pieces, the order and the bytes: bodies arrive whole, and nothing a peer sends crashes a mux."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from saia_engine.wire import messages
from saia_engine.wire.frames import MAGIC, Decoder, Kind, WireError, encode
from saia_engine.wire.messages import Head, Hello, Open, pack
from saia_engine.wire.mux import WINDOW, Mux, Stream, StreamReset
from tests.unit.wire_pair import Pair, settle

quickly = settings(deadline=None, max_examples=60)
frames = st.tuples(st.sampled_from(list(Kind)), st.integers(0, 2**32 - 1), st.binary(max_size=300))


@quickly
@given(st.lists(frames, max_size=20), st.integers(0, 2**32))
def test_decoding_undoes_encoding_for_all_pieces(sent, seed):
    dice = random.Random(seed)
    data = MAGIC + b"".join(encode(*frame) for frame in sent)
    decoder, received = Decoder(), []
    while data:
        size = dice.randint(1, 50)
        received += decoder.feed(data[:size])
        data = data[size:]
    assert [tuple(frame) for frame in received] == sent


@quickly
@given(st.binary(max_size=500), st.booleans())
def test_garbage_is_a_wire_error_or_waits_for_more(data, greeted):
    try:
        list(Decoder().feed((MAGIC if greeted else b"") + data))
    except WireError:
        pass


@quickly
@given(
    st.lists(
        frames | st.tuples(st.sampled_from(list(Kind)), st.integers(0, 3), st.binary(max_size=30)),
        max_size=30,
    )
)
def test_no_sequence_of_frames_crashes_a_mux_or_loses_count(sent):
    async def run() -> None:
        written, opened = [], []
        mux = Mux(written.append, program="t", on_control=lambda _: None, on_open=opened.append)
        mux.data_received(MAGIC + encode(Kind.HELLO, 0, pack(Hello(1))))
        for number in (1, 2):
            mux.data_received(encode(Kind.OPEN, number, pack(Open("i", "GET", "/"))))
        for frame in sent:
            mux.data_received(encode(*frame))
        await settle()
        assert mux.buffered == sum(stream._buffered for stream in mux.streams.values())
        mux.close("over")
        assert not mux.streams and mux.buffered >= 0
        for stream in opened:
            stream.reset(messages.CANCELLED)
        assert mux.buffered == 0

    asyncio.run(run())


class Echo:
    """One exchange: the request's body comes back, unless one side resets half way."""

    def __init__(self, dice: random.Random, pair: Pair) -> None:
        self.body = dice.randbytes(dice.choice([0, 1, 1000, 70_000, WINDOW + 1, 3 * WINDOW]))
        self.quits = dice.choice(["", "", "", "proxy", "gate"])
        self._dice = dice
        self._pair = pair

    async def ask(self) -> None:
        stream = self._pair.proxy.open(Open("i", "POST", "/"))
        sender = asyncio.create_task(self._send(stream))
        received = b""
        try:
            await stream.response()
            while part := await stream.receive():
                received += part
                if self.quits == "proxy" and len(received) > len(self.body) // 2:
                    stream.reset(messages.CANCELLED)
                    return
                if self._dice.random() < 0.3:
                    await asyncio.sleep(0)
            assert received == self.body, "a body that ended was not whole"
            assert self.quits != "gate" or not self.body
        except StreamReset as reset:
            assert self.quits == "gate" and reset.code == messages.INSTANCE_LOST
            assert self.body.startswith(received)
        finally:
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, stream: Stream) -> None:
        position = 0
        while position < len(self.body):
            size = self._dice.randint(1, 100_000)
            await stream.send(self.body[position : position + size])
            position += size
        stream.end()

    async def answer(self, stream: Stream) -> None:
        try:
            stream.respond(Head(200))
            while part := await stream.receive():
                await stream.send(part)
                if self.quits == "gate":
                    stream.reset(messages.INSTANCE_LOST)
                    return
            stream.end()
        except StreamReset as reset:
            assert self.quits == "proxy" and reset.code == messages.CANCELLED


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_many_streams_keep_their_bytes_apart_whatever_the_pieces(seed, count):
    async def run() -> None:
        dice = random.Random(seed)
        async with Pair(
            chunk=lambda: dice.choice([1 << 20, 65536, 1000, 13 if dice.random() < 0.01 else 9999])
        ) as pair:
            echoes = [Echo(dice, pair) for _ in range(count)]
            asking = [asyncio.create_task(echo.ask()) for echo in echoes]
            answering: list[asyncio.Task[None]] = []

            def serve(stream: Stream) -> None:
                answering.append(asyncio.create_task(echoes[stream.id - 1].answer(stream)))

            pair.gate._on_open = serve
            for stream in pair.opened:
                serve(stream)
            stopper = asyncio.create_task(stop_and_go(dice, pair))
            try:
                async with asyncio.timeout(20):
                    await asyncio.gather(*asking)
                    await asyncio.gather(*answering)
            finally:
                stopper.cancel()
                pair.down.go()
                pair.up.go()
            await settle()
            assert not pair.proxy.streams and not pair.gate.streams
            assert pair.proxy.buffered == pair.gate.buffered == 0

    asyncio.run(run())


async def stop_and_go(dice: random.Random, pair: Pair) -> None:
    """A transport that often takes nothing for a while."""
    while True:
        pipe = dice.choice([pair.up, pair.down])
        pipe.stop()
        await asyncio.sleep(0.0005)
        pipe.go()
        await asyncio.sleep(0.0005)
