"""The same scenarios in the simulator: what it shows is what a real Slurm shows, or it is no judge."""

from __future__ import annotations

import pytest

from saia_engine.simulator.site import USER
from saia_engine.simulator.slurm_text import NEW, OLD
from tests.scenarios.outcome import Outcome, Trial
from tests.scenarios.scripts import SCENARIOS
from tests.scenarios.simulated import SimulatedSite


@pytest.mark.parametrize(("seed", "dialect"), [(1, OLD), (2, NEW), (3, OLD)])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_on_a_real_site(name: str, seed: int, dialect: str):
    site = SimulatedSite(seed, dialect)

    async def play() -> Outcome:
        trial = await Trial.begin(site)
        return await SCENARIOS[name].run(site, trial)

    try:
        assert site.run(play()) == SCENARIOS[name].expected
    finally:
        site.close()


def test_what_must_not_happen_is_counted():
    site = SimulatedSite(1)
    world = site.world

    async def play() -> Outcome:
        trial = await Trial.begin(site)
        twin, other = trial.first
        world.cluster.accept(f"saia.{twin.id}", USER, gpus=4)
        await site.sleep(60)
        [agent] = [each for each in world.agents.living() if each.instance == other.id and each.streams]
        world.agents.end_stream(agent, next(iter(agent.streams)), "cut", "engine")
        return await trial.end(twin.id, allowed=site.replicas)

    try:
        outcome = site.run(play())
    finally:
        site.close()
    assert (outcome.doubled, outcome.lost, outcome.live, outcome.orphans) == (2, 1, 2, 0)
