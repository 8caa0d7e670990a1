"""An event loop that knows how many descriptors are ready in its present turn."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Counting(selectors.DefaultSelector):
    ready = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        found = super().select(timeout)
        self.ready = len(found)
        return found


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._counting = _Counting()
        super().__init__(self._counting)

    def alone(self) -> bool:
        """What is ready now is one descriptor: its reader is who asks, and nobody else has anything to write."""
        return self._counting.ready == 1
