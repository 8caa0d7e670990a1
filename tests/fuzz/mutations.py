"""Small harm to valid bytes, drawn from a given random source: to bytes of any kind, and to whole frames."""

from __future__ import annotations

import random
import struct

from saia_engine.wire.frames import HEADER, MAGIC, Kind

Frames = list[tuple[int, int, bytes]]
NUMBERS = (0, 1, 2, 3, 7, 2**16, 2**31, 2**32 - 1)
TEXTS = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"type":"routes","generation":1e999}',
    b'{"type":"admin","revision":' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"version":1,"program":"\xff"}',
    b'{"code":"\\ud800"}',
    b'{"code":"' + b"x" * 70_000 + b'"}',
    struct.pack("!I", 2**32 - 1),
    b"\0\0\0\1",
)


def harm(dice: random.Random, data: bytes, *, with_frames: bool, other: bytes = b"") -> bytes:
    """One to four changes; `other` is what pieces may be taken from."""
    for _ in range(dice.randint(1, 4)):
        if with_frames and data.startswith(MAGIC) and dice.random() < 0.6:
            data = _to_frames(dice, data)
        else:
            data = _to_bytes(dice, data, other or data)
    return data


def pieces(dice: random.Random, data: bytes) -> list[bytes]:
    """The same bytes as they might arrive."""
    size = dice.choice([1, 7, 100, 4096, 65536, 1 << 30])
    size = max(size, len(data) // 2000)
    cut, at = [], 0
    while at < len(data):
        step = dice.randint(1, size)
        cut.append(data[at : at + step])
        at += step
    return cut


def _to_bytes(dice: random.Random, data: bytes, other: bytes) -> bytes:
    at = dice.randint(0, len(data))
    until = min(len(data), at + dice.choice([1, 2, 9, 100, 5000]))
    kind = dice.randrange(7)
    if kind == 0 and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + dice.randbytes(dice.choice([1, 4, 40])) + data[at:]
    if kind == 2:
        return data[:at] + data[until:]
    if kind == 3:
        return data[:until] + data[at:until] * dice.choice([1, 1, 50]) + data[until:]
    if kind == 4:
        start = dice.randint(0, len(other))
        return data[:at] + other[start : start + dice.choice([9, 100, 5000])] + data[at:]
    if kind == 5:
        return data[:at] + dice.randbytes(until - at) + data[until:]
    return data[:at]


def _to_frames(dice: random.Random, data: bytes) -> bytes:
    frames, rest = split(data)
    if not frames:
        return data
    at = dice.randrange(len(frames))
    kind, stream, payload = frames[at]
    what = dice.randrange(9)
    if what == 0:
        frames[at] = (dice.choice([*Kind, 10, 255]), stream, payload)
    elif what == 1:
        frames[at] = (kind, dice.choice([stream + 1, stream - 1, *NUMBERS]) & 0xFFFFFFFF, payload)
    elif what == 2:
        frames[at] = (kind, stream, dice.choice(TEXTS))
    elif what == 3:
        frames[at] = (kind, stream, _to_bytes(dice, payload, payload))
    elif what == 4:
        del frames[at]
    elif what == 5:
        frames[at:at] = [frames[at]] * dice.choice([1, 1, 2, 300 if len(payload) < 1000 else 5])
    elif what == 6:
        there = dice.randrange(len(frames))
        frames[at], frames[there] = frames[there], frames[at]
    elif what == 7:
        frames.insert(at, (dice.choice(list(Kind)), dice.choice([stream, *NUMBERS]), dice.choice(TEXTS)))
    else:
        lie = HEADER.pack(dice.choice([0, 1, len(payload) + 1, 2**20, 2**20 + 1, 2**32 - 1]), kind, stream)
        return join(frames[:at]) + lie + payload + join(frames[at + 1 :])[len(MAGIC) :] + rest
    return join(frames) + rest


def split(data: bytes) -> tuple[Frames, bytes]:
    """Whole frames after the magic, and what is left; a reading of the protocol of its own."""
    frames, at = [], len(MAGIC)
    while len(data) - at >= HEADER.size:
        length, kind, stream = HEADER.unpack_from(data, at)
        if len(data) - at - HEADER.size < length:
            break
        at += HEADER.size
        frames.append((kind, stream, data[at : at + length]))
        at += length
    return frames, data[at:]


def join(frames: Frames) -> bytes:
    return MAGIC + b"".join(
        HEADER.pack(len(payload), kind, stream) + payload for kind, stream, payload in frames
    )
