"""The engine's loops and what ends its acting, apart from the API: what keeps the services is all in here.

One task polls Slurm, one reacts to what agents say; each publishes the routes after it. Their acts may hang, each up
to the command timeout: a third task hears the agents all the while, and publishes what follows. When the journal fails
or the lease is lost it stops acting, keeps the routes as they are, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from saia_engine.edge.logs import get_logger
from saia_engine.lease import LeaseLost, LeaseUnreadable
from saia_engine.model import ProxyLimits
from saia_engine.probes import Ears
from saia_engine.publisher import Publisher
from saia_engine.reconciler import Reconciler
from saia_engine.store import JournalError

JOURNAL_ADVICE = "traffic goes on; mend the disk, then restart the engine"

log = get_logger("engine")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often each loop turns, in seconds."""

    poll_s: float
    react_at_most_s: float = 1.0
    """A plan is made at least so often, for time alone changes what is due."""
    react_at_least_s: float = 0.1
    tidy_s: float = 600.0


class Control:
    """Runs a reconciler and publishes what follows. `on_step` is called after each step, whatever came of it."""

    def __init__(
        self,
        reconciler: Reconciler,
        ears: Ears,
        publisher: Publisher,
        proxies: Mapping[str, ProxyLimits],
        *,
        wake: asyncio.Event,
        pace: Pace,
        now: Callable[[], float],
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.proxies = proxies
        self.wake = wake
        """Set by whoever has news that should be acted upon at once."""
        self.acting_fault = ""
        """Why it does not act any more; empty while it does."""
        self._news = asyncio.Event()
        """`wake` was set, or time has passed: there may be something to react to."""
        self._reconciler = reconciler
        self._ears = ears
        self._publisher = publisher
        self._pace = pace
        self._now = now
        self._on_step = on_step

    def loops(self) -> tuple[Awaitable[None], ...]:
        """To be run side by side until cancelled; each ends only by an error."""
        return self._poll_loop(), self._hear_loop(), self._react_loop(), self._tidy_loop()

    async def _poll_loop(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            began = time()
            await self._guarded(self._reconciler.poll)
            # At the next tick, also when this poll took longer than one: a slow controller is not pressed.
            await asyncio.sleep(self._pace.poll_s - (time() - began) % self._pace.poll_s)

    async def _hear_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._pace.react_at_most_s):
                    await self.wake.wait()
            except TimeoutError:
                pass
            self.wake.clear()
            self._news.set()
            if self._reconciler.busy:
                await self._guarded(self._reconciler.hear)
            await asyncio.sleep(self._pace.react_at_least_s)

    async def _react_loop(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._guarded(self._reconciler.react)

    async def _tidy_loop(self) -> None:
        while True:
            await asyncio.sleep(self._pace.tidy_s)
            await self._guarded(self._reconciler.forget_old)

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        """One step and what follows from it; a lost lease or journal ends all acting (promises 18, 19)."""
        if not self.acting_fault:
            try:
                await self._unless_lease_unreadable(step)
            except JournalError as exc:
                self.stop_acting(f"{exc}; {JOURNAL_ADVICE}")
            except LeaseLost as exc:
                self.stop_acting(f"another engine may act now: {exc}")
        if not self.acting_fault:
            self._publish_routes()
        self._on_step()

    async def _unless_lease_unreadable(self, step: Callable[[], Awaitable[None]]) -> None:
        """A shared file system that is away for a while must not end all acting for good."""
        try:
            await step()
        except LeaseUnreadable as exc:
            self._reconciler.alarms.worry(
                "lease-unreadable", "engine", f"nothing is done until it can be read: {exc}"
            )
        else:
            self._reconciler.alarms.calm("lease-unreadable", "engine")

    def stop_acting(self, why: str) -> None:
        """For good: routes stay as they are, and every intent is refused."""
        self.acting_fault = why
        log.critical("not_acting", reason=why)

    def _publish_routes(self) -> None:
        reconciler = self._reconciler
        if not reconciler.settled:
            self._publisher.withdraw(
                services=reconciler.desired.services,
                instances=reconciler.instances,
                statuses=self._ears.statuses,
                listening=self._ears.listening_since,
                now=self._now(),
            )
            return
        self._publisher.publish(
            services=reconciler.desired.services,
            proxies=self.proxies,
            instances=reconciler.instances,
            statuses=self._ears.statuses,
            endpoints=self._ears.endpoints,
            addresses={i.id: reconciler.address(i) for i in reconciler.instances.values() if i.node},
            now=self._now(),
            learned=reconciler.learning.learned(reconciler.desired.services),
        )
