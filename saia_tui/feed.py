"""Follows the engine's stream for ever: the newest state, what of it changed, and how the link is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Unpack

from saia_engine.client import ClientError, EventPage, Intent, Tables
from saia_engine.view import TABLES, Change, EngineView, LogPiece
from saia_tui.columns import Sight
from saia_tui.replay.standing import Standing

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 5.0
RATES_KEPT = 120
SOON_ABOVE = 2000
"""Rows; whoever brings so many at once has filled the table."""
LATE_POLLS = 2
LONGEST_STEP_S = 60.0
"""Between two samples of a replay that rates are drawn through."""


class Engine(Protocol):
    """What the screen needs of `EngineClient`."""

    def changes(self) -> AsyncIterator[Change]: ...
    async def scale(self, service: str, replicas: int, **intent: Unpack[Intent]) -> Any: ...
    async def clear_override(self, service: str, **intent: Unpack[Intent]) -> Any: ...
    async def pause(self, service: str, **intent: Unpack[Intent]) -> Any: ...
    async def resume(self, service: str, **intent: Unpack[Intent]) -> Any: ...
    async def drain(self, instance: str, **intent: Unpack[Intent]) -> Any: ...
    async def cancel(self, instance: str, **intent: Unpack[Intent]) -> Any: ...
    async def replace(self, instance: str, **intent: Unpack[Intent]) -> Any: ...
    async def rollback(self, service: str, revision: str = "", **intent: Unpack[Intent]) -> Any: ...
    async def unpin(self, service: str, **intent: Unpack[Intent]) -> Any: ...
    async def revisions(self, service: str) -> dict[str, Any]: ...
    async def exclude(self, node: str, for_s: float, **intent: Unpack[Intent]) -> Any: ...
    async def include(self, node: str, **intent: Unpack[Intent]) -> Any: ...
    async def config_diff(self) -> dict[str, Any]: ...
    async def apply_config(self, **intent: Unpack[Intent]) -> Any: ...
    async def maintenance(self, proxy: str, on: bool, **intent: Unpack[Intent]) -> Any: ...
    async def revoke_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> Any: ...
    async def restore_key(self, proxy: str, key: str, **intent: Unpack[Intent]) -> Any: ...
    async def limit_key(
        self, proxy: str, key: str, limits: dict[str, int | None], **intent: Unpack[Intent]
    ) -> Any: ...
    async def events(
        self, before: int | None = None, most: int = 200, *, operators: bool = False, severity: str = ""
    ) -> EventPage: ...
    async def history(self, table: str, row: str = "") -> dict[str, Any]: ...
    async def acknowledge(self, alarm: str, **intent: Unpack[Intent]) -> Any: ...
    async def unacknowledge(self, alarm: str, **intent: Unpack[Intent]) -> Any: ...
    async def instance_story(self, instance: str) -> dict[str, Any]: ...
    async def instance_log(
        self,
        instance: str,
        *,
        stream: str = "output",
        offset: int = 0,
        most: int = 0,
        file: str = "",
        wait_s: float = 0.0,
    ) -> LogPiece: ...


@dataclass(frozen=True, slots=True)
class Link:
    """The connection to the engine; times are on the feed's monotonic clock."""

    up: bool = False
    lost_at: float | None = None
    """None: it was never there."""
    next_try: float | None = None
    fault: str = ""


def is_late(engine: EngineView, now: float) -> bool:
    """Whether Slurm's last good answer is older than two polls."""
    return engine.snapshot_at is not None and now - engine.snapshot_at > LATE_POLLS * engine.poll_interval_s


class Feed:
    """Owns the tables. `follow` is the one writer; the screen collects what changed and reads."""

    def __init__(self, engine: Engine, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.tables = Tables()
        self.link = Link()
        self.rates: dict[str, deque[float]] = {}
        self.replay: Standing | None = None
        """Where the replay is whose state this is; None: it is the present one."""
        self._present = self.tables, self.rates, 0.0, self.link
        """What was shown before the replay."""
        self._engine = engine
        self._monotonic = monotonic
        self._heard_at = monotonic()
        self._changed: dict[str, set[str] | None] = {}
        self._filling: set[str] = set()
        """Tables of whose snapshot not all is here."""
        self._partly: dict[str, set[str]] = {}
        """Keys of a change of which lines are still to come, by table."""
        self.on_filled: Callable[[], None] = lambda: None
        """Called when a table is there for the first time, or anew."""

    @property
    def monotonic(self) -> float:
        return self._monotonic()

    @property
    def now(self) -> float:
        """The engine's clock: a jump of this host's wall clock moves no countdown. In a replay the moment of then."""
        if self.replay is not None:
            return self.replay.at
        engine = self.tables.engine
        return 0.0 if engine is None else engine.now + self._monotonic() - self._heard_at

    @property
    def sight(self) -> Sight:
        return Sight(self.now, self.rates, self.slurm_late)

    @property
    def slurm_late(self) -> bool:
        """What Slurm told is shown on, as of then."""
        return self.tables.engine is not None and is_late(self.tables.engine, self.now)

    def rows(self, table: str) -> Mapping[str, Any]:
        return getattr(self.tables, table)

    async def follow(self) -> None:
        """Read the stream, again and again with back-off, until cancelled. The last state is kept."""
        retry = FIRST_RETRY_S
        while True:
            try:
                async for change in self._engine.changes():
                    self.apply(change)
                    retry = FIRST_RETRY_S
                fault = "the stream ended"
            except ClientError as exc:
                fault = str(exc)
            lost = self._monotonic() if self.link.up else self.link.lost_at
            self.link = Link(False, lost, self._monotonic() + retry, fault)
            await asyncio.sleep(retry)
            retry = min(LONGEST_RETRY_S, retry * 2)

    def apply(self, change: Change) -> None:
        """Take in one change. Raises StreamGap for a row that can't be read."""
        self.tables.apply(change)
        if change.table == "engine":
            self._heard_at = self._monotonic()
        if not self.link.up:
            self.link = Link(up=True)
        if change.reset:
            self._filling.add(change.table)
        keys = self._partly.setdefault(change.table, set())
        keys.update(change.set, change.gone)
        if change.more:
            return
        del self._partly[change.table]
        known = self._changed.setdefault(change.table, set())
        if change.table in self._filling:
            self._filling.discard(change.table)
            self._changed[change.table] = None
            self.on_filled()
        elif known is not None:
            known |= keys
            if len(keys) > SOON_ABOVE:
                self.on_filled()

    def show_then(self, standing: Standing, changes: Iterable[Change]) -> None:
        """Take in the state of a past moment; nothing else may be taken in meanwhile."""
        if self.replay is None:
            self._present = self.tables, self.rates, self._heard_at, self.link
            self.tables, self.rates = Tables(), {}
            self._forget_parts()
        for change in changes:
            self.apply(change)
        before, self.replay = self.replay, standing
        self.link = Link(up=not standing.missing, fault=standing.missing)
        passed = standing.at - before.at if before else 0.0
        if passed and not 0 < passed <= LONGEST_STEP_S:
            self.rates.clear()
        elif passed:
            self.sample_rates()

    def show_present(self) -> None:
        """The replay is over: back to the last known state, which is old until the engine tells the newest."""
        if self.replay is None:
            return
        self.tables, self.rates, self._heard_at, link = self._present
        lost_at = self._monotonic() if link.up else link.lost_at
        self.replay, self.link = None, Link(lost_at=lost_at, fault="back from the replay")
        self._forget_parts()
        self._changed = dict.fromkeys(TABLES)

    def _forget_parts(self) -> None:
        """Of what is half here the rest never comes: the stream is followed no more."""
        self._filling.clear()
        self._partly.clear()

    def collect(self) -> dict[str, set[str] | None]:
        """Keys that changed since the last call, by table; None: all of them."""
        changed, self._changed = self._changed, {}
        return changed

    def sample_rates(self) -> None:
        """Remember each service's present rate; called at a steady pace, it makes the sparklines."""
        if not self.link.up:
            return
        for name, service in self.tables.services.items():
            self.rates.setdefault(name, deque(maxlen=RATES_KEPT)).append(service.requests_per_s)
        for name in self.rates.keys() - self.tables.services.keys():
            del self.rates[name]
