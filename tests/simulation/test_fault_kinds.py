"""Each kind of fault really happens, when nothing but it does."""

from __future__ import annotations

import pytest

from saia_engine.simulator.chaos import KINDS
from saia_engine.simulator.run import Task, run_seed

COMPANIONS = {"controller-restart": "squeue-empty", "controller-stopped": "sbatch-queued"}
"""What a fault brings with it."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_fault_strikes(kind: str) -> None:
    report = run_seed(Task(7, 3.0, (kind,)))
    assert report.faults.get(kind, 0) > 0, report.faults
    assert report.faults.keys() <= {kind, "config-bad", COMPANIONS.get(kind, kind)}


def test_without_faults_there_are_none_and_no_promise_is_broken() -> None:
    report = run_seed(Task(8, 3.0, ("none",)))
    assert report.faults == {}
    assert report.violations == []
    assert report.rules.keys() >= {"too-few", "replace-before-end", "replacement-ready", "drained"}
