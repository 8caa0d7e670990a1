"""Every scenario on real Slurm, the worst faults on the later version, too; side by side, for they mostly wait."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.e2e.installed import Installed
from tests.scenarios.pool import Result, Work, run
from tests.scenarios.scripts import FAULTS, SCENARIOS
from tests.slurm.versions import LATER, Version, chosen

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd, pytest.mark.timeout(900)]

LONG_FIRST = ("hold", "requeue", "node-down", "longer-limit", "shorter-limit")


def wanted() -> tuple[list[Work], list[Version]]:
    """What is run, and on which sites."""
    version = chosen()
    again = version if os.environ.get("SAIA_SLURM") or LATER.missing() else LATER
    work = [*((name, version) for name in SCENARIOS), *((name, again) for name in FAULTS)]
    work.sort(key=lambda piece: piece[0] not in LONG_FIRST)
    return work, [version, version, version, again, again]


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
