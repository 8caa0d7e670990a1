"""The program: one feed, the screens over it, and the acts an operator asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, Input
from textual.worker import Worker

from saia_engine.client import ClientError
from saia_engine.model import short_id
from saia_tui import commands, incident
from saia_tui.actions import ACTIONS, bindings, hints
from saia_tui.alarm_bell import AlarmBell
from saia_tui.cells import text
from saia_tui.embedded import Embedded
from saia_tui.feed import Engine, Feed
from saia_tui.headline import crumbs_line, hints_line, status_line, tabs_line
from saia_tui.held import HOLD_S
from saia_tui.kept import Kept
from saia_tui.listings import JOBS, NODES, SERVICES
from saia_tui.operating import Operating
from saia_tui.replay.source import Record
from saia_tui.replay.then import EngineThen
from saia_tui.replaying import Replaying
from saia_tui.settings import Settings
from saia_tui.tabular import Tabular
from saia_tui.terminal import Terminal
from saia_tui.themed import Themed
from saia_tui.trail import Place, Trail, below
from saia_tui.views.events import EventsView
from saia_tui.views.instance import InstanceDetail
from saia_tui.views.instances import InstancesView
from saia_tui.views.list_view import JobsView, ListView
from saia_tui.views.log import LogView
from saia_tui.views.overview import Overview
from saia_tui.views.proxies import ProxiesView
from saia_tui.views.requests import RequestsView
from saia_tui.views.view import View
from saia_tui.widgets.line import Line
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows import tour
from saia_tui.windows.command import CommandWindow
from saia_tui.windows.leave import LeaveWindow
from saia_tui.windows.pages import help_page, row_page

SAMPLE_S = 2.0
SOON_S = 0.002
IN_REPLAY = {action.name.partition("(")[0] for action in ACTIONS if action.group == "Replay"}
KEYED = {
    action.name.partition("(")[0]
    for action in ACTIONS
    if not (action.table or action.log or action.of_textual)
}


class SaiaApp(Operating, Replaying, Tabular, Themed):
    """Returns what becomes of an embedded engine: `keep` or `stop`; None where there is none."""

    TITLE = "saia"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(table=False)]
    CSS = """
    ContentSwitcher { height: 1fr; }
    View { height: 1fr; }
    ListView > RowTable { height: 1fr; }
    #held { height: 0; }
    #held.shown { height: 1; }
    #timeline { height: 0; }
    #timeline.shown { height: 1; }
    #filter { height: 0; padding: 0 1; background: $surface; }
    #filter.shown { height: 1; }
    #filter-fault { height: 0; }
    #filter-fault.shown { height: 1; }
    .short #crumbs { display: none; }
    ToastRack { margin-bottom: 2; }
    """

    def __init__(
        self,
        feed: Feed,
        engine: Engine,
        *,
        embedded: Embedded | None = None,
        terminal: Terminal | None = None,
        settings: Settings | None = None,
        kept: Kept | None = None,
        read_only: bool = False,
        hold_s: float = HOLD_S,
        record: Record | None = None,
        replay: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`record`: where the past is read; `replay`: begin there, at these words, instead of in the present."""
        super().__init__(terminal or Terminal(), settings or Settings())
        self.feed = feed
        self.kept = kept or Kept()
        engine = self._engine = cast(Engine, EngineThen(engine, feed))
        self.begin_replaying(record, wall)
        self._begin_at = replay
        self._following: Worker[None] | None = None
        self.begin_operating(read_only=read_only, hold_s=hold_s)
        self._embedded = embedded
        self._status, self._tabs, self._hints = Line(id="status"), Line(id="tabs"), Line(id="hints")
        self._crumbs = Line(id="crumbs")
        self._filter_entry = Input(
            id="filter",
            compact=True,
            placeholder="words, /regex/, field=value; ! before it: not; Enter keeps, Esc clears",
        )
        self._filter_entry.can_focus = False
        self._soon = False
        self._painted_at: object = None
        """The second, and the link: all that is shown beside the state."""
        self._filter_fault = Line(id="filter-fault")
        self._filtered: RowTable | None = None
        self.trail = Trail()
        self._views: dict[str, View] = {
            "overview": Overview(feed),
            "instances": InstancesView(feed),
            "instance": InstanceDetail(feed, engine),
            "log": LogView(feed, engine),
        }
        for listing in (SERVICES, JOBS, NODES):
            kind = JobsView if listing is JOBS else ListView
            self._views[listing.table] = kind(feed, listing)
        self._views |= {"requests": RequestsView(feed, engine), "proxies": ProxiesView(feed)}
        self._views["events"] = EventsView(feed, engine)
        self.begin_tables(self._views.values(), self.kept)
        self._alarm_bell = AlarmBell()
        self._switcher = ContentSwitcher(*self._views.values(), initial="overview")

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._status
            yield self._tabs
            yield self._crumbs
            yield self._switcher
            yield self._filter_entry
            yield self._filter_fault
            yield self.held_line
            yield self.timeline_line
            yield self._hints

    def on_mount(self) -> None:
        self.feed.on_filled = self._repaint_soon
        if self._begin_at is None:
            self.replay_ended()
        else:
            self.replay(self._begin_at)
        self.set_interval(self.repaint_s, self.repaint)
        if not self.terminal.low_bandwidth:
            self.set_interval(SAMPLE_S, self._sample_rates)
        self.view.first.focus()
        self.repaint()
        if self.kept.fault:
            self.say(self.kept.fault, severity="warning")
        if tour.is_due(self.kept):
            self.action_tour()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Keys are the program's only while no window is open, and nobody types into the filter."""
        if action not in KEYED:
            return True
        if action == "replay" and self.player is not None:
            return False
        if action in IN_REPLAY and self.player is None:
            return False
        if action == "clear_override" and self.hold:
            return not isinstance(self.focused, Input)  # revokes, also from a window
        if len(self.screen_stack) != 1:
            return False
        return action == "up" or (not isinstance(self.focused, Input) and self.view.takes(action))

    # ------------------------------------------------------------ showing

    @property
    def view(self) -> View:
        """The view that is shown."""
        return self._views[self._switcher.current or "overview"]

    @property
    def table(self) -> RowTable:
        """The table that has the cursor."""
        focused = self.screen_stack[0].focused if self.screen_stack else None
        if focused is self._filter_entry and self._filtered is not None:
            return self._filtered
        return focused if isinstance(focused, RowTable) else self.view.first

    def repaint(self) -> None:
        """Bring what changed, and the time, to the screen."""
        feed, changed = self.feed, self.feed.collect()
        moment = (int(feed.now if feed.link.up else feed.monotonic), feed.link, feed.replay)
        if not changed and moment == self._painted_at:
            return
        self._painted_at = moment
        view = self.view
        view.show_stale(not feed.link.up)
        view.take(changed)
        self._show_lines()
        if (
            feed.replay is None
            and "alarms" in changed
            and self._alarm_bell.rings(self.feed.tables.alarms)
            and self.terminal.bell
        ):
            self.bell()

    def _repaint_soon(self) -> None:
        """Somebody waits for the first rows; tables that come together are shown together."""
        if not self._soon:
            self._soon = True
            self.set_timer(SOON_S, self._repaint_now)

    def _repaint_now(self) -> None:
        self._soon = False
        self.repaint()

    @on(RowTable.Arranged)
    def _arranged(self) -> None:
        self._show_lines()

    def _show_lines(self) -> None:
        feed, width, view = self.feed, self.size.width, self.view
        link = feed.link
        if not link.up and self._embedded is not None and not self._embedded.alive:
            link = replace(link, fault=self._embedded.obituary)
        then = feed.replay
        self._status.show(status_line(feed.tables, link, feed.now, feed.monotonic, width, self.arming, then))
        self._tabs.show(tabs_line(feed.tables, self.trail.tab, view.captions(), width))
        self._crumbs.show(crumbs_line(self.trail.crumbs(), width))
        topic = view.topic or self.table.listing.table
        known = hints(topic, armed=self.arming.shown, replaying=then is not None)
        offered = [each for each in known if view.takes(each.name)]
        self._hints.show(hints_line(offered, width))

    def lines_changed(self) -> None:
        self._show_lines()

    def on_resize(self) -> None:
        self.screen_stack[0].set_class(self.size.height < 16, "short")
        self._show_lines()

    def on_descendant_focus(self) -> None:
        self._show_lines()

    # ------------------------------------------------------------ going

    def action_show(self, name: str) -> None:
        self.trail.jump(name)
        self._arrive(entering=True)

    def action_up(self) -> None:
        if self.view.escape():
            self._show_lines()
        elif self.table.rows.filter:
            table = self.table
            self._filter_table(table, "")
            table.focus()
        elif self.trail.up():
            self._arrive(entering=False)
        else:
            self.action_show("overview")

    def action_level_up(self) -> None:
        """As `up`, but no key that is needed to type a filter may lead here from there."""
        self.action_up()

    def action_log(self) -> None:
        table, row = self.table.listing.table, self.table.rows.current
        if row is None or table not in ("instances", "jobs"):
            self.say("a log is an instance's, or its job's: move the cursor to one")
        elif instance := row.instance if table == "jobs" else row.id:
            self._go_down(Place("log", instance))
        else:
            self.say(f"job {row.id} is not saia's: where its output is, only its owner knows")

    @on(RowTable.Chosen)
    def _open(self, event: RowTable.Chosen) -> None:
        if event.table not in self.view.tables:
            return  # a key that was typed ahead led elsewhere meanwhile
        row = event.table.rows.current
        place = below(event.table.listing.table, event.key, getattr(row, "instance", ""))
        if place is not None:
            self._go_down(place)
        elif row is not None:
            self.push_screen(row_page(row, self.feed.now))

    def _go_down(self, place: Place) -> None:
        self.trail.down(place)
        self._arrive(entering=True)

    def _arrive(self, *, entering: bool) -> None:
        """Show the place where the trail ends; on the way back as it was left."""
        place = self.trail.here
        self._switcher.current = place.view
        view = self.view
        if entering:
            view.enter(place.subject)
        view.show_stale(not self.feed.link.up)
        view.take_all()
        self._filtered = view.first
        self._show_filter(view.first.rows.filter, shown=bool(view.first.rows.filter))
        # At once, not by `focus()`: the next key may be here already, and is for what is shown now.
        self.screen_stack[0].set_focus(view.entry)
        self._show_lines()

    def action_help(self) -> None:
        self.push_screen(help_page())

    def action_tour(self) -> None:
        self.push_screen(tour.Tour())

    async def action_command(self, begun: str = "") -> None:
        window = CommandWindow(partial(commands.offers, self), partial(commands.completed, self), begun)

        def typed(line: str | None) -> None:
            self._command(line or "")

        # Awaited, so that what is typed ahead reaches the window.
        await self.push_screen(window, typed)

    @work(exclusive=True, group="command")
    async def _command(self, line: str) -> None:
        try:
            await commands.run(self, line)
        except commands.NotUnderstood as exc:
            self.say(str(exc), severity="warning")

    @work(exclusive=True, group="copy")
    async def action_copy(self) -> None:
        table = self.table
        key = table.rows.cursor
        if key is None:
            self.say("there is no row under the cursor")
            return
        words = incident.report(self.feed.tables, table.listing.table, key, self.feed.now)
        await self.copy(words)
        self.say(
            f"copied {len(words.splitlines())} lines about {short_id(key)}, if your terminal takes OSC 52"
        )

    # ------------------------------------------------------------ finding

    def action_filter(self) -> None:
        self._filtered = self.table
        self._show_filter(self._filtered.rows.filter, shown=True)
        # At once, not by `focus()`: the next key may be here already, and must not reach the table.
        self.screen.set_focus(self._filter_entry)

    def filter_rows(self, words: str) -> None:
        """Of the table that has the cursor."""
        table = self.table
        self._filter_table(table, words)
        table.focus()

    def _filter_table(self, table: RowTable, words: str) -> None:
        self._filtered = table
        table.filter_by(words)
        self._show_filter(words, shown=bool(words))

    def _show_filter(self, words: str, *, shown: bool) -> None:
        with self._filter_entry.prevent(Input.Changed):
            self._filter_entry.value = words
        self._filter_entry.can_focus = shown
        self._filter_entry.set_class(shown, "shown")
        self._show_filter_fault()

    def _show_filter_fault(self) -> None:
        fault = self.table.rows.fault
        self._filter_fault.show(text(f" {fault}", "warn"))
        self._filter_fault.set_class(bool(fault), "shown")

    @on(Input.Changed, "#filter")
    def _filter_live(self, event: Input.Changed) -> None:
        self.table.filter_by(event.value)
        self._show_filter_fault()
        self._show_lines()

    @on(Input.Submitted, "#filter")
    def _filter_done(self, event: Input.Submitted) -> None:
        table = self.table
        table.rows.fault = ""  # of what was typed only what is in force stays
        self._show_filter(table.rows.filter, shown=bool(table.rows.filter))
        table.focus()

    def action_sort_next(self) -> None:
        self.table.sort_next()

    def action_sort_reverse(self) -> None:
        self.table.sort_reverse()

    def action_who(self) -> None:
        if isinstance(self.view, EventsView):
            self.view.next_who()
            self._show_lines()

    def action_severity(self) -> None:
        if isinstance(self.view, EventsView):
            self.view.next_severity()
            self._show_lines()

    def action_ours(self) -> None:
        if isinstance(self.view, JobsView):
            self.view.toggle_ours()
            self._show_lines()

    # ------------------------------------------------------------ alarms

    @work(exclusive=True, group="acknowledge")
    async def action_acknowledge(self) -> None:
        """Without a window: it changes nothing but what this and other screens say."""
        table = self.table
        on_alarm = table.listing.table == "alarms" and table.rows.cursor is not None
        row = self.feed.tables.alarms.get(table.rows.cursor or "") if on_alarm else None
        if row is None:
            self.say("only alarms are taken up: move the cursor to one (Shift+Tab on the overview)")
            return
        if self.arming.barred or not self.feed.link.up:
            refusal = self.arming.refusal if self.arming.barred else "the engine is away: nothing was sent"
            self.say(refusal, severity="error")
            return
        change = self._engine.acknowledge if row.acked_by is None else self._engine.unacknowledge
        try:
            await change(f"{row.code}:{row.subject}")
        except ClientError as exc:
            self.say(f"{row.code}: {exc}", severity="error")

    # ------------------------------------------------------------ the past

    def _sample_rates(self) -> None:
        if self.feed.replay is None:
            self.feed.sample_rates()

    def replay_begins(self) -> bool:
        if self.hold:
            self.say("an act is held: u revokes it, or wait until it is sent", severity="warning")
            return False
        if self._following is not None:
            self._following.cancel()
        if self.arming.armed:
            self.arming.lock()
            self.say("the acts are locked; back in the present W arms them")
        self.arming.replaying = True
        return True

    def replay_ended(self) -> None:
        self.arming.replaying = False
        self._following = self.run_worker(self.feed.follow(), name="feed", exit_on_error=True)
        self.repaint()
        self._show_lines()

    def replay_moved(self) -> None:
        self._repaint_soon()

    def ask_for_moment(self) -> None:
        self.call_next(self.action_command, "replay ")

    # ------------------------------------------------------------ leaving

    async def action_quit(self) -> None:
        if self.drop_held():
            return
        if self._embedded is None or not self._embedded.alive:
            self.exit(None)
        elif not isinstance(self.screen, LeaveWindow):
            self._leave(self._embedded.pid)

    def action_help_quit(self) -> None:
        """Ctrl+C asks as `q` does; it never kills."""
        self.call_next(self.action_quit)

    @work(exclusive=True, group="leave")
    async def _leave(self, pid: int) -> None:
        choice = await self.push_screen_wait(LeaveWindow(pid))
        if choice is not None:
            self.exit(choice)
