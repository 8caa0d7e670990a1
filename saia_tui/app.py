"""The program: one feed, the screens over it, and the acts an operator asks for."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import ContentSwitcher, Input

from saia_engine.client import ClientError, NeedsConfirmation
from saia_tui import acts
from saia_tui.actions import ACTIONS, bindings, hints
from saia_tui.acts import Act
from saia_tui.cells import text
from saia_tui.chosen_columns import ChosenColumns
from saia_tui.columns import Listing
from saia_tui.embedded import Embedded
from saia_tui.feed import Engine, Feed
from saia_tui.headline import VIEWS, hints_line, status_line, tabs_line
from saia_tui.kept import Kept, NotKept
from saia_tui.listings import EVENTS, INSTANCES, JOBS, NODES, PROXIES
from saia_tui.palette import THEME
from saia_tui.views.list_view import JobsView, ListView
from saia_tui.views.overview import Overview
from saia_tui.views.view import View
from saia_tui.widgets.line import Line
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows.choose_columns import ColumnsWindow
from saia_tui.windows.confirm import ConfirmWindow, TypedNameWindow
from saia_tui.windows.export import ExportWindow
from saia_tui.windows.leave import LeaveWindow
from saia_tui.windows.pages import help_page, row_page
from saia_tui.windows.scale import ScaleWindow

REPAINT_S = 0.25
SOON_S = 0.01
SAMPLE_S = 2.0
KEYED = {action.name.partition("(")[0] for action in ACTIONS if not action.table and not action.of_textual}


class SaiaApp(App[str]):
    """Returns what becomes of an embedded engine: `keep` or `stop`; None where there is none."""

    TITLE = "saia"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [*bindings(table=False)]
    CSS = """
    #tabs { margin-bottom: 1; }
    ContentSwitcher { height: 1fr; }
    View { height: 1fr; }
    ListView > RowTable { height: 1fr; }
    #filter { height: 0; padding: 0 1; background: $surface; }
    #filter.shown { height: 1; }
    #filter-fault { height: 0; }
    #filter-fault.shown { height: 1; }
    .short #tabs { margin-bottom: 0; }
    """

    def __init__(
        self, feed: Feed, engine: Engine, *, embedded: Embedded | None = None, kept: Kept | None = None
    ) -> None:
        super().__init__()
        self.feed = feed
        self.kept = kept or Kept()
        self._engine = engine
        self._embedded = embedded
        self._status, self._tabs, self._hints = Line(id="status"), Line(id="tabs"), Line(id="hints")
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
        self._views: dict[str, View] = {"overview": Overview(feed)}
        for listing in (INSTANCES, JOBS, NODES, PROXIES, EVENTS):
            kind = JobsView if listing is JOBS else ListView
            self._views[listing.table] = kind(feed, listing)
        self._chosen_columns = ChosenColumns(self.kept)
        for table in (table for view in self._views.values() for table in view.tables):
            table.show_columns(self._chosen_columns.of(table.listing).shown)
        self._switcher = ContentSwitcher(*self._views.values(), initial="overview")
        self.register_theme(THEME)
        self.theme = THEME.name

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._status
            yield self._tabs
            yield self._switcher
            yield self._filter_entry
            yield self._filter_fault
            yield self._hints

    def on_mount(self) -> None:
        self.feed.on_filled = self._repaint_soon
        self.run_worker(self.feed.follow(), name="feed", exit_on_error=True)
        self.set_interval(REPAINT_S, self.repaint)
        self.set_interval(SAMPLE_S, self.feed.sample_rates)
        self.view.first.focus()
        self.repaint()
        if self.kept.fault:
            self.say(self.kept.fault, severity="warning")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """Keys are the program's only while no window is open, and nobody types into the filter."""
        if action not in KEYED:
            return True
        if len(self.screen_stack) != 1:
            return False
        return action == "up" or not isinstance(self.focused, Input)

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
        moment = (int(feed.now if feed.link.up else feed.monotonic), feed.link)
        if not changed and moment == self._painted_at:
            return
        self._painted_at = moment
        view = self.view
        view.show_stale(not feed.link.up)
        view.take(changed)
        self._show_lines()

    def _repaint_soon(self) -> None:
        """Somebody waits for the first rows; tables that come together are shown together."""
        if not self._soon:
            self._soon = True
            self.set_timer(SOON_S, self._repaint_now)

    def _repaint_now(self) -> None:
        self._soon = False
        self.repaint()

    def _show_lines(self) -> None:
        feed, width, view = self.feed, self.size.width, self.view
        link = feed.link
        if not link.up and self._embedded is not None and not self._embedded.alive:
            link = replace(link, fault=self._embedded.obituary)
        self._status.show(status_line(feed.tables, link, feed.now, feed.monotonic, width))
        self._tabs.show(tabs_line(feed.tables, view.id or "", view.caption(), width))
        self._hints.show(hints_line(hints(self.table.listing.table), width))

    def on_resize(self) -> None:
        self.screen_stack[0].set_class(self.size.height < 16, "short")
        self._show_lines()

    def on_descendant_focus(self) -> None:
        self._show_lines()

    @on(RowTable.Arranged)
    def _arranged(self) -> None:
        self._show_lines()

    # ------------------------------------------------------------ going

    def action_show(self, name: str) -> None:
        if name in VIEWS and name != self._switcher.current:
            self._switcher.current = name
            self.view.show_stale(not self.feed.link.up)
            self.view.take_all()
        first = self.view.first
        self._filtered = first
        self._show_filter(first.rows.filter, shown=bool(first.rows.filter))
        first.focus()
        self._show_lines()

    def action_up(self) -> None:
        if self.table.rows.filter:
            table = self.table
            self._filter_table(table, "")
            table.focus()
        else:
            self.action_show("overview")

    @on(RowTable.Chosen)
    def _open(self, event: RowTable.Chosen) -> None:
        row = event.table.rows.current
        if event.table.listing.table == "services":
            self.action_show("instances")
            self._filter_table(self.view.first, f".{event.key}.")
        elif row is not None:
            self.push_screen(row_page(row, self.feed.now))

    def action_help(self) -> None:
        self.push_screen(help_page())

    # ------------------------------------------------------------ finding

    def action_filter(self) -> None:
        self._filtered = self.table
        self._show_filter(self._filtered.rows.filter, shown=True)
        # At once, not by `focus()`: the next key may be here already, and must not reach the table.
        self.screen.set_focus(self._filter_entry)

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

    def action_ours(self) -> None:
        if isinstance(self.view, JobsView):
            self.view.toggle_ours()
            self._show_lines()

    def action_columns(self) -> None:
        table = self.table
        self._choose_columns(table.listing, {column.name for column, _ in table.columns})

    @work(exclusive=True, group="columns")
    async def _choose_columns(self, listing: Listing, fitting: set[str]) -> None:
        choice = await self.push_screen_wait(
            ColumnsWindow(listing, self._chosen_columns.of(listing), fitting)
        )
        if choice is None:
            return
        try:
            self._chosen_columns.keep(listing, choice)
        except NotKept as exc:
            self.say(str(exc), severity="warning")
        for view in self._views.values():
            for table in view.tables:
                if table.listing is listing:
                    table.show_columns(choice.shown)

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        table, picture = self.table, self.export_screenshot(title="saia-tui")

        def content(kind: str) -> str:
            return picture if kind == "svg" else table.exported(kind)

        name, count = table.listing.table, len(table.rows.keys)
        file = await self.push_screen_wait(ExportWindow(name, count, time.time(), content))
        if file is not None:
            self.say(f"written: {file}")

    # ------------------------------------------------------------ acting

    async def action_scale(self) -> None:
        row = self._target("scale")
        if row is None:
            return

        def asked(replicas: int | None) -> None:
            if replicas is not None:
                self._act(acts.scale(row, replicas))

        # Awaited, so that a number typed ahead reaches the window.
        await self.push_screen(ScaleWindow(row), asked)

    def action_clear_override(self) -> None:
        row = self._target("clear_override")
        if row is None:
            return
        if row.override_by_uid is None:
            self.say(f"{row.name} has no override: the config file's number holds")
        else:
            self._act(acts.clear_override(row))

    def action_drain(self) -> None:
        row = self._target("drain")
        if row is not None:
            act = acts.drain(self.feed.tables, row.id, self.feed.now)
            self.say(act) if isinstance(act, str) else self._act(act)

    def action_maintenance(self) -> None:
        row = self._target("maintenance")
        if row is not None:
            self._act(acts.maintenance(self.feed.tables, row.name))

    def _target(self, name: str) -> Any | None:
        """The row under the cursor as the engine last told it, if the action is for such a row."""
        action = next(each for each in ACTIONS if each.name == name)
        table = self.table
        if table.listing.table not in action.on:
            self.say(
                f"{action.hint} works on {action.on[0]}: move the cursor to one (Tab, or the number keys)"
            )
            return None
        key = table.rows.cursor
        row = None if key is None else self.feed.rows(table.listing.table).get(key)
        if row is None:
            self.say("there is no row under the cursor")
        return row

    @work(exclusive=True, group="act")
    async def _act(self, act: Act) -> None:
        await self._carry_out(act)

    async def _carry_out(self, act: Act) -> None:
        """Confirm, check the target again, send; once more with the typed name if the engine wants it."""
        if not await self.push_screen_wait(ConfirmWindow(act)):
            return
        try:
            if self._still_good(act):
                await act.send(self._engine, False)
                self.say(f"{act.title}: {act.target}: the engine has it")
        except NeedsConfirmation as needs:
            if await self.push_screen_wait(TypedNameWindow(act, str(needs))) and self._still_good(act):
                await self._send_confirmed(act)
        except ClientError as exc:
            self.say(f"{act.title}: {act.target}: {exc}", severity="error")

    async def _send_confirmed(self, act: Act) -> None:
        try:
            await act.send(self._engine, True)
            self.say(f"{act.title}: {act.target}: the engine has it, confirmed")
        except ClientError as exc:
            self.say(f"{act.title}: {act.target}: {exc}", severity="error")

    def _still_good(self, act: Act) -> bool:
        refusal = (
            act.refusal(self.feed.tables) if self.feed.link.up else "the engine is away: nothing was sent"
        )
        if refusal:
            self.say(refusal, severity="error")
        return not refusal

    def say(self, message: str, severity: Any = "information") -> None:
        """A toast; from outside or not, its words are shown as they are."""
        self.notify(text(message).plain, severity=severity, timeout=6, markup=False)

    # ------------------------------------------------------------ leaving

    async def action_quit(self) -> None:
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
