"""The engine as a replay may use it: what it tells is cut off at the replayed moment, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saia_engine.client import ClientError, EngineUnreachable, EventPage
from saia_engine.view import EventView, whole_row
from saia_tui.feed import Engine, Feed


class EngineThen:
    """Outside a replay all goes to the engine as it is; in one no act ever does."""

    def __init__(self, engine: Engine, feed: Feed) -> None:
        self._engine = engine
        self._feed = feed

    def __getattr__(self, name: str) -> Any:
        """All else: acts, which `Arming` refuses in a replay before they come here."""
        return getattr(self._engine, name)

    async def history(self, table: str, row: str = "") -> dict[str, Any]:
        if self._feed.replay is not None:
            raise ClientError(
                "replay", "in a replay there is no last hour: the engine keeps only the present one"
            )
        return await self._engine.history(table, row)

    async def events(
        self, before: int | None = None, most: int = 200, *, operators: bool = False, severity: str = ""
    ) -> EventPage:
        page = await self._engine.events(before, most, operators=operators, severity=severity)
        if self._feed.replay is None:
            return page
        return EventPage([event for event in page.events if event.at <= self._feed.now], page.before)

    async def instance_story(self, instance: str) -> dict[str, Any]:
        if self._feed.replay is None:
            return await self._engine.instance_story(instance)
        try:
            story = await self._engine.instance_story(instance)
        except EngineUnreachable:
            return self._own_story(instance)
        return until(story, self._feed.now)

    def _own_story(self, instance: str) -> dict[str, Any]:
        """What the replayed events tell: the newest 500 of all."""
        rows: Mapping[str, EventView] = self._feed.tables.events
        mine = sorted((row for row in rows.values() if row.subject == instance), key=lambda row: row.seq)
        return {"instance": None, "log": "", "events": [whole_row(row) for row in mine]}


def until(story: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """An instance's story as it was then."""
    record = story.get("instance")
    if not isinstance(record, dict) or float(record.get("created_at") or 0.0) > moment:
        record = None
    events = [each for each in story.get("events") or () if float(each.get("at") or 0.0) <= moment]
    return {**story, "instance": record, "events": events}
