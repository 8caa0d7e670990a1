"""The operator's acts, from a key to the engine's answer: armed, chosen, shown, held, checked again, sent, told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table
from textual import work
from textual.app import App
from textual.widgets import Input

from saia_engine.client import ClientError, NeedsConfirmation
from saia_tui.actions import ACTIONS
from saia_tui.acts import on_config, on_instances, on_keys, on_nodes, on_proxies, on_services
from saia_tui.acts.act import Act, unfit
from saia_tui.acts.plan import Decide, Plan, plan
from saia_tui.arming import Arming
from saia_tui.cells import text
from saia_tui.feed import Engine, Feed
from saia_tui.held import HOLD_S, Held, Hold
from saia_tui.widgets.line import Line
from saia_tui.widgets.row_table import RowTable
from saia_tui.windows.confirm import ConfirmWindow
from saia_tui.windows.hours import HoursWindow
from saia_tui.windows.key_limits import KeyLimitsWindow
from saia_tui.windows.outcomes import Outcome, outcomes_page
from saia_tui.windows.pages import Page
from saia_tui.windows.revisions import RevisionsWindow
from saia_tui.windows.scale import ScaleWindow

HELD_TICK_S = 0.25
NOT_WITHOUT_SLURM = frozenset({"drain", "cancel_job", "replace", "exclude"})
"""Actions that rest on what Slurm said."""


class Operating(App[str]):
    """A program whose operator can act. `table` and `feed` are the program's."""

    feed: Feed
    _engine: Engine

    def begin_operating(self, *, read_only: bool = False, hold_s: float = HOLD_S) -> None:
        """Called once, before anything is shown."""
        clock = lambda: self.feed.monotonic  # noqa: E731
        self.arming = Arming(clock, read_only=read_only)
        self.hold = Hold(clock, hold_s)
        self.held_line = Line(id="held")
        self._cursor_alone = False
        self._unread: list[Outcome] = []
        self._asked_back: list[Held] = []
        """What the engine wants confirmed, and nobody was asked about yet."""

    def on_ready(self) -> None:
        self.set_interval(HELD_TICK_S, self.tick_held)

    @property
    def table(self) -> RowTable:
        raise NotImplementedError

    # ------------------------------------------------------------ arming

    def action_arm(self) -> None:
        if self.arming.read_only or self.arming.replaying:
            self.say(self.arming.refusal, severity="warning")
            return
        self.arming.toggle()
        armed = self.arming.armed
        self.say(
            "armed: acts may be asked for, for 10 minutes after the last one; W locks" if armed else "locked"
        )
        self.lines_changed()

    def act_on_cursor_alone(self) -> None:
        """The next act is for the row under the cursor, whatever is marked."""
        self._cursor_alone = True

    def lines_changed(self) -> None:
        """The lines around the screen may look different."""

    def _chosen(self, name: str) -> list[str]:
        """The keys of the marked rows, else of the one under the cursor; none where the act can't be asked for."""
        action = next(each for each in ACTIONS if each.name == name)
        table = self.table
        refusal = self._refused(name in NOT_WITHOUT_SLURM)
        if not refusal and action.on and table.listing.table not in action.on:
            refusal = (
                f"{action.hint} works on {action.on[0]}: move the cursor to one (Tab, or the number keys)"
            )
        if refusal:
            self.say(refusal, severity="warning")
            return []
        rows = self.feed.rows(table.listing.table)
        alone, self._cursor_alone = self._cursor_alone, False
        marked = [] if alone else [key for key in table.rows.marked if key in rows]
        if not alone and not marked and table.rows.marked_unseen:
            self.say(
                "the marked rows are hidden by the filter: show them, or clear the marks", severity="warning"
            )
            return []
        here = [table.rows.cursor] if table.rows.cursor in rows else []
        if not marked and not here:
            self.say("there is no row under the cursor")
        return sorted(marked) or [key for key in here if key is not None]

    def _refused(self, needs_slurm: bool) -> str:
        """Why no act may be asked for now."""
        if self.arming.refusal:
            return self.arming.refusal
        if not self.feed.link.up:
            return "the engine is away: what is shown is old, and nothing can be sent"
        return unfit(self.feed.tables, self.feed.now, needs_slurm)

    # ------------------------------------------------------------ acts by key

    async def action_scale(self) -> None:
        names = self._chosen("scale")
        if not names:
            return
        rows = [self.feed.tables.services[name] for name in names]

        def asked(replicas: int | None) -> None:
            if replicas is not None:
                self._ask(lambda tables, name, now: on_services.scale(tables, name, now, replicas), names)

        # Awaited, so that a number typed ahead reaches the window.
        await self.push_screen(ScaleWindow(rows), asked)

    def action_clear_override(self) -> None:
        """The key also revokes what is held: that is never refused."""
        if (revoked := self.hold.revoke()) is not None:
            self.say(f"revoked, and never sent: {revoked.plan.told()}")
            self.tick_held()
        else:
            self._ask(on_services.clear_override, self._chosen("clear_override"))

    def action_pause(self) -> None:
        names = self._chosen("pause")
        if names:
            self._ask(on_services.pause_or_resume(self.feed.tables, names), names)

    def action_drain(self) -> None:
        self._ask_leaving(on_instances.drain, self._chosen("drain"))

    def action_cancel_job(self) -> None:
        self._ask_leaving(on_instances.cancel, self._chosen("cancel_job"))

    def action_replace(self) -> None:
        self._ask_leaving(on_instances.replace, self._chosen("replace"))

    def _ask_leaving(self, decide: Callable[..., Act | str], targets: Sequence[str]) -> None:
        leaving = frozenset(targets)
        self._ask(lambda tables, target, now: decide(tables, target, now, leaving), targets)

    async def action_exclude(self) -> None:
        names = self._chosen("exclude")
        nodes = self.feed.tables.nodes
        if not names:
            return
        if all(nodes[name].excluded_until is not None for name in names):
            self._ask(on_nodes.include, names)
            return
        names = [name for name in names if nodes[name].excluded_until is None]

        def asked(hours: float | None) -> None:
            if hours is not None:
                self._ask(lambda tables, name, now: on_nodes.exclude(tables, name, now, hours), names)

        await self.push_screen(HoursWindow(names), asked)

    def action_maintenance(self) -> None:
        names = self._chosen("maintenance")
        if names:
            on = not all(self.feed.tables.proxies[name].maintenance for name in names)
            self._ask(lambda tables, name, now: on_proxies.maintenance(tables, name, now, on), names)

    def action_revoke_key(self) -> None:
        names = self._chosen("revoke_key")
        if names:
            revoke = not all(self.feed.tables.keys[name].revoked for name in names)
            self._ask(lambda tables, name, now: on_keys.revocation(tables, name, now, revoke), names)

    async def action_limit_key(self) -> None:
        names = self._chosen("limit_key")
        if not names:
            return

        def asked(limits: on_keys.Limits | None) -> None:
            if limits is not None:
                self._ask(lambda tables, name, now: on_keys.limiting(tables, name, now, limits), names)

        await self.push_screen(KeyLimitsWindow([self.feed.tables.keys[name] for name in names]), asked)

    def action_rollback(self) -> None:
        names = self._chosen("rollback")
        if len(names) > 1:
            self._ask(lambda tables, name, now: on_services.rollback(tables, name, now, ""), names)
        elif names:
            self._choose_revision(names[0])

    @work(exclusive=True, group="act")
    async def _choose_revision(self, name: str) -> None:
        answer = await self._looked_up(self._engine.revisions(name))
        if answer is None:
            return
        window = RevisionsWindow(answer, self.feed.now)
        if not window.choices:
            self.say(f"{name} has no other revision to go back to")
            return
        chosen = await self.push_screen_wait(window)
        if chosen is None or name not in self.feed.tables.services:
            return
        revision, fate = chosen
        if revision:
            decide = lambda tables, name, now: on_services.rollback(tables, name, now, revision, fate)  # noqa: E731
        else:
            to = answer["configured"]
            decide = lambda tables, name, now: on_services.unpin(tables, name, now, to)  # noqa: E731
        await self._confirm(plan(decide, self.feed.tables, [name], self.feed.now))

    def action_apply_config(self) -> None:
        refusal = self._refused(needs_slurm=False)
        if refusal:
            self.say(refusal, severity="warning")
        else:
            self._look_at_config()

    @work(exclusive=True, group="act")
    async def _look_at_config(self) -> None:
        preview = await self._looked_up(self._engine.config_diff())
        if preview is None:
            return
        if preview["faults"]:
            grid = Table.grid()
            for line in on_config.fault_lines(preview):
                grid.add_row(_folding(line))
            await self.push_screen(Page("The configuration file is bad: nothing can be applied", grid))
            return
        act = on_config.apply(preview)
        await self._confirm(act if isinstance(act, str) else Plan((act,)))

    async def _looked_up(self, question: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return await question
        except ClientError as exc:
            self.say(str(exc), severity="error")
            return None

    # ------------------------------------------------------------ shown, held, sent

    def _ask(self, decide: Decide, targets: Sequence[str]) -> None:
        if targets:
            self._show_plan(plan(decide, self.feed.tables, targets, self.feed.now))

    @work(exclusive=True, group="act")
    async def _show_plan(self, planned: Plan | str) -> None:
        await self._confirm(planned)

    async def _confirm(self, planned: Plan | str) -> None:
        if isinstance(planned, str):
            self.say(planned)
            return
        reason = await self.push_screen_wait(ConfirmWindow(planned))
        if reason is None:
            return
        self.arming.prolong()
        self.lines_changed()
        self.hold.put(planned, reason)
        self.tick_held()

    def tick_held(self) -> None:
        """Show the countdown; send what is due; show what failed as soon as nobody types into a window."""
        for held in self.hold.take_due():
            self.run_worker(self._send(held), group="send", exit_on_error=True)
        told = self.hold.told
        self.held_line.set_class(bool(told), "shown")
        self.held_line.show(text(f" ◆ {told}" if told else "", "alert" if told else ""))
        if self._idle and self._asked_back:
            self._ask_back(self._asked_back.pop(0))
        elif self._idle and self._unread:
            unread, self._unread = self._unread, []
            self.push_screen(outcomes_page(unread))

    @property
    def _idle(self) -> bool:
        """No window is open, and nobody types."""
        return len(self.screen_stack) == 1 and not isinstance(self.focused, Input)

    async def _send(self, held: Held) -> None:
        """One target after the other, each checked again; none but those that were shown."""
        outcomes = []
        for act in held.plan.acts:
            outcome = await self._send_one(act, held)
            if outcome is not None:
                outcomes.append(outcome)
        failed = [outcome for outcome in outcomes if not outcome.done]
        if failed:
            self._unread += outcomes
            self.tick_held()
        elif len(outcomes) == 1:
            self.say(f"{outcomes[0].what}: {outcomes[0].words}")
        elif outcomes:
            self.say(f"{held.plan.title}: the engine has them all")

    async def _send_one(self, act: Act, held: Held) -> Outcome | None:
        """None where the engine asks back first."""
        what = f"{act.title}: {act.name}"
        away = "" if self.feed.link.up else "the engine is away"
        if self.arming.replaying:
            away = self.arming.refusal
        if refusal := away or act.refusal(self.feed.tables, self.feed.now):
            return Outcome(what, False, f"{refusal}: nothing was sent")
        try:
            await act.send(self._engine, act.intent(held.reason, confirmed=bool(held.plan.asked)))
        except NeedsConfirmation as needs:
            self._asked_back.append(
                Held(Plan((replace(act, confirm=True),), asked=str(needs)), held.reason, 0.0)
            )
            return None
        except ClientError as exc:
            return Outcome(what, False, str(exc))
        return Outcome(what, True, "the engine has it")

    @work(group="ask-back")
    async def _ask_back(self, held: Held) -> None:
        reason = await self.push_screen_wait(ConfirmWindow(held.plan, held.reason))
        if reason is None:
            self.say(f"not sent: {held.plan.told()}")
            return
        self.hold.put(held.plan, reason)
        self.tick_held()

    def drop_held(self) -> bool:
        """Before leaving: nothing that is held is sent. Whether something was."""
        dropped = self.hold.revoke_all()
        for held in dropped:
            self.say(f"not sent: {held.plan.told()}; q again leaves", severity="warning")
        self.tick_held()
        return bool(dropped)

    def say(self, message: str, severity: Any = "information") -> None:
        """A toast; from outside or not, its words are shown as they are."""
        self.notify(text(message).plain, severity=severity, timeout=6, markup=False)


def _folding(line: str) -> Any:
    words = text(line)
    words.no_wrap = False
    return words
