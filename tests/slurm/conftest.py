"""One real Slurm of each version for all tests of a session, or one clear reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, ClusterUnavailable
from tests.slurm.versions import dialects


@pytest.fixture(scope="session", params=dialects(), ids=lambda version: version.name)
def slurm_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster of four nodes with four GPUs each. Fails, not skips, under SAIA_REQUIRE_REAL=1."""
    cluster = Cluster(nodes=4, version=request.param)
    try:
        cluster.start()
    except ClusterUnavailable as exc:
        if os.environ.get("SAIA_REQUIRE_REAL") == "1":
            pytest.fail(str(exc))
        pytest.skip(str(exc))
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(slurm_cluster: Cluster) -> Iterator[Cluster]:
    """The session's cluster; jobs that a test leaves are ended after it."""
    yield slurm_cluster
    slurm_cluster.cancel_all()
