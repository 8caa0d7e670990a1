"""Each kind of fault really happens, when nothing but it does."""

from __future__ import annotations

import pytest

from saia_engine.simulator.chaos import KINDS, Chaos
from saia_engine.simulator.keeper import Keeper
from saia_engine.simulator.operators import Operators
from saia_engine.simulator.run import Task, run_seed
from saia_engine.simulator.world import Recorder, World

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


@pytest.mark.parametrize("seed", [5, 10])
def test_an_answer_that_is_cut_short_is_known_for_one_in_both_dialects(seed: int) -> None:
    report = run_seed(Task(seed, 3.0, ("squeue-truncated",)))
    assert report.faults["squeue-truncated"] > 0
    assert report.violations == []


def test_an_agent_that_starts_while_the_network_is_away_is_reached_once_it_is_back() -> None:
    recorder = Recorder()
    world = World(1, [recorder])
    world.begin()
    world.run_until(world.site.now + 600.0)
    chaos = Chaos(world, Keeper(world), Operators(world, 0.0))
    chaos.deaf("network-away")
    ((timer, over),) = chaos.ends.values()
    timer.cancel()
    before = world.agents.living()
    world.cluster.process_ended(before[0].job, 1)
    world.run_until(world.site.now + 300.0)
    started = [agent for agent in world.agents.living() if agent not in before]
    assert started
    assert not any(agent.reachable for agent in started)
    over()
    assert all(agent.reachable for agent in started)
    world.close()
