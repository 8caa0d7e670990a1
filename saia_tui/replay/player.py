"""Goes through a record: to a moment, by frames, by what is of note, or on by itself.

One task (`run`) reads and shows; keys only say where to. Whoever presses faster than can be shown sees the last one.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from saia_engine.client import ClientError
from saia_engine.record.frames import RecordFault, Reel, Rows, difference
from saia_engine.record.index import Index, Span
from saia_engine.record.reading import frame_at
from saia_engine.view import TABLES, Change
from saia_tui import moments
from saia_tui.replay.source import Record
from saia_tui.replay.standing import Standing

SPEEDS: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600)
TICK_S: Final = 0.25
"""More often nobody looks."""
GAP_S: Final = 1.0
"""So long it stands before it goes on behind a gap."""

Show = Callable[[Standing, Sequence[Change]], None]


class Player:
    """`show` gets each new standing with the rows that differ from what was shown before."""

    def __init__(
        self,
        record: Record,
        show: Show,
        say: Callable[[str], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = Index()
        self.standing: Standing | None = None
        self.playing = False
        self.speed = 1
        self._record = record
        self._show = show
        self._say = say
        self._monotonic = monotonic
        self._wanted = 0.0
        self._dirty = False
        """Something is to be shown that is not yet."""
        self._wake = asyncio.Event()
        self._reel: tuple[Span, Reel] | None = None
        self._rows: Rows = {}
        self._due = 0.0
        """When it goes on, while it plays."""

    async def open(self, moment: float | None) -> None:
        """Show the state of that moment; None: the beginning. Raises RecordFault where there is no record."""
        self.index = await self._record.index()
        begin = self.index.begin
        if begin is None:
            why = self.index.faults[0] if self.index.faults else "the engine has recorded nothing yet"
            raise RecordFault(f"there is no record: {why}")
        await self._seek(begin if moment is None else moment)

    async def run(self) -> None:
        """Carry out what is asked for, until cancelled."""
        while True:
            await self._wait()
            asked, self._dirty = self._dirty, False
            try:
                if asked:
                    await self._seek(self._wanted)
                elif self.playing and self._monotonic() >= self._due:
                    await self._play_on()
            except (RecordFault, ClientError) as exc:
                self.playing = False
                if self.standing is not None:
                    self._wanted = self.standing.position
                self._say(str(exc))
                self._tell(())

    async def _wait(self) -> None:
        if self._dirty:
            return
        timeout = max(0.0, self._due - self._monotonic()) if self.playing else None
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    # ------------------------------------------------------------ what is asked for

    def go(self, moment: float) -> None:
        self._wanted = moment
        self._dirty = True
        self._wake.set()

    def move(self, seconds: float) -> None:
        """From where it is, or is going to be."""
        self.go(self._wanted + seconds)

    def step(self, frames: int) -> None:
        """One frame back (-1) or forth."""
        self.playing = False
        self.go(self._before(self._wanted) if frames < 0 else self._after(self._wanted))

    def next_of(self, times: Sequence[float], direction: int) -> float | None:
        """The nearest of these moments, beyond what is shown; None where there is none."""
        at = self._wanted if self._dirty or self.standing is None else self.standing.at
        number = bisect_left(times, at) - 1 if direction < 0 else bisect_right(times, at)
        return times[number] if 0 <= number < len(times) else None

    def play_or_pause(self) -> None:
        self.playing = not self.playing
        self._due = self._monotonic()
        self._tell(())
        self._wake.set()

    def change_speed(self, steps: int) -> None:
        at = SPEEDS.index(self.speed) + steps
        self.speed = SPEEDS[max(0, min(at, len(SPEEDS) - 1))]
        self._due = min(self._due, self._monotonic() + TICK_S)
        self._tell(())
        self._wake.set()

    # ------------------------------------------------------------ frames

    def _times(self, moment: float) -> Sequence[float]:
        """Of the frames around a moment, where they are known."""
        if self._reel is not None and self._reel[0].begin <= moment <= self._reel[0].end:
            return [frame.at for frame in self._reel[1].frames]
        return ()

    def _before(self, moment: float) -> float:
        times = self._times(moment)
        shown = bisect_right(times, moment) - 1
        if shown > 0:
            return times[shown - 1]
        span = self.index.span_for(moment)
        if span is None:
            return moment
        if moment > span.end:
            return span.end
        if not times and moment > span.begin:
            return max(span.begin, moment - span.step_s)
        earlier = [each.end for each in self.index.spans if each.end < span.begin]
        return max(earlier, default=span.begin)

    def _after(self, moment: float) -> float:
        times = self._times(moment)
        number = bisect_right(times, moment)
        if number < len(times):
            return times[number]
        span = self.index.span_for(moment)
        if span is not None and not times and moment < span.end:
            return min(span.end, moment + span.step_s)
        later = self.index.span_after(max(moment, span.end if span else moment))
        return later.begin if later is not None else moment

    # ------------------------------------------------------------ going

    async def _play_on(self) -> None:
        at = self._wanted
        after = self._after(at)
        if after <= at:
            await self._wait_for_more(at)
            return
        gap = self.index.gap_at((at + after) / 2)
        skip = max(after, at + self.speed * TICK_S)
        await self._seek(after if gap else skip if self.index.covers(skip) else after)
        following = self._after(self._wanted)
        wait_s = (following - self._wanted) / self.speed
        if self.index.gap_at((self._wanted + following) / 2):
            wait_s = min(wait_s, GAP_S)
        self._due = self._monotonic() + max(TICK_S, wait_s)

    async def _wait_for_more(self, at: float) -> None:
        """At the end: there may be news of an engine that runs."""
        await self._look_again()
        if self._after(at) > at:
            self._due = self._monotonic()
            return
        span = self.index.span_for(at)
        self._due = self._monotonic() + (span.step_s if span else 10.0)

    async def _look_again(self) -> None:
        self.index = await self._record.index()

    async def _seek(self, moment: float) -> None:
        """Raises RecordFault, and leaves what is shown."""
        end = self.index.end
        if end is not None and moment > end:
            await self._look_again()
        begin, end = self.index.begin, self.index.end
        if begin is None or end is None:
            raise RecordFault("there is no record any more")
        wanted = moment
        moment = max(begin, min(moment, end))
        if moment != wanted:
            word = "begins" if wanted < begin else "ends"
            if not self._dirty and abs(wanted - moment) > 1:
                self._say(f"the record {word} at {moments.stamp(moment)}")
        self._wanted = moment
        span = self.index.span_for(moment)
        assert span is not None
        reel = await self._reel_of(span)
        number = max(0, frame_at(reel, moment))
        rows = await asyncio.to_thread(reel.rows, number)
        rows = {table: rows.get(table, {}) for table in TABLES}
        changes = difference(self._rows, rows)
        self._rows = rows
        self._tell(changes, at=reel.frames[number].at)

    async def _reel_of(self, span: Span) -> Reel:
        if self._reel is not None and self._reel[0] == span:
            return self._reel[1]
        data = await self._record.segment(span.name)
        reel = await asyncio.to_thread(Reel, data)
        if not reel.frames:
            raise RecordFault(f"{span.name}: {reel.fault or 'it is empty'}")
        self._reel = span, reel
        return reel

    def _tell(self, changes: Sequence[Change], at: float | None = None) -> None:
        before = self.standing
        if at is None:
            if before is None:
                return
            at = before.at
        position = self._wanted
        self.standing = Standing(position, at, self.playing, self.speed, self._missing(position))
        self._show(self.standing, changes)

    def _missing(self, position: float) -> str:
        gap = self.index.gap_at(position)
        if gap is None:
            return ""
        return (
            f"no record from {moments.clock(gap.begin, position).strip()} to"
            f" {moments.clock(gap.end, position).strip()}: shown is the last before it ({gap.why})"
        )


def times_of_note(index: Index) -> list[float]:
    return sorted({moment.at for moment in index.moments})


def told_at(index: Index, at: float) -> str:
    """What of note happened at that moment."""
    kinds: Mapping[str, str] = {"alarm": "critical: ", "alarm-end": "no longer: ", "act": "", "engine": ""}
    found = [
        f"{kinds.get(each.kind, '')}{each.subject}: {each.text}" for each in index.moments if each.at == at
    ]
    return found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else "") if found else ""
