"""What all end-to-end tests stand on: a real Slurm, saia as it is installed, and one standing site."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.e2e.installed import Installed, NotInstallable, install
from tests.e2e.site import SERVICE, Site
from tests.slurm.cluster import Cluster, ClusterUnavailable, explain_missing
from tests.slurm.versions import SYSTEM_PATH

PROGRAMS = ("sshd", "ssh-keygen", "useradd", "setpriv")


def unavailable(why: str) -> NoReturn:
    """Skip, or fail where the real parts are asked for."""
    if os.environ.get("SAIA_REQUIRE_REAL") == "1":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def installed() -> Installed:
    """The site's and the proxy's programs."""
    try:
        explain_missing()
    except ClusterUnavailable as exc:
        unavailable(str(exc))
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        unavailable(f"not installed: {', '.join(missing)}; `make system-deps` installs them on Debian")
    try:
        return install()
    except NotInstallable as exc:
        unavailable(str(exc))


@pytest.fixture(scope="session")
def slurm(installed: Installed) -> Iterator[Cluster]:
    """Four nodes with four GPUs each."""
    cluster = Cluster(nodes=4)
    try:
        cluster.start()
    except ClusterUnavailable as exc:
        unavailable(str(exc))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    """The whole chain with two replicas of an hour; tests leave it as they found it: two ready, no override."""
    times = 'replicas = 2\nmin_available = 1\ntime_limit = "1h"\nmin_ready = "1s"\nlead_floor = "1m"\n'
    with Site(slurm, installed, SERVICE + times) as running:
        running.start_engine()
        running.wait_ready(2)
        running.open_gate()
        running.start_proxy()
        yield running
