"""The screen of events: filters, and what is older than the stream."""

from __future__ import annotations

from saia_engine.client import ClientError
from saia_tui.views.events import FRESH, EventsView
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import shown, until, words


def view_of(app: object) -> EventsView:
    view = app._views["events"]  # type: ignore[attr-defined]
    assert isinstance(view, EventsView)
    return view


async def test_a_page_down_at_the_end_reads_the_journal_until_there_is_no_more() -> None:
    engine = FakeEngine()
    streamed = len(engine.tables["events"])
    async with shown(engine) as (app, pilot):
        await pilot.press("6", "end")
        assert engine.asked == [], "nothing is asked before it is wanted"
        await pilot.press("pagedown")
        oldest = min(int(key) for key in engine.tables["events"])
        await until(pilot, lambda: engine.asked == [("events", oldest, False, "")])
        view = view_of(app)
        await until(pilot, lambda: len(view.first.rows.keys) == streamed + 200)
        await until(pilot, lambda: "back to" in words(app))
        for _ in range(8):
            await pilot.press("end", "pagedown")
            await pilot.pause()
        await until(pilot, lambda: "all there is" in words(app))
        seqs = [int(key) for key in view.first.rows.keys]
        assert seqs == sorted(seqs, reverse=True) and seqs[-1] == sample.OLDEST
        assert set(range(sample.OLDEST, oldest)) <= set(seqs), "no piece is missing"


async def test_operators_acts_and_warnings_are_filtered_here_and_asked_for_in_the_journal() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("6", "p")
        await until(pilot, lambda: "operators', 2" in words(app))
        assert "Maintenance wanted: on" in words(app) and "exit code 1" not in words(app)
        await pilot.press("end", "pagedown")
        await until(pilot, lambda: bool(engine.asked) and engine.asked[-1][2:] == (True, ""))
        await until(pilot, lambda: "old event" in words(app))
        view = view_of(app)
        assert all(view.first.rows[key].uid is not None for key in view.first.rows.keys)
        await pilot.press("p", "v")
        await until(pilot, lambda: "warnings, 3" in words(app))
        await pilot.press("end", "pagedown")
        await until(pilot, lambda: engine.asked[-1][2:] == (False, "warning"))
        oldest = min(int(key) for key in engine.tables["events"])
        assert engine.asked[-1][1] == oldest, "what the question before passed over is not left out"
        await pilot.press("v")
        await until(pilot, lambda: "critical only, 1" in words(app))


async def test_new_events_come_and_old_ones_stay_while_one_reads() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("6", "end", "pagedown")
        view = view_of(app)
        await until(pilot, lambda: len(view.first.rows.keys) > 200)
        before = len(view.first.rows.keys)
        new = {str(901 + number): sample.EventView(901 + number, sample.NOW, "x", "info", "y", "new", None)
               for number in range(5)}  # fmt: skip
        forgotten = sorted(engine.tables["events"], key=int)[:5]
        engine.put("events", new, forgotten)
        await until(pilot, lambda: "905" in view.first.rows.keys)
        assert len(view.first.rows.keys) == before + 5
        assert forgotten[0] in view.first.rows.keys


async def test_without_a_look_at_older_ones_no_more_are_kept_than_the_stream_holds() -> None:
    engine = FakeEngine()
    async with shown(engine) as (app, pilot):
        await pilot.press("6")
        new = {
            str(seq): sample.EventView(seq, sample.NOW, "x", "info", "y", "new", None)
            for seq in range(901, 1600)
        }
        engine.put("events", new)
        await until(pilot, lambda: "1599" in view_of(app).first.rows.keys)
        assert len(view_of(app)._kept) == FRESH


async def test_a_journal_that_cannot_be_read_is_told_and_tried_again() -> None:
    engine = FakeEngine()
    engine.refuse = [ClientError("journal", "cannot read the journal [/x]")]
    async with shown(engine) as (app, pilot):
        await pilot.press("6", "end", "pagedown")
        await until(
            pilot, lambda: any("cannot read the journal [/x]" in n.message for n in app._notifications)
        )
        await pilot.press("pagedown")
        await until(pilot, lambda: "old event" in words(app))
