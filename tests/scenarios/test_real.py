"""Every scenario on real Slurm, the issue's five faults twice; all side by side, for they wait most of the time."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.e2e.installed import Installed
from tests.scenarios.pool import Result, Work, run
from tests.scenarios.scripts import FAULTS, SCENARIOS
from tests.slurm.versions import LATER, Version, chosen

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd, pytest.mark.timeout(900)]

ON_LATER = ("shorter-limit", "cold-restart", "accept-then-timeout")
"""What the later Slurm is asked beside its own dialect, where it is not the one that was chosen."""
LONG_FIRST = ("hold", "requeue", "node-down", "longer-limit", "shorter-limit")


def wanted() -> tuple[list[Work], list[Version]]:
    """What is run, and on which sites."""
    version = chosen()
    names = sorted([*SCENARIOS, *FAULTS], key=lambda name: name not in LONG_FIRST)
    work = [(name, version) for name in names]
    if os.environ.get("SAIA_SLURM") or LATER.missing():
        return work, [version] * 4
    return [*work, *((name, LATER) for name in ON_LATER)], [version, version, version, LATER]


WORK, SITES = wanted()


@pytest.fixture(scope="module")
def results(installed: Installed) -> Sequence[Result]:
    return run(WORK, SITES, installed)


@pytest.mark.parametrize(
    ("name", "version"), dict.fromkeys(WORK), ids=lambda part: part if isinstance(part, str) else part.name
)
def test_a_scenario_ends_as_it_should(results: Sequence[Result], name: str, version: Version):
    found = [result for result in results if (result.scenario, result.version) == (name, version)]
    assert len(found) == WORK.count((name, version))
    for result in found:
        assert result.outcome == SCENARIOS[name].expected, result.fault
