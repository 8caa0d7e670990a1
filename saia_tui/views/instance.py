"""One instance: its row with the cursor on it, so that acts go to it, and all that is known of it below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult

from saia_engine.client import ClientError
from saia_tui.feed import Engine, Feed
from saia_tui.instance_page import job_lines, standing_lines, story_lines
from saia_tui.listings import INSTANCES
from saia_tui.views.view import View
from saia_tui.widgets.lines import Lines
from saia_tui.widgets.row_table import RowTable

NOT_HERE = frozenset({"filter", "sort_next", "sort_reverse"})


class SubjectRow(RowTable):
    """A table of one row; the keys that move scroll the page below it."""

    page: Lines

    def action_move(self, step: int) -> None:
        self.page.scroll_relative(y=step, animate=False, immediate=True)

    def action_page(self, pages: int) -> None:
        self.page.scroll_relative(y=pages * max(1, self.page.size.height - 1), animate=False, immediate=True)

    def action_top(self) -> None:
        self.page.scroll_home(animate=False, immediate=True)

    def action_bottom(self) -> None:
        self.page.scroll_end(animate=False, immediate=True)

    def action_choose(self) -> None:
        """There is nothing below it but its log, which has its own key."""


class InstanceDetail(View):
    DEFAULT_CSS = """
    InstanceDetail > SubjectRow { height: 2; margin-bottom: 1; }
    InstanceDetail > Lines { height: 1fr; }
    """

    def __init__(self, feed: Feed, engine: Engine) -> None:
        self._row = SubjectRow(INSTANCES, lambda: feed.sight, where=self._is_it)
        super().__init__(feed, self._row, id="instance", first=self._row)
        self._page = self._row.page = Lines()
        self._engine = engine
        self._story: Mapping[str, Any] | None = None
        self._told_of: tuple[object, ...] = ()
        self._told: list[Text] = []
        self.instance = ""

    def compose(self) -> ComposeResult:
        yield self._row
        yield self._page

    def enter(self, subject: str) -> None:
        self.instance, self._story = subject, None
        self._row.rows.release()
        self._row.show_where(self._is_it)
        self._page.scroll_home(animate=False, immediate=True)
        self._ask()

    def takes(self, action: str) -> bool:
        return action not in NOT_HERE

    def take_all(self) -> None:
        super().take_all()
        self._show()

    def take(self, changed: Mapping[str, set[str] | None]) -> None:
        super().take(changed)
        if "events" in changed and (self.feed.replay or self._is_told_of(changed["events"])):
            self._ask()
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def _show(self) -> None:
        row = self.feed.tables.instances.get(self.instance)
        job = self.feed.tables.jobs.get(str(row.job_id)) if row and row.job_id else None
        now, width = self.feed.now, self._page.page_width
        # Only what it is now moves with time; of the story no more than the date may.
        made_of = (self._story, row and row.log_tail, width, now // 3600)
        if made_of != self._told_of:
            self._told_of, self._told = made_of, story_lines(row, self._story, now, width)
        standing = standing_lines(self.instance, row, job, self._story, now, width)
        lines = [*standing, *self._told, *job_lines(row, job, now, width)]
        self._page.show(lines, stale=not self.feed.link.up)

    @work(exclusive=True, group="story")
    async def _ask(self) -> None:
        try:
            self._story = await self._engine.instance_story(self.instance)
        except ClientError as exc:
            self._story = {"events": [{"text": f"the journal gives no story: {exc}", "severity": "warning"}]}
        self._show()

    def _is_it(self, row: Any) -> bool:
        return row.id == self.instance

    def _is_told_of(self, changed: set[str] | None) -> bool:
        if changed is None:
            return True
        events = self.feed.tables.events
        return any(key in events and events[key].subject == self.instance for key in changed)
