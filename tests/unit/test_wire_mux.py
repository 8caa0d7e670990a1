"""Two muxes joined in memory: streams, credit, resets, limits, and what a hostile peer may do."""

from __future__ import annotations

import asyncio
import time

import pytest

from saia_engine.wire import messages, mux, stream
from saia_engine.wire.frames import MAGIC, Kind, NotOurPeer, WireError, encode
from saia_engine.wire.messages import Admin, Applied, Head, Hello, Open, pack
from saia_engine.wire.mux import WINDOW, Mux, MuxClosed, StreamReset
from tests.unit.wire_pair import Pair, settle

GREETING = MAGIC + encode(Kind.HELLO, 0, pack(Hello(1, "test")))


class Raw:
    """One mux whose peer is the test, byte by byte."""

    def __init__(self, **options) -> None:
        self.sent = b""
        self.opened: list[stream.Stream] = []
        self.controls: list[messages.Control] = []
        options = {"on_open": self.opened.append} | options
        self.mux = Mux(self._write, program="raw", on_control=self.controls.append, **options)

    def _write(self, data: bytes) -> None:
        self.sent += data

    def feed(self, *frames: bytes, greet: bool = True) -> None:
        self.mux.data_received((GREETING if greet else b"") + b"".join(frames))


def opening(number: int, **fields) -> bytes:
    return encode(Kind.OPEN, number, pack(Open(**{"instance": "i", "method": "GET", "path": "/", **fields})))


async def test_a_request_and_its_response():
    async with Pair() as pair:
        ours, theirs = await pair.open("/v1/chat?q=1")
        assert theirs.request.path == "/v1/chat?q=1"
        await ours.send(b"question")
        ours.end()
        assert await theirs.receive() == b"question"
        assert await theirs.receive() == b""
        theirs.respond(Head(200, [("x", "y")]))
        await theirs.send(b"answer")
        theirs.end()
        assert (await ours.response()).headers == [("x", "y")]
        assert await ours.receive() == b"answer"
        assert await ours.receive() == b""
        await settle()
        assert ours.over and theirs.over
        assert not pair.proxy.streams and not pair.gate.streams
        assert pair.proxy.buffered == pair.gate.buffered == 0


async def test_control_messages_go_both_ways():
    async with Pair() as pair:
        pair.gate.control(Admin(3, maintenance=True))
        pair.proxy.control(Applied(1, 3))
        await settle()
        assert pair.at_proxy == [Admin(3, maintenance=True)]
        assert pair.at_gate == [Applied(1, 3)]


async def test_writes_of_one_turn_are_one_write():
    raw = Raw()
    raw.feed()
    await settle()
    raw.sent = b""
    for _ in range(100):
        raw.mux.control(Applied())
    assert raw.sent == b""
    await settle()
    assert raw.sent.count(pack(Applied())) == 100


async def test_a_slow_reader_stops_only_its_own_stream():
    async with Pair() as pair:
        slow_ours, slow = await pair.open()
        quick_ours, quick = await pair.open()
        slow.respond(Head(200))
        quick.respond(Head(200))
        sending = asyncio.create_task(slow.send(b"s" * (WINDOW + 1)))
        await settle()
        assert not sending.done()
        assert pair.proxy.buffered == WINDOW
        for number in range(20):
            await quick.send(b"%d" % number)
            assert await quick_ours.receive() == b"%d" % number
        got = await slow_ours.receive()
        await asyncio.wait_for(sending, 1)
        assert len(got) + len(await slow_ours.receive()) == WINDOW + 1


async def test_credit_lets_a_long_body_pass():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        body = bytes(range(256)) * 20_000

        async def send() -> None:
            await ours.send(body)
            ours.end()

        sender = asyncio.create_task(send())
        received = b""
        while part := await theirs.receive():
            received += part
            assert pair.gate.buffered <= WINDOW
        await sender
        assert received == body


async def test_a_stopped_transport_holds_all_senders_and_memory_stays_small():
    async with Pair() as pair:
        streams = [await pair.open() for _ in range(50)]
        pair.down.stop()
        for _, theirs in streams:
            theirs.respond(Head(200))
        senders = [asyncio.create_task(theirs.send(b"x" * 200_000)) for _, theirs in streams]
        await settle()
        assert pair.down.held < 2 * mux.FLUSH_AT
        pair.down.go()
        readers = [asyncio.create_task(read(ours, 200_000)) for ours, _ in streams]
        await asyncio.wait_for(asyncio.gather(*senders, *readers), 5)


async def read(source: stream.Stream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await source.receive()
    return received


async def test_a_sender_that_waits_for_the_transport_hears_of_a_reset():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        pair.down.stop()
        theirs.respond(Head(200))
        await settle()
        sending = asyncio.create_task(theirs.send(b"x"))
        await settle()
        assert not sending.done()
        ours.reset(messages.CANCELLED)
        with pytest.raises(StreamReset) as caught:
            await asyncio.wait_for(sending, 1)
        assert caught.value.code == messages.CANCELLED


async def test_a_cancelled_sender_leaves_the_stream_usable():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        await ours.send(b"x" * WINDOW)
        waiting = asyncio.create_task(ours.send(b"lost"))
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(await read(theirs, WINDOW)) == WINDOW
        await asyncio.wait_for(ours.send(b"after"), 1)
        assert await theirs.receive() == b"after"


async def test_a_reset_reaches_the_other_side_after_what_came_before_it():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        told: list[StreamReset] = []
        ours.on_reset = told.append
        theirs.respond(Head(200))
        await theirs.send(b"half an ans")
        theirs.reset(messages.INSTANCE_LOST, "gone")
        await settle()
        assert await ours.receive() == b"half an ans"
        with pytest.raises(StreamReset) as caught:
            await ours.receive()
        assert (caught.value.code, caught.value.text) == (messages.INSTANCE_LOST, "gone")
        assert not caught.value.not_taken
        assert [reset.code for reset in told] == [messages.INSTANCE_LOST]
        assert not pair.proxy.streams and not pair.gate.streams


async def test_a_reset_before_the_head_fails_the_response():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        theirs.reset(messages.DRAINING)
        with pytest.raises(StreamReset) as caught:
            await ours.response()
        assert caught.value.not_taken


async def test_resets_that_cross_are_harmless():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        ours.reset(messages.CANCELLED)
        theirs.reset(messages.INSTANCE_LOST)
        await settle()
        assert not pair.proxy.closed and not pair.gate.closed
        assert not pair.proxy.streams and not pair.gate.streams
        again, _ = await pair.open()
        assert again.id == 2


async def test_a_response_that_ended_is_whole_though_a_reset_follows():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        theirs.respond(Head(413))
        await theirs.send(b"too large")
        theirs.end()
        theirs.reset(messages.CANCELLED)
        await settle()
        assert await ours.receive() == b"too large"
        assert await ours.receive() == b""
        with pytest.raises(StreamReset):
            await ours.send(b"rest of the request")


async def test_late_data_for_a_reset_stream_is_dropped():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        theirs.respond(Head(200))
        await theirs.send(b"x" * 1000)
        ours.reset(messages.CANCELLED)
        await settle()
        assert pair.proxy.buffered == 0 and not pair.proxy.closed


async def test_small_pieces_cost_little_more_than_their_bytes():
    raw = Raw()
    raw.feed(opening(1))
    raw.mux.data_received(encode(Kind.DATA, 1, b"xy") * (WINDOW // 2))
    [waiting] = raw.opened
    assert raw.mux.buffered == WINDOW
    assert len(waiting._chunks) <= 2 * WINDOW // stream.SMALL
    assert await waiting.receive() == b"xy" * (WINDOW // 2)


async def test_credit_that_was_not_given_back_is_counted():
    raw = Raw()
    raw.feed(opening(1), *[encode(Kind.DATA, 1, b"x" * 65536)] * 2)
    assert len(await raw.opened[0].receive()) == WINDOW // 2  # which gives it back
    raw.feed(encode(Kind.DATA, 1, b"x" * 65535), greet=False)
    await raw.opened[0].receive()  # which does not, yet
    raw.feed(*[encode(Kind.DATA, 1, b"x" * 65536)] * 3, greet=False)
    assert not raw.mux.closed
    raw.feed(encode(Kind.DATA, 1, b"xy"), greet=False)
    assert raw.mux.closed and "credit" in raw.mux.closed_because


async def test_a_program_that_sends_out_of_order_is_told_before_its_peer():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        for wrong in (theirs.end, lambda: ours.respond(Head(200))):
            with pytest.raises(RuntimeError):
                wrong()
        with pytest.raises(RuntimeError):
            await theirs.send(b"x")
        theirs.respond(Head(200))
        with pytest.raises(RuntimeError):
            theirs.respond(Head(200))
        ours.end()
        with pytest.raises(RuntimeError):
            await ours.send(b"x")
        await settle()
        assert not pair.proxy.closed and not pair.gate.closed


async def test_waiting_for_the_last_stream():
    async with Pair() as pair:
        await asyncio.wait_for(pair.proxy.wait_idle(), 1)
        first, _ = await pair.open()
        second, _ = await pair.open()
        idle = asyncio.create_task(pair.proxy.wait_idle())
        first.reset(messages.CANCELLED)
        await settle()
        assert not idle.done()
        second.reset(messages.CANCELLED)
        await asyncio.wait_for(idle, 1)


async def test_what_no_frame_can_hold_is_refused_here():
    raw = Raw(on_open=None)
    raw.feed()
    with pytest.raises(StreamReset) as caught:
        raw.mux.open(Open("i", "GET", "/", headers=[("x", "y" * 1024)] * 1024))
    assert caught.value.code == messages.FORBIDDEN and not raw.mux.streams
    raw.mux.control(messages.Metrics(queued={f"{number:0200}": 1 for number in range(6000)}))
    assert raw.mux.closed and "control message" in raw.mux.closed_because


async def test_streams_that_are_over_do_not_wait_for_the_transport():
    raw = Raw()
    raw.feed()
    raw.mux.pause_writing()
    for number in range(1, 50):
        raw.feed(opening(number), greet=False)
        raw.opened[-1].respond(Head(200))
        sending = asyncio.create_task(raw.opened[-1].send(b"x"))
        await settle()
        raw.feed(encode(Kind.RESET, number, b'{"code":"cancelled"}'), greet=False)
        await asyncio.gather(sending, return_exceptions=True)
    assert not raw.mux._held and not raw.mux.streams


async def test_a_stream_above_the_bound_is_refused_alone():
    async with Pair(max_streams=2) as pair:
        first, _ = await pair.open()
        await pair.open()
        third = pair.proxy.open(Open("i", "GET", "/"))
        with pytest.raises(StreamReset) as caught:
            await third.response()
        assert caught.value.code == messages.LIMIT
        assert len(pair.opened) == 2
        first.reset(messages.CANCELLED)
        await settle()
        await pair.open()
        assert len(pair.opened) == 3


async def test_memory_above_the_bound_resets_the_one_stream():
    async with Pair(buffer_limit=100_000) as pair:
        kept, kept_there = await pair.open()
        await kept.send(b"k" * 60_000)
        greedy, greedy_there = await pair.open()
        told: list[StreamReset] = []
        greedy_there.on_reset = told.append
        await greedy.send(b"g" * 60_000)
        await settle()
        assert [reset.code for reset in told] == [messages.LIMIT]
        with pytest.raises(StreamReset) as caught:
            await greedy.response()
        assert caught.value.not_taken
        assert pair.gate.buffered == 60_000
        assert len(await kept_there.receive()) == 60_000
        assert pair.gate.buffered == 0


async def test_an_overflow_after_the_instance_had_bytes_is_never_called_not_taken():
    async with Pair(buffer_limit=1000) as pair:
        ours, theirs = await pair.open()
        theirs.taken = True
        await ours.send(b"x" * 2000)
        with pytest.raises(StreamReset) as caught:
            await ours.response()
        assert caught.value.code == messages.OVERFLOW and not caught.value.not_taken


async def test_a_peer_that_makes_us_answer_and_never_reads_is_dropped():
    raw = Raw(buffer_limit=10_000)
    raw.feed()
    await settle()
    raw.mux.pause_writing()
    for _ in range(20):
        raw.mux.data_received(encode(Kind.PING, 0) * 100)
        await settle()
    assert raw.mux.closed
    assert len(raw.sent) < 30_000


async def test_closing_sends_what_was_said_and_ends_the_streams():
    raw = Raw()
    raw.feed(opening(1))
    reasons = []
    raw.mux._on_closed = reasons.append
    raw.opened[0].respond(Head(204))
    raw.mux.close("enough")
    assert pack(Head(204)) in raw.sent
    assert reasons == ["enough"]
    with pytest.raises(StreamReset) as caught:
        await raw.opened[0].receive()
    assert caught.value.code == messages.TUNNEL_LOST
    raw.mux.close("again")
    assert reasons == ["enough"]


async def test_a_lost_connection_ends_waiting_and_new_streams():
    async with Pair() as pair:
        ours, _ = await pair.open()
        waiting = asyncio.create_task(ours.response())
        await settle()
        pair.proxy.connection_lost("cut")
        with pytest.raises(StreamReset) as caught:
            await waiting
        assert caught.value.code == messages.TUNNEL_LOST and not caught.value.not_taken
        with pytest.raises(MuxClosed, match="cut"):
            pair.proxy.open(Open("i", "GET", "/"))


async def test_a_request_that_was_not_written_yet_is_known_as_not_taken():
    async with Pair() as pair:
        sent = pair.proxy.open(Open("i", "GET", "/"))
        await settle()
        unsent = pair.proxy.open(Open("i", "GET", "/"))
        pair.proxy.connection_lost("cut")
        for stream, code in ((sent, messages.TUNNEL_LOST), (unsent, messages.CLOSING)):
            with pytest.raises(StreamReset) as caught:
                await stream.response()
            assert caught.value.code == code


async def test_output_before_the_handshake_is_a_named_error():
    raw = Raw()
    raw.mux.data_received(b"You have new mail.\n")
    with pytest.raises(NotOurPeer) as caught:
        await raw.mux.ready()
    assert caught.value.seen == b"You have new mail.\n"
    assert raw.mux.closed


async def test_the_end_before_the_handshake_is_told():
    raw = Raw()
    raw.mux.connection_lost("the gate ended")
    with pytest.raises(MuxClosed, match="the gate ended"):
        await raw.mux.ready()


CREDIT = (1).to_bytes(4, "big")


@pytest.mark.parametrize(
    "frames",
    [
        [encode(Kind.HELLO, 0, pack(Hello(1)))],
        [opening(2), opening(2)],
        [opening(2), opening(1)],
        [encode(Kind.OPEN, 1, b"{}")],
        [encode(Kind.CONTROL, 0, b"nonsense")],
        [opening(1), encode(Kind.END, 1), encode(Kind.END, 1)],
        [opening(1), encode(Kind.END, 1), encode(Kind.DATA, 1, b"x")],
        [opening(1), encode(Kind.CREDIT, 1, CREDIT)],
        [opening(1), encode(Kind.CREDIT, 1, b"")],
        [opening(1), encode(Kind.CREDIT, 1, b"\0\0\0\0")],
        [opening(1), encode(Kind.CREDIT, 1, b"\0\0\0\0\1")],
        [opening(1), encode(Kind.DATA, 1, b"")],
        [opening(1), encode(Kind.END, 1, b"x")],
        [opening(1), encode(Kind.DATA, 2, b"x")],
        [opening(1), encode(Kind.RESET, 2, b'{"code":"cancelled"}')],
        [opening(1), encode(Kind.CREDIT, 2, CREDIT)],
        [opening(0)],
        [encode(Kind.END, 0)],
        [encode(Kind.PING, 1)],
        [encode(Kind.PONG, 0, b"x")],
        [encode(Kind.CONTROL, 1, pack(Applied()))],
        [opening(1), encode(Kind.RESET, 1, b'{"code":"x"}'), encode(Kind.HEAD, 1, pack(Head(200)))],
        [opening(1), encode(Kind.HEAD, 1, pack(Head(200)))],
        [opening(1), encode(Kind.RESET, 1, b"[]")],
        [opening(1)] + [encode(Kind.DATA, 1, b"x" * 65536)] * 5,
    ],
)
async def test_a_peer_that_breaks_the_protocol_loses_the_connection(frames):
    raw = Raw()
    raw.feed(*frames)
    assert raw.mux.closed
    assert await raw.mux.ready() == Hello(1, "test")
    assert raw.mux.buffered == 0


async def test_a_hello_must_come_first_and_in_a_version_of_ours():
    for first in (encode(Kind.PING, 0), encode(Kind.HELLO, 0, pack(Hello(0)))):
        raw = Raw()
        raw.feed(MAGIC, first, greet=False)
        with pytest.raises(WireError):
            await raw.mux.ready()


async def test_a_gate_cannot_open_nor_answer_twice_nor_send_a_body_without_a_head():
    for frames in (
        [opening(1)],
        [encode(Kind.HEAD, 1, pack(Head(200)))] * 2,
        [encode(Kind.DATA, 1, b"x")],
        [encode(Kind.END, 1)],
        [encode(Kind.RESET, 2, b'{"code":"limit"}')],
    ):
        raw = Raw(on_open=None)
        raw.mux.open(Open("i", "GET", "/"))
        raw.feed(*frames)
        assert raw.mux.closed


async def test_frames_for_streams_that_are_gone_are_ignored():
    frames = [(Kind.DATA, b"x"), (Kind.CREDIT, b"x"), (Kind.END, b""), (Kind.RESET, b"x")]
    raw = Raw()
    raw.feed(opening(9), encode(Kind.RESET, 9, b'{"code":"cancelled"}'))
    raw.feed(*(encode(kind, number, payload) for kind, payload in frames for number in (8, 9)), greet=False)
    assert not raw.mux.closed
    raw = Raw(on_open=None)
    raw.mux.open(Open("i", "GET", "/")).reset(messages.CANCELLED)
    raw.feed(encode(Kind.HEAD, 1, pack(Head(200))), *(encode(kind, 1, payload) for kind, payload in frames))
    assert not raw.mux.closed


async def test_a_peer_that_pings_and_never_greets_is_dropped(monkeypatch):
    monkeypatch.setattr(mux, "PING_INTERVAL_S", 0.02)
    monkeypatch.setattr(mux, "SILENCE_LIMIT_S", 0.1)
    raw = Raw()
    for number in range(len(GREETING) - 1):
        if raw.mux.closed:
            break
        raw.mux.data_received(GREETING[number : number + 1])
        await asyncio.sleep(0.02)
    assert "greet" in raw.mux.closed_because


async def test_pings_are_answered_and_silence_ends_the_connection(monkeypatch):
    monkeypatch.setattr(mux, "PING_INTERVAL_S", 0.02)
    monkeypatch.setattr(mux, "SILENCE_LIMIT_S", 0.1)
    async with Pair() as pair:
        await asyncio.sleep(0.3)
        assert not pair.gate.closed
        pair.up.stop()
        await asyncio.wait_for(pair.gate.wait_closed(), 2)
        assert "silent" in pair.gate.closed_because


async def test_a_ping_tells_how_long_the_way_there_and_back_is(monkeypatch):
    monkeypatch.setattr(mux, "PING_INTERVAL_S", 0.02)
    told: list[float] = []
    raw = Raw(on_open=None, on_round_trip=told.append)
    raw.mux.data_received(GREETING + encode(Kind.PONG, 0))
    assert told == [], "an answer that nobody asked for"
    await asyncio.sleep(0.05)
    raw.mux.data_received(encode(Kind.PONG, 0) * 2)
    assert len(told) == 1
    assert 0 < told[0] < 5


async def test_having_been_stopped_is_not_the_peers_silence(monkeypatch):
    monkeypatch.setattr(mux, "PING_INTERVAL_S", 0.02)
    monkeypatch.setattr(mux, "SILENCE_LIMIT_S", 0.1)
    async with Pair() as pair:
        time.sleep(0.3)
        await settle()
        await asyncio.sleep(0.05)
        assert not pair.gate.closed and not pair.proxy.closed


async def test_stream_numbers_that_run_out_end_the_connection_not_the_program():
    raw = Raw(on_open=None)
    raw.mux._next_id = mux.LAST_STREAM_ID
    raw.mux.open(Open("i", "GET", "/"))
    with pytest.raises(MuxClosed):
        raw.mux.open(Open("i", "GET", "/"))


async def test_what_is_held_goes_at_once_where_nothing_else_happens_and_else_at_the_end_of_the_turn():
    for alone, at_once in ((True, 2), (False, 1), (None, 1)):
        writes: list[bytes] = []
        made = Mux(
            writes.append,
            program="test",
            on_control=lambda _: None,
            on_open=lambda _: None,
            alone=None if alone is None else lambda alone=alone: alone,
        )
        made.data_received(GREETING + opening(1))
        await settle()
        assert len(writes) == 1, "its own hello"
        (opened,) = made.streams.values()
        made.hold()
        opened.respond(Head(200))
        opened.end()
        assert len(writes) == 1
        made.release()
        assert len(writes) == at_once
        await settle()
        assert len(writes) == 2, "one piece, once"
        made.close("over")


async def test_send_some_sends_what_there_is_credit_for_and_tells_when_there_is_more():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        told: list[int] = []
        ours.on_writable = lambda: told.append(1)
        sent = ours.send_some(b"x" * (WINDOW + 10))
        assert (sent, ours.send_some(b"y")) == (WINDOW, 0)
        await settle()
        assert not told
        assert len(await theirs.receive()) == WINDOW
        await settle()
        assert told
        assert ours.send_some(b"y" * 10) == 10


async def test_what_comes_is_offered_first_and_kept_where_it_is_not_taken():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        taken: list[bytes] = []
        takes = True

        def take(data: bytes) -> bool:
            if takes:
                taken.append(data)
            return takes

        theirs.on_data = take
        for number in range(3 * WINDOW // 1000):  # its credit comes back although nobody receives
            await ours.send(b"%03d" % (number % 1000) + b"." * 997)
            await settle()
        assert len(b"".join(taken)) == 3 * WINDOW // 1000 * 1000
        takes = False
        await ours.send(b"first ")
        await settle()
        takes = True
        await ours.send(b"second")
        await settle()
        assert await theirs.receive() == b"first second"
        assert pair.gate.buffered == 0


async def test_a_request_that_is_alone_goes_as_soon_as_it_is_whole():
    for alone, at_once in ((True, 2), (False, 1)):
        writes: list[bytes] = []
        made = Mux(writes.append, program="test", on_control=lambda _: None, alone=lambda alone=alone: alone)
        made.data_received(GREETING)
        await settle()
        opened = made.open(Open("i", "POST", "/"))
        await opened.send(b"body")
        assert len(writes) == 1, "its own hello"
        opened.end()
        assert len(writes) == at_once
        await settle()
        assert len(writes) == 2, "one piece, once"
        made.close("over")


async def test_a_response_is_told_of_once_with_all_that_came_with_its_head():
    async with Pair() as pair:
        ours, theirs = await pair.open()
        told: list[tuple[int, bytes | None, bytes | None]] = []
        ours.on_response = lambda head: told.append((head.status, ours.receive_now(), ours.receive_now()))
        theirs.respond(Head(200, []))
        await theirs.send(b"all of it")
        theirs.end()
        await settle()
        assert told == [(200, b"all of it", b"")]

        ours, theirs = await pair.open()
        ours.on_response = lambda head: told.append((head.status, ours.receive_now(), None))
        theirs.respond(Head(404, []))
        await settle()
        await theirs.send(b"later")
        await settle()
        assert told[1:] == [(404, None, None)]
        assert ours.receive_now() == b"later"
        theirs.reset("instance_lost")
        await settle()
        with pytest.raises(StreamReset):
            ours.receive_now()


async def test_who_still_sends_is_told_when_its_side_is_ended() -> None:
    async with Pair() as pair:
        ours, theirs = await pair.open()
        theirs.respond(Head(200, []))
        theirs.end()
        await settle()
        pair.up.stop()
        pair.proxy.pause_writing()
        sending = asyncio.create_task(ours.send(b"x" * 10))
        await settle()
        ours.end()
        await settle()
        assert sending.done() and isinstance(sending.exception(), RuntimeError)
