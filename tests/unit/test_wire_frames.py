"""The bytes themselves."""

from __future__ import annotations

import pytest

from saia_engine.wire import messages
from saia_engine.wire.frames import (
    HEADER,
    MAGIC,
    MAX_PAYLOAD,
    Decoder,
    Frame,
    Kind,
    NotOurPeer,
    WireError,
    encode,
)
from saia_engine.wire.messages import Admin, Hello, Open, Routes


def test_a_frame_is_length_kind_stream_payload():
    assert encode(Kind.DATA, 7, b"abc") == b"\x00\x00\x00\x03" + b"\x03" + b"\x00\x00\x00\x07" + b"abc"
    assert MAGIC == b"\x00saia\x01\r\n"


def test_frames_come_out_whole_whatever_the_pieces():
    frames = [Frame(Kind.HELLO, 0, b"{}"), Frame(Kind.DATA, 1, b"x" * 1000), Frame(Kind.END, 1, b"")]
    stream = MAGIC + b"".join(encode(*frame) for frame in frames)
    for size in (1, 2, 7, 8, 9, 17, len(stream)):
        decoder = Decoder()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [frame for piece in pieces for frame in decoder.feed(piece)] == frames


@pytest.mark.parametrize("seen", [b"Welcome to the cluster!\n", b"\x00saib", b"{", MAGIC[:4] + b"!"])
def test_what_comes_before_the_magic_is_kept_to_be_shown(seen):
    with pytest.raises(NotOurPeer) as caught:
        list(Decoder().feed(seen))
    assert caught.value.seen == seen


def test_of_a_long_greeting_only_the_beginning_is_kept():
    with pytest.raises(NotOurPeer) as caught:
        list(Decoder().feed(b"*" * 100_000))
    assert len(caught.value.seen) == 200


def test_an_incomplete_magic_is_waited_for():
    decoder = Decoder()
    assert list(decoder.feed(MAGIC[:3])) == []
    assert list(decoder.feed(MAGIC[3:] + encode(Kind.PING, 0))) == [Frame(Kind.PING, 0, b"")]


@pytest.mark.parametrize(
    "bad", [HEADER.pack(MAX_PAYLOAD + 1, Kind.DATA, 1), HEADER.pack(0, 10, 1), HEADER.pack(0, 255, 0)]
)
def test_a_frame_that_cannot_be_ends_the_connection_before_its_payload(bad):
    with pytest.raises(WireError):
        list(Decoder().feed(MAGIC + bad))


def test_frames_before_a_bad_one_still_come():
    seen = []
    with pytest.raises(WireError):
        for frame in Decoder().feed(MAGIC + encode(Kind.PING, 0) + HEADER.pack(0, 99, 0)):
            seen.append(frame.kind)
    assert seen == [Kind.PING]


@pytest.mark.parametrize(
    "control",
    [Routes(3), Admin(2, maintenance=True), messages.Applied(1, 2), messages.Metrics("v", {"chat": 1})],
)
def test_control_messages_tell_their_kind(control):
    assert messages.unpack_control(messages.pack(control)) == control


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"type":7}',
        b'{"type":"admin","revision":"x"}',
        b'{"type":"admin","revision":-1}',
        b'{"type":"routes","generation":9007199254740992}',
        b'{"type":"metrics","queued":{"chat":-1}}',
    ],
)
def test_a_bad_control_message_is_a_wire_error(payload):
    with pytest.raises(WireError):
        messages.unpack_control(payload)


def test_a_control_message_of_a_newer_peer_is_passed_over():
    assert messages.unpack_control(b'{"type":"other","revision":"x"}') is None


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (messages.Reset, b'{"code":"%b"}' % (b"x" * 65)),
        (messages.Reset, b'{"code":"limit","text":"%b"}' % (b"x" * 1001)),
        (messages.Head, b'{"status":"200"}'),
        (Hello, b'{"version":1,"program":"%b"}' % (b"x" * 201)),
        (Hello, b'{"version":true}'),
    ],
)
def test_fields_have_bounds(kind, payload):
    with pytest.raises(WireError):
        messages.unpack(kind, payload)


def test_fields_of_a_newer_version_are_ignored():
    assert messages.unpack(Hello, b'{"version":9,"program":"p","colour":"red"}') == Hello(9, "p")
    with pytest.raises(WireError):
        messages.unpack(Open, b'{"instance":"i"}')
