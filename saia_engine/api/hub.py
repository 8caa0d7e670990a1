"""The state stream: rows in, numbered changes out, to any number of followers.

A row is encoded once, when its value changed. A follower that can't keep up costs a bounded queue: then what it
missed is dropped and it gets a new snapshot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from itertools import count, islice

import msgspec

from saia_engine.view import TABLES

HEARTBEAT_S = 5.0
MOST_CHANGES = 256
MOST_BYTES = 4 * 1024 * 1024
ROWS_A_LINE = 500
"""Rows go out in lines of so many, so that nobody must hold or decode many in one piece."""

_encoder = msgspec.json.Encoder()


class Hub:
    """The newest rows of all tables. All its methods run on one event loop."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, msgspec.Struct]] = {name: {} for name in TABLES}
        self._encoded: dict[str, dict[str, msgspec.Raw]] = {name: {} for name in TABLES}
        self._followers: set[_Follower] = set()
        self._touched: dict[str, set[str]] | None = None
        self._closed = False

    @property
    def followers(self) -> int:
        return len(self._followers)

    def publish(self, table: str, rows: Mapping[str, msgspec.Struct]) -> None:
        """The whole table as it is now. Only rows whose value changed, and keys that are gone, go out.

        Raises KeyError for a table that is not in `view.TABLES`.
        """
        before, encoded = self._rows[table], self._encoded[table]
        changed = {
            key: msgspec.Raw(_encoder.encode(row)) for key, row in rows.items() if before.get(key) != row
        }
        gone = [key for key in before if key not in rows]
        self._rows[table] = dict(rows)
        if not changed and not gone:
            return
        encoded.update(changed)
        for key in gone:
            del encoded[key]
        if self._touched is not None:
            self._touched[table].update(changed, gone)
        if self._followers:
            for body in _bodies(table, changed, gone):
                for follower in self._followers:
                    follower.offer(body)

    def row(self, table: str, key: str) -> msgspec.Struct | None:
        return self._rows[table].get(key)

    def rows(self, table: str) -> Mapping[str, msgspec.Struct]:
        return self._rows[table]

    def encoded(self, table: str) -> Mapping[str, msgspec.Raw]:
        """The same rows, encoded; not to be kept, for they change in place."""
        return self._encoded[table]

    def touched(self) -> dict[str, set[str]]:
        """Keys of rows that changed, came or went since the last call, by table; noted from the first call on."""
        touched, self._touched = self._touched, {name: set() for name in self._encoded}
        return touched or {name: set() for name in self._encoded}

    def state(self) -> bytes:
        """All tables as one JSON object."""
        return _encoder.encode(self._encoded)

    async def follow(self) -> AsyncGenerator[bytes]:
        """Lines of `view.Change`: a snapshot, then each change; a blank line after 5 s without any."""
        follower = _Follower()
        self._followers.add(follower)
        seq = count()
        try:
            while not self._closed:
                if follower.behind:
                    follower.behind = False
                    for body in list(self._snapshot()):
                        yield _line(next(seq), body)
                elif follower.queue:
                    yield _line(next(seq), follower.take())
                elif not await follower.news(HEARTBEAT_S):
                    yield b"\n"
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for follower in self._followers:
            follower.wake.set()

    def _snapshot(self) -> Iterator[bytes]:
        for table, rows in self._encoded.items():
            yield from _bodies(table, rows, [], reset=True)


class _Follower:
    """One connection's queue; `behind` at first, and again after it overflowed: a snapshot is due."""

    def __init__(self) -> None:
        self.behind = True
        self.queue: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self._bytes = 0

    def offer(self, body: bytes) -> None:
        if self.behind:
            return
        self.queue.append(body)
        self._bytes += len(body)
        if len(self.queue) > MOST_CHANGES or self._bytes > MOST_BYTES:
            self.queue.clear()
            self._bytes = 0
            self.behind = True
        self.wake.set()

    def take(self) -> bytes:
        body = self.queue.popleft()
        self._bytes -= len(body)
        return body

    async def news(self, timeout_s: float) -> bool:
        """Wait for a change or the stream's end; False when neither came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True


def _bodies(
    table: str, rows: Mapping[str, msgspec.Raw], gone: list[str], *, reset: bool = False
) -> Iterator[bytes]:
    """One change in lines of so many rows; the first has what is gone."""
    rest, last = iter(rows.items()), max(0, len(rows) - 1) // ROWS_A_LINE
    for number in range(last + 1):
        chunk, first = dict(islice(rest, ROWS_A_LINE)), number == 0
        yield _body(table, chunk, gone if first else [], reset=reset and first, more=number < last)


def _body(
    table: str, rows: dict[str, msgspec.Raw], gone: list[str], *, reset: bool = False, more: bool = False
) -> bytes:
    """A change without its `seq`, which differs by connection."""
    change: dict[str, object] = {"table": table}
    if rows:
        change["set"] = rows
    if gone:
        change["gone"] = gone
    if reset:
        change["reset"] = True
    if more:
        change["more"] = True
    return _encoder.encode(change)


def _line(seq: int, body: bytes) -> bytes:
    return b'{"seq":%d,%b\n' % (seq, body[1:])
