"""How much a key may ask for: requests at once, and requests a minute; over all workers of the proxy."""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from enum import IntEnum

from saia_proxy.config import ApiKey
from saia_proxy.errors import ApiError

WINDOW_S = 60.0


class _Cell(IntEnum):
    IN_FLIGHT = 0
    REQUESTS = 1
    REFUSED = 2
    WINDOW = 3
    NOW = 4
    BEFORE = 5


class Usage:
    """One key's requests in one worker: that one's to write, and all workers' to read."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    @property
    def in_flight(self) -> int:
        return self._cells[_Cell.IN_FLIGHT]

    @property
    def requests(self) -> int:
        """Admitted, in all."""
        return self._cells[_Cell.REQUESTS]

    @property
    def refused(self) -> int:
        """For the key's own limits, or as it is revoked; in all."""
        return self._cells[_Cell.REFUSED]

    def windows(self, window: int) -> tuple[int, int]:
        """Requests admitted in this window, and in the one before."""
        cells = self._cells
        if cells[_Cell.WINDOW] == window:
            return cells[_Cell.NOW], cells[_Cell.BEFORE]
        return 0, cells[_Cell.NOW] if cells[_Cell.WINDOW] == window - 1 else 0

    def __enter__(self) -> None:
        """One request more, from when it was admitted (`count`)."""
        self._cells[_Cell.IN_FLIGHT] += 1

    def __exit__(self, *_: object) -> None:
        self._cells[_Cell.IN_FLIGHT] -= 1

    def count(self, window: int) -> None:
        cells = self._cells
        now, before = self.windows(window)
        cells[_Cell.WINDOW], cells[_Cell.NOW], cells[_Cell.BEFORE] = window, now + 1, before
        cells[_Cell.REQUESTS] += 1

    def refuse(self) -> None:
        self._cells[_Cell.REFUSED] += 1

    def forget_open(self) -> None:
        """The worker that wrote here has ended, and its requests with it."""
        self._cells[_Cell.IN_FLIGHT] = 0


class Board:
    """The counts of all keys in all workers, in memory that they share; made before they are."""

    def __init__(self, keys: Iterable[ApiKey], workers: int = 1) -> None:
        self.started_at = time.time()
        names = [key.name for key in keys]
        size = len(_Cell)
        cells = memoryview(mmap.mmap(-1, max(1, len(names) * workers * size) * 8)).cast("Q")

        def usage(place: int) -> Usage:
            return Usage(cells[place * size : (place + 1) * size])

        self._usage = {
            name: tuple(usage(number * workers + worker) for worker in range(workers))
            for number, name in enumerate(names)
        }

    def of(self, key: str) -> tuple[Usage, ...]:
        """By worker."""
        return self._usage[key]

    def forget_open(self, worker: int) -> None:
        for usage in self._usage.values():
            usage[worker].forget_open()


class Quotas:
    """Holds each key to its limits, in one worker; only touched from its event loop."""

    def __init__(
        self,
        board: Board,
        worker: int = 0,
        clock: Callable[[], float] = time.time,
        limits: Callable[[ApiKey], tuple[int, int]] = lambda key: (key.concurrency, key.per_minute),
    ) -> None:
        """`limits` are those in force: requests at once, and a minute; 0 is none."""
        self._board = board
        self._worker = worker
        self._clock = clock
        self._limits = limits

    def refuse(self, key: ApiKey) -> None:
        """Counts one request that was refused elsewhere."""
        self._board.of(key.name)[self._worker].refuse()

    def admit(self, key: ApiKey) -> AbstractContextManager[None]:
        """Counts one request; it is under way while the `with` lasts. Raises ApiError (429)."""
        everywhere = self._board.of(key.name)
        own, now = everywhere[self._worker], self._clock()
        window = int(now // WINDOW_S)
        concurrency, per_minute = self._limits(key)
        if concurrency and sum(usage.in_flight for usage in everywhere) >= concurrency:
            own.refuse()
            text = f"This API key has {concurrency} requests under way, as many as it may."
            raise ApiError(429, "too_many_concurrent_requests", text, retry_after_s=1)
        if per_minute:
            counts = [usage.windows(window) for usage in everywhere]
            wait_s = _wait_s(per_minute, sum(n for n, _ in counts), sum(b for _, b in counts), now % WINDOW_S)
            if wait_s > 0:
                own.refuse()
                text = f"This API key may make {per_minute} requests a minute."
                raise ApiError(429, "rate_limit_exceeded", text, retry_after_s=max(1, math.ceil(wait_s)))
        own.count(window)
        return own


def _wait_s(per_minute: int, now: int, before: int, elapsed_s: float) -> float:
    """Until one more is within the limit; 0 or less, and it is already.

    The last minute's requests are those of this window and, as if evenly spread, the part of the one before that
    it still covers (a "sliding window counter").
    """
    if now + before * (1 - elapsed_s / WINDOW_S) + 1 <= per_minute:
        return 0.0
    if now + 1 > per_minute:  # this window alone is too much: in the next one its share must fall enough
        return WINDOW_S - elapsed_s + WINDOW_S * (1 - (per_minute - 1) / now)
    return WINDOW_S * (1 - (per_minute - 1 - now) / before) - elapsed_s
