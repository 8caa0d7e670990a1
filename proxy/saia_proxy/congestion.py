"""How much one upstream's gate takes, learned from its `limit`. Pure; times are a monotonic clock's."""

from __future__ import annotations

import math

PAUSE_S = 0.1
"""Nothing at all is opened for this long after a `limit`."""
DOUBLE_S = 1.0
FORGOTTEN_S = 10.0
"""So long after the last `limit` there is no bound any more."""


class Way:
    """Requests under way through one upstream.

    After a `limit` not more than were under way then; twice as many a second later, and so on until the next one.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._most = 0
        self._limited_at = -math.inf

    def limited(self, now: float) -> None:
        """One of those under way was refused."""
        self._most = max(1, self.in_flight - 1)
        self._limited_at = now

    def open(self, now: float) -> bool:
        """Whether one more may go."""
        since_s = now - self._limited_at
        if since_s >= FORGOTTEN_S:
            return True
        return since_s >= PAUSE_S and self.in_flight < self._most * 2 ** int(since_s / DOUBLE_S)
