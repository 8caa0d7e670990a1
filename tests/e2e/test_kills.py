"""Whatever is killed under load: only what died with it fails, each in the right way, and soon nobody notices any more.

`make bench-kills` does the same with 20 kills of each kind, and measures for how long.
"""

from __future__ import annotations

import random

import pytest

from bench.kills import judge
from bench.kills.load import Job
from bench.kills.run import order, run
from bench.kills.victims import ENGINE, KINDS
from bench.site import Unavailable
from tests.e2e.conftest import unavailable

OF_EACH = 2
SHORT = Job(plain=16, streams=16, stream_s=(1.0, 2.5))
RECOVERED_S = 20.0
"""The promise is 5 s, on a machine that does nothing else."""


@pytest.mark.real_sshd
@pytest.mark.timeout(400)
def test_only_requests_fail_whose_instance_or_way_was_killed():
    dice = random.Random()
    try:
        before, *found = run(order(OF_EACH, dice), dice, load=SHORT)
    except Unavailable as exc:
        unavailable(str(exc))
    print("\n".join(judge.table(judge.summary(found))))
    assert [one.broken for one in (before, *found) if one.broken] == []
    assert {one.kind for one in found} == set(KINDS)
    assert [one.failures for one in found if one.kind == ENGINE] == [{}] * OF_EACH
    assert all(one.went_on for one in found)
    assert sum(sum(one.failures.values()) for one in found) > 0, "the load would have noticed"
    assert max(one.recovery_s for one in found) < RECOVERED_S
