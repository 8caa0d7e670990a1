"""What an instance printed, or what happened to it: followed, searched, and read where one goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Input

from saia_engine.client import ClientError
from saia_tui import moments
from saia_tui.actions import ACTIONS, bindings
from saia_tui.cells import join, text
from saia_tui.feed import Engine, Feed
from saia_tui.listings import INSTANCES
from saia_tui.log.pane import LogPane
from saia_tui.log.reader import LogReader
from saia_tui.log.search import Pattern
from saia_tui.log.times import place
from saia_tui.views.view import View
from saia_tui.widgets.line import Line
from saia_tui.widgets.row_table import RowTable

HERE = frozenset(
    each.name.partition("(")[0]
    for each in ACTIONS
    if each.group in ("Go to", "Program") or each.name == "live"
)
HINTED = HERE | {each.name for each in ACTIONS if each.log}
STREAMS = ("output", "events")
ASKS = {"find": "find: ", "jump": "go to (50%, 1.5GiB, -10m): "}


class LogView(View):
    DEFAULT_CSS = """
    LogView > LogPane { height: 1fr; }
    LogView > RowTable { display: none; }
    LogView > Input { display: none; height: 1; padding: 0 1; background: $surface; }
    LogView > Input.shown { display: block; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [*bindings(log=True)]

    def __init__(self, feed: Feed, engine: Engine) -> None:
        # Not to be seen: acts, the filter and the like ask every view for the row they are about.
        subject = RowTable(INSTANCES, lambda: feed.sight, where=self._is_it)
        super().__init__(feed, subject, id="log", first=subject)
        self._engine = engine
        self.reader = LogReader(engine, "", "output", self._show)
        self.pane = LogPane(lambda: self.reader.window)
        self._standing = Line(id="standing")
        self._entry = Input(compact=True)
        self._asked = ""
        self._found = ""
        self._fetching = False

    def compose(self) -> ComposeResult:
        yield self.first
        yield self.pane
        yield self._entry
        yield self._standing

    @property
    def entry(self) -> Widget:
        return self.pane

    @property
    def topic(self) -> str:
        return "log"

    def takes(self, action: str) -> bool:
        return action in HINTED

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Keys are words while one is typed."""
        return not self._entry.has_focus

    def enter(self, subject: str) -> None:
        self._open(subject, "output")

    def leave(self) -> None:
        """It is not shown any more: nothing more is read."""
        self.workers.cancel_node(self)
        self._close_entry()

    def take(self, changed: Mapping[str, set[str] | None]) -> None:
        self._show_standing()

    def take_all(self) -> None:
        super().take_all()
        self._show()

    def _open(self, instance: str, stream: str) -> None:
        self.workers.cancel_node(self)
        self._close_entry()
        self.reader = LogReader(self._engine, instance, stream, self._show)
        self.pane.hit, self.pane.pattern, self._found = None, None, ""
        self.pane.follow(True)
        self._follow()

    def _is_it(self, row: Any) -> bool:
        return row.id == self.reader.instance

    # ------------------------------------------------------------ reading

    @work(exclusive=True, group="follow")
    async def _follow(self) -> None:
        await self.reader.follow()

    def _go(self, act: Callable[[], Awaitable[None]]) -> None:
        """One movement at a time; the newest wins. What is followed begins anew after it."""

        async def moved() -> None:
            try:
                await act()
            except ClientError as exc:
                self._found = str(exc)
            self._show()
            self._follow()

        self.run_worker(moved(), exclusive=True, group="going")

    @on(LogPane.Moved)
    def _hold_more(self) -> None:
        self._show_standing()
        if self.reader.busy or self._fetching:
            return
        pane, reader = self.pane, self.reader
        if pane.wants_older and reader.window.start > 0:
            self._fetch(reader.older)
        elif pane.wants_newer and not reader.at_end:
            self._fetch(reader.newer)

    @work(exclusive=True, group="going")
    async def _fetch(self, more: Callable[[], Awaitable[bool]]) -> None:
        self._fetching = True
        try:
            if await more() and self.reader.at_end:
                self._follow()
        except ClientError as exc:
            self._found = str(exc)
        finally:
            self._fetching = False
        self._show()

    # ------------------------------------------------------------ keys

    def action_log_lines(self, lines: int) -> None:
        self.pane.move_lines(lines)

    def action_log_pages(self, pages: int) -> None:
        self.pane.move_pages(pages)

    def action_log_sideways(self, steps: int) -> None:
        self.pane.move_sideways(steps)

    def action_log_follow(self) -> None:
        if self.pane.following:
            self.pane.follow(False)
            self._show_standing()
        else:
            self.action_log_end()

    def action_log_wrap(self) -> None:
        self.pane.toggle_wrap()
        self._show_standing()

    def action_log_stream(self) -> None:
        at = STREAMS.index(self.reader.stream)
        self._open(self.reader.instance, STREAMS[(at + 1) % len(STREAMS)])

    def action_log_end(self) -> None:
        async def go() -> None:
            if not self.reader.at_end:
                await self.reader.open_end()
            self.pane.follow(True)

        self._go(go)

    def action_log_begin(self) -> None:
        async def go() -> None:
            await self._show_offset(0)

        self._go(go)

    def action_log_find(self) -> None:
        self._ask("find", self.pane.pattern.words if self.pane.pattern else "")

    def action_log_jump(self) -> None:
        self._ask("jump", "")

    def action_log_next(self, step: int) -> None:
        pattern = self.pane.pattern
        if pattern is None:
            self._found = "nothing is looked for yet: / finds"
            self._show_standing()
            return
        first, last = self.pane.rows_shown
        start = self.pane.hit if self.pane.hit is not None else last + 1 if step < 0 else first - 1
        self._search(pattern, start, step)

    def escape(self) -> bool:
        if self._entry.has_class("shown"):
            self._close_entry()
            self.pane.focus()
        elif self.reader.busy:
            self.workers.cancel_group(self, "going")
            self._found = "stopped"
            self._show()
        elif self.pane.pattern is not None:
            self.pane.pattern, self.pane.hit, self._found = None, None, ""
            self._show()
        else:
            self.leave()
            return False
        return True

    # ------------------------------------------------------------ asking

    def _ask(self, what: str, words: str) -> None:
        self._asked = what
        self._entry.placeholder = ASKS[what]
        self._entry.value = words
        self._entry.add_class("shown")
        # At once: the next key may be here already.
        self.screen.set_focus(self._entry)

    def _close_entry(self) -> None:
        self._entry.remove_class("shown")

    @on(Input.Submitted)
    def _asked_for(self, event: Input.Submitted) -> None:
        event.stop()
        self._close_entry()
        self.pane.focus()
        if self._asked == "find":
            self._find(event.value)
        elif event.value.strip():
            self._jump(event.value)

    def _find(self, words: str) -> None:
        self.pane.pattern, self.pane.hit = (Pattern(words) if words else None), None
        if self.pane.pattern:
            self._search(self.pane.pattern, self.pane.rows_shown[1] + 1, -1)
        else:
            self._show()

    def _search(self, pattern: Pattern, start: int, step: int) -> None:
        async def go() -> None:
            self._found = ""
            number = await self.reader.find(pattern, start, back=step < 0)
            if number is None:
                self._found = f"no {'earlier' if step < 0 else 'later'} line matches {pattern.words}"
            else:
                self.pane.hit = number
                self.pane.show_row(number)

        self._go(go)

    def _jump(self, words: str) -> None:
        now = self.feed.now
        try:
            target = place(words, self.reader.size, now)
        except ValueError as exc:
            self._found = f"{words}: {exc}"
            self._show_standing()
            return

        async def go() -> None:
            self._found = ""
            offset = target if isinstance(target, int) else await self.reader.moment(target, now)
            if offset is None:
                self._found = "its lines tell no times"
            else:
                await self._show_offset(offset)

        self._go(go)

    async def _show_offset(self, offset: int) -> None:
        self.pane.hit = None
        self.pane.show_top(await self.reader.open_at(offset))

    # ------------------------------------------------------------ showing

    def _show(self) -> None:
        self.pane.show()
        self._show_standing()

    def _show_standing(self) -> None:
        self._standing.show(self._words())

    def _words(self) -> Text:
        reader, pane = self.reader, self.pane
        parts = [text(f" {reader.stream}", "strong")]
        if reader.fault:
            parts.append(text(f"  ▲ {reader.fault}", "warn"))
        elif pane.following and reader.at_end:
            parts.append(text("  ● following", "ok"))
        else:
            parts.append(text("  ○ standing still", "quiet"))
        if reader.busy or self._found:
            parts.append(text(f"  {reader.busy or self._found}", "busy"))
        parts.append(text(f"  {_position(reader, pane)}", "quiet"))
        if self.feed.replay is not None:
            parts.append(text("  ▲ as it is now, not as it was then", "warn"))
        elif reader.written_at is not None and not reader.fault:
            parts.append(
                text(f"  written {moments.age(max(0.0, self.feed.now - reader.written_at))} ago", "quiet")
            )
        if not pane.wrap:
            parts.append(text("  not wrapped", "quiet"))
        return join(*parts)


def _position(reader: LogReader, pane: LogPane) -> str:
    """How far the last line shown is in the file."""
    size, window = reader.size, reader.window
    if not size or window.beyond == window.first:
        return ""
    last = pane.rows_shown[1] + 1
    offset = window[last].offset if last < window.beyond else window.end
    share = 100 if offset >= size else int(offset / size * 100)
    return f"{_size(max(0, offset))} of {_size(size)} ({share}%)"


def _size(size: int) -> str:
    for unit, scale in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
