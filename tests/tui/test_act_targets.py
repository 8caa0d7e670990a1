"""Whatever moves, comes or goes under it: an act reaches the target that was shown, as it was shown, or nobody."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from textual.pilot import Pilot

from saia_tui.app import SaiaApp
from saia_tui.windows.confirm import ConfirmWindow
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.screen import Clock, shown, until

VERBS = {"d": "drain", "X": "cancel", "R": "replace"}
ROUNDS = 25
STATES = ("ready", "ready", "ready", "unready", "draining", "starting", "failed")


class Turmoil:
    """Changes instances at random behind the operator's back."""

    def __init__(self, app: SaiaApp, engine: FakeEngine, pilot: Pilot[str], chance: random.Random) -> None:
        self.app, self.engine, self.pilot, self.chance = app, engine, pilot, chance
        self._count = 0

    async def strikes(self, times: int) -> None:
        for _ in range(times):
            self.chance.choice(
                [self._change, self._change, self._insert, self._remove, self._sort, self._mark]
            )()
        self._count += 1
        name = f"marker-{self._count}"
        self.engine.put("proxies", {"cloud": msgspec.structs.replace(sample.proxies()["cloud"], peer=name)})
        await until(self.pilot, lambda: self.app.feed.tables.proxies["cloud"].peer == name)
        self.app.repaint()

    @property
    def _rows(self) -> dict[str, Any]:
        return self.engine.tables["instances"]

    def _change(self) -> None:
        key = self.chance.choice(sorted(self._rows))
        changed = msgspec.structs.replace(
            self._rows[key],
            state=self.chance.choice(STATES),
            generation=self.chance.randrange(2),
            end=sample.NOW + self.chance.randrange(100_000),
        )
        self.engine.put("instances", {key: changed})

    def _insert(self) -> None:
        twin = self._rows[self.chance.choice(sorted(self._rows))]
        key = f"{twin.id.rpartition('.')[0]}.{self.chance.randrange(16**4):04x}"
        self.engine.put("instances", {key: msgspec.structs.replace(twin, id=key)})

    def _remove(self) -> None:
        if len(self._rows) > 4:
            self.engine.put("instances", gone=[self.chance.choice(sorted(self._rows))])

    def _sort(self) -> None:
        self.app.table.sort_next(self.chance.choice((-1, 1, 2)))
        if self.chance.random() < 0.5:
            self.app.table.sort_reverse()

    def _mark(self) -> None:
        some = self.chance.sample(sorted(self._rows), self.chance.randrange(4))
        self.app.table.rows.clear_marks()
        for key in some:
            self.app.table.rows.toggle_mark(key)


def sending(app: SaiaApp) -> bool:
    return any(worker.group == "send" and not worker.is_finished for worker in app.workers)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_act_ever_reaches_another_target_than_the_one_shown(seed: int) -> None:
    engine, clock, chance = FakeEngine(), Clock(), random.Random(seed)
    reached = asked = 0
    async with shown(engine, (120, 30), clock=clock, hold_s=5.0) as (app, pilot):
        await pilot.press("i")
        turmoil = Turmoil(app, engine, pilot, chance)
        for _ in range(ROUNDS):
            await turmoil.strikes(3)
            await pilot.press(*["down"] * chance.randrange(4))
            key = chance.choice(sorted(VERBS))
            await pilot.press(key)
            await pilot.pause()
            if not isinstance(app.screen, ConfirmWindow):
                assert len(app.screen_stack) == 1
                continue
            plan = app.screen.plan
            targets = {act.target: dict(act.seen) for act in plan.acts}
            marked = {name for name in app.table.rows.marked if name in app.feed.tables.instances}
            assert set(targets) <= (marked or {app.table.rows.cursor})
            await turmoil.strikes(chance.randrange(3))
            await pilot.press(*(plan.words[0] if plan.dangers else ""), "enter" if plan.dangers else "y")
            await until(pilot, lambda: len(app.screen_stack) == 1)
            await turmoil.strikes(chance.randrange(3))
            before = len(engine.intents)
            true_now = {name: msgspec.structs.replace(row) for name, row in app.feed.tables.instances.items()}
            clock.at += 6
            app.tick_held()
            await until(pilot, lambda: not app.hold and not sending(app))
            for (verb, target, *_), expected in zip(
                engine.intents[before:], engine.expected[before:], strict=True
            ):
                assert verb == VERBS[key]
                assert expected == targets.pop(target), "one that was shown, once, as it was shown"
                row = true_now[target]
                assert expected == {"state": row.state, "generation": row.generation}
                reached += 1
            asked += 1
            app.tick_held()
            await pilot.pause()
            while len(app.screen_stack) > 1:
                await pilot.press("escape")
                await pilot.pause()
            app.arming.prolong()
    assert asked > ROUNDS / 4 and reached > 3, (asked, reached)
