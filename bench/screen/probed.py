"""`python -m bench.screen.probed NOTES ARGUMENTS`: saia-tui as it is, with notes of how long its loop was busy.

A line `busy END SECONDS` for each turn of the event loop of a millisecond or more: so long a key had to wait at most.
`jobs AT` when bytes with rows of jobs came in. Times are of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from saia_engine import client
from saia_tui import cli

NOTED_FROM_S = 0.001


class NotingSelector(selectors.DefaultSelector):
    """Between two calls of `select` the loop is busy."""

    def __init__(self, notes: TextIO) -> None:
        super().__init__()
        self._notes = notes
        self._since = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        now = time.monotonic()
        if now - self._since >= NOTED_FROM_S:
            self._notes.write(f"busy {now:.6f} {now - self._since:.6f}\n")
        found = super().select(timeout)
        self._since = time.monotonic()
        return found


class NotingPolicy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, notes: TextIO) -> None:
        super().__init__()
        self._notes = notes

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(NotingSelector(self._notes))


def note_jobs(notes: TextIO) -> None:
    """Also when rows of jobs come in."""
    splitter: Any = client._Splitter
    feed = splitter.feed

    def noting(self: Any, chunk: bytes) -> Iterator[bytes]:
        if b'"table":"jobs"' in chunk:
            notes.write(f"jobs {time.monotonic():.6f}\n")
        return feed(self, chunk)

    splitter.feed = noting


def main() -> int:
    with open(sys.argv[1], "w", buffering=1) as notes:  # noqa: PTH123
        note_jobs(notes)
        asyncio.set_event_loop_policy(NotingPolicy(notes))
        return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
