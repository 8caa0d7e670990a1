"""Into a replay, about in it, and back to the present."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from textual import work
from textual.app import App
from textual.worker import Worker

from saia_engine.client import ClientError
from saia_engine.record.frames import RecordFault
from saia_engine.view import Change
from saia_tui.feed import Feed
from saia_tui.replay.player import Player, times_of_note, told_at
from saia_tui.replay.source import Record
from saia_tui.replay.standing import Standing
from saia_tui.replay.timeline import timeline
from saia_tui.replay.when import LAST_NIGHT_S, when
from saia_tui.widgets.line import Line

MOVES: Final = {"minute_back": -60.0, "minute_on": 60.0, "ten_back": -600.0, "ten_on": 600.0}


class Replaying(App[str]):
    """A program that can show the past. `feed` is the program's."""

    feed: Feed

    def begin_replaying(self, record: Record | None, wall: Callable[[], float]) -> None:
        """Called once, before anything is shown. None: there is nothing to replay."""
        self._record = record
        self._wall = wall
        self.player: Player | None = None
        self._playing: Worker[None] | None = None
        self.timeline_line = Line(id="timeline")

    # ------------------------------------------------------------ what the program does for it

    def say(self, message: str, severity: str = "information") -> None:
        raise NotImplementedError

    def replay_begins(self) -> bool:
        """Whether it may; says why not."""
        raise NotImplementedError

    def replay_ended(self) -> None:
        """Follow the present again."""
        raise NotImplementedError

    def replay_moved(self) -> None:
        """Something else is to be shown."""
        raise NotImplementedError

    def ask_for_moment(self) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------ in and out

    def replay(self, words: str) -> None:
        """From here, or within one. Raises ValueError for words that name no moment; empty: the last night."""
        now = self._wall()
        self.clear_notifications()
        moment = when(words, now) if words else now - LAST_NIGHT_S
        if self.player is not None:
            self.player.go(moment)
        elif self._record is None:
            self.say("there is no record here to replay", "warning")
        elif self.replay_begins():
            self._begin_replay(moment)

    @work(exclusive=True, group="replay")
    async def _begin_replay(self, moment: float) -> None:
        assert self._record is not None
        player = Player(
            self._record, self._show_then, partial(self.say), monotonic=lambda: self.feed.monotonic
        )
        self.player = player
        try:
            await player.open(moment)
        except (RecordFault, ClientError) as exc:
            self.player = None
            self.say(str(exc), "warning")
            self.replay_ended()
            return
        self._playing = self.run_worker(player.run(), group="player", exit_on_error=True)

    def action_replay(self) -> None:
        self.replay("")

    def action_live(self) -> None:
        if self.player is None:
            return
        if self._playing is not None:
            self._playing.cancel()
        self.player = self._playing = None
        self.clear_notifications()  # what was said of the past would be taken for the present
        self.feed.show_present()
        self._show_timeline()
        self.replay_ended()

    def _show_then(self, standing: Standing, changes: Sequence[Change]) -> None:
        if self.player is None:
            return
        self.feed.show_then(standing, changes)
        self._show_timeline()
        self.replay_moved()

    def _show_timeline(self) -> None:
        player, standing = self.player, self.feed.replay
        shown = player is not None and standing is not None
        self.timeline_line.set_class(shown, "shown")
        if player is not None and standing is not None:
            self.timeline_line.show(timeline(player.index, standing.position, self.size.width))

    # ------------------------------------------------------------ keys

    def action_replay_go(self, where: str) -> None:
        player = self.player
        if player is None:
            return
        self.clear_notifications()  # each was said of the moment that is left
        if where in MOVES:
            player.move(MOVES[where])
        elif where in ("frame_back", "frame_on"):
            player.step(-1 if where == "frame_back" else 1)
        elif where in ("note_back", "note_on"):
            self._go_to(
                player, times_of_note(player.index), where == "note_back", "alarm, act or start of the engine"
            )
        else:
            self._go_to(player, player.index.changes, where == "change_back", "change of an instance")

    def _go_to(self, player: Player, times: Sequence[float], back: bool, what: str) -> None:
        moment = player.next_of(times, -1 if back else 1)
        if moment is None:
            self.say(f"there is no {'earlier' if back else 'later'} {what} in the record")
            return
        player.go(moment)
        if words := told_at(player.index, moment):
            self.say(words)

    def action_replay_play(self) -> None:
        if self.player is not None:
            self.player.play_or_pause()

    def action_replay_speed(self, steps: int) -> None:
        if self.player is not None:
            self.player.change_speed(steps)

    def action_replay_goto(self) -> None:
        self.ask_for_moment()
