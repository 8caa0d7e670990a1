"""What all parts of a simulated site share: time, chance, and the ear of whoever watches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from saia_engine.simulator.truth import Event, FaultBegan, FaultEnded, Observer
from saia_engine.simulator.virtual_time import VirtualLoop

EPOCH = 1_800_000_000.0
INSTALLATION = "k7f3"
CLUSTER = "hpc"
USER = "svc"
SHARED_DELAY_S = 60.0


class Site:
    """One seed's world. Each part draws from a stream of chance of its own, so that parts don't shift each other."""

    def __init__(self, seed: int, observers: list[Observer]) -> None:
        self.seed = seed
        self.loop = VirtualLoop(EPOCH)
        self.observers = observers
        self.faults: dict[str, int] = {}
        """How often each kind struck."""
        self.active: dict[tuple[str, str], int] = {}

    @property
    def now(self) -> float:
        return self.loop.time()

    def chance(self, part: str) -> random.Random:
        return random.Random(f"{self.seed}:{part}")

    def emit(self, event: Event) -> None:
        for observer in self.observers:
            observer.see(event)

    def after(self, delay_s: float, act: Callable[..., Any], *args: Any) -> Any:
        """A handle that can be cancelled."""
        return self.loop.call_later(delay_s, act, *args)

    # -- faults

    def fault(self, kind: str, subject: str) -> None:
        """One that strikes and is over at once."""
        self.begin(kind, subject)
        self.end(kind, subject)

    def begin(self, kind: str, subject: str) -> None:
        """A fault counts when it strikes, not when it is planned."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.active[kind, subject] = self.active.get((kind, subject), 0) + 1
        self.emit(FaultBegan(self.now, kind, subject))

    def end(self, kind: str, subject: str) -> None:
        """Of one that may have ended already."""
        left = self.active.get((kind, subject), 0) - 1
        if left < 0:
            return
        if left:
            self.active[kind, subject] = left
        else:
            del self.active[kind, subject]
        self.emit(FaultEnded(self.now, kind, subject))
