"""Where the engine makes no new plan, for nothing is new and nothing due, a new one would want nothing else."""

from __future__ import annotations

import pytest

from saia_engine.model import Plan
from saia_engine.planner import lead
from saia_engine.reconciler import Reconciler
from saia_engine.simulator.run import Task, run_seed


def wanted(plan: Plan) -> object:
    alarms = sorted((alarm.code, alarm.subject) for alarm in plan.alarms)
    return plan.actions, sorted(reason.rule for reason in plan.waiting), alarms


@pytest.mark.parametrize("seed", [3, 20])
def test_a_plan_that_is_not_made_anew_would_be_the_same(seed, monkeypatch) -> None:
    made: list[Plan] = []
    spared = 0
    advance, preview = Reconciler._advance, Reconciler.preview

    def noted(self: Reconciler) -> Plan:
        made.append(preview(self))
        return made[-1]

    async def checked(self: Reconciler) -> None:
        nonlocal spared
        before = len(made)
        await advance(self)
        if before == len(made) and self._planned_on is not None and self._now() < self.last_plan.again_at:
            if self._known() != self._planned_on:
                return  # it may not plan now
            spared += 1
            assert wanted(preview(self)) == wanted(self.last_plan)

    # A lead grows while a job waits, and is measured anew only every few seconds: here at once.
    monkeypatch.setattr(lead, "GROWS_S", 0.0)
    monkeypatch.setattr(Reconciler, "preview", noted)
    monkeypatch.setattr(Reconciler, "_advance", checked)
    assert run_seed(Task(seed, 8.0)).violation_count == 0
    assert spared > 100
