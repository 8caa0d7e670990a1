"""The screen of events: the newest as the engine tells them, older ones from its journal, page by page."""

from __future__ import annotations

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.message import Message

from saia_engine.client import ClientError, EventPage
from saia_engine.model import Severity
from saia_engine.view import EventView
from saia_tui import moments
from saia_tui.cells import text
from saia_tui.feed import Engine, Feed
from saia_tui.listings import EVENTS
from saia_tui.views.view import View
from saia_tui.widgets.row_table import RowTable

PAGE = 200
"""Events of one question to the journal."""
MOST_QUESTIONS = 5
"""Until one finds something: each looks through a piece of the journal."""
MOST_KEPT = 20_000
FRESH = 500
"""As many as the stream holds; more only once older ones were asked for."""
AT_LEAST: tuple[tuple[str, str], ...] = (("", ""), ("warning", "warnings"), ("critical", "critical only"))


class EventTable(RowTable):
    class End(Message):
        """A page down on the last row."""

    def action_page(self, pages: int) -> None:
        at_end = self.rows.index >= len(self.rows.keys) - 1
        super().action_page(pages)
        if pages > 0 and at_end:
            self.post_message(self.End())


class EventsView(View):
    def __init__(self, feed: Feed, engine: Engine) -> None:
        self._engine = engine
        self._kept: dict[str, EventView] = {}
        self._before: int | None = None
        """Older than this the journal was not asked yet; None: older than what the stream told."""
        self._state = ""
        self._operators = False
        self._severity = 0
        table = EventTable(EVENTS, lambda: feed.sight)
        super().__init__(feed, table, id="events", first=table)

    def compose(self) -> ComposeResult:
        yield self.first

    def caption(self) -> str:
        rows = self.first.rows
        words = ["operators'"] if self._operators else []
        words += [AT_LEAST[self._severity][1]] if self._severity else []
        words.append(f"{len(rows.keys):,}")
        return f"{', '.join(words)}{self._state or self._reach()}"

    def _reach(self) -> str:
        if self._before is None or not self._kept:
            return ""
        return f", back to {moments.stamp(self._kept[min(self._kept, key=int)].at)}"

    # ------------------------------------------------------------ rows

    def take_all(self) -> None:
        self._merge(None)
        self.first.take(self._kept)

    def take(self, changed: Mapping[str, set[str] | None]) -> None:
        if "events" in changed:
            gone = self._merge(changed["events"])
            self.first.take(self._kept, None if changed["events"] is None else {*changed["events"], *gone})
        else:
            self.first.repaint()

    def _merge(self, changed: set[str] | None) -> list[str]:
        """Take in what is new. What the stream forgets for its age is kept; returns what is dropped after all."""
        fresh: Mapping[str, EventView] = self.feed.rows("events")
        gone: list[str] = []
        if fresh and self._kept and int(min(fresh, key=int)) > int(max(self._kept, key=int)) + 1:
            # So long away that a piece is missing between what is kept and what is told now.
            gone = list(self._kept)
            self._kept, self._before, self._state = {}, None, ""
        # What was known in the present, and not at the moment that is replayed.
        if fresh or self.feed.replay is not None:
            newest = max(map(int, fresh), default=0)
            gone += [key for key in self._kept if int(key) > newest]
        for key in gone:
            self._kept.pop(key, None)
        self._kept |= {key: fresh[key] for key in (fresh if changed is None else changed) if key in fresh}
        most = FRESH if self._before is None else MOST_KEPT
        old = sorted(self._kept, key=int)[: max(0, len(self._kept) - most)]
        for key in old:
            del self._kept[key]
        return [*gone, *old]

    # ------------------------------------------------------------ what is shown of them

    def next_who(self) -> None:
        """All, or operators' acts only."""
        self._operators = not self._operators
        self._choose()

    def next_severity(self) -> None:
        self._severity = (self._severity + 1) % len(AT_LEAST)
        self._choose()

    def _choose(self) -> None:
        order = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)
        wanted = order[self._severity :]
        operators = self._operators
        # Another question to the journal: what the last one passed over is missing among the older ones.
        oldest = min((int(key) for key in self.feed.rows("events")), default=0)
        self._kept = {key: row for key, row in self._kept.items() if int(key) >= oldest}
        self._before, self._state = None, ""
        self.first.take(self._kept)
        self.first.show_where(lambda row: row.severity in wanted and not (operators and row.uid is None))

    # ------------------------------------------------------------ older ones

    def on_event_table_end(self, event: EventTable.End) -> None:
        event.stop()
        self.run_worker(self._load_older(), exclusive=True, group="older")

    async def _load_older(self) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._state = f", and no more than {MOST_KEPT:,} here"
            return
        before = self._before
        if before is None:
            before = int(min(self._kept, key=int, default="0"))
        self._state = ", reading the journal"
        severity = AT_LEAST[self._severity][0]
        page = EventPage()
        try:
            for _ in range(MOST_QUESTIONS):
                page = await self._engine.events(before, PAGE, operators=self._operators, severity=severity)
                before = page.before
                if page.events or not before:
                    break
        except ClientError as exc:
            self._state = ""
            self.app.notify(text(exc).plain, severity="error", markup=False)
            return
        self._kept |= {str(row.seq): row for row in page.events}
        self._before = before
        self._state = "" if before else ", all there is"
        self.first.take(self._kept, {str(row.seq) for row in page.events})
        if page.events:
            self.first.action_page(1)
