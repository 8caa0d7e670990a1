"""An engine whose host's wall clock is wrong, on a real Slurm (promise 14)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from saia_engine.clock import SteadyClock
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.lease import Lease
from saia_engine.model import LaunchSpec, Service, Timing
from saia_engine.probes import Target
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.revision_files import RevisionFiles
from saia_engine.slurm.cli import SlurmCli
from saia_engine.store import Event, Store
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.real_slurm

DAY_S = 86_400.0
POLL_S = 1.0
SETTLED_S = 40.0
"""So long a controller that has just started is not believed, with room."""
TIMING = Timing(lead_floor_s=10, min_ready_s=2, drain_deadline_s=20, admission_margin_s=10, safety_margin_s=5)


class Deaf:
    """No agent is asked."""

    def __init__(self) -> None:
        self.statuses, self.endpoints, self.faults, self.listening_since = {}, {}, {}, {}

    def watch(self, targets: Iterable[Target]) -> None:
        pass

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("wrong_s", [DAY_S, -DAY_S])
async def test_an_engine_started_a_day_off_submits_once_its_clock_is_mended(
    cluster: Cluster, tmp_path: Path, wrong_s: float
) -> None:
    off = {"s": wrong_s}
    slurm = SlurmCli("root", bin_dir=cluster.version.bin_dir, conf=str(cluster.conf))
    assert abs((await slurm.observe()).controller_now - time.time()) < 3
    store, lease = Store(tmp_path / "state.db"), Lease.acquire(tmp_path, tmp_path)
    events: list[Event] = []
    spec = LaunchSpec(command=("sleep", "600"), gres="gpu:a100:1", time_limit_s=600)
    engine = Reconciler(
        identity=Identity("clocks", "hpc", "root"),
        services={"chat": Service("chat", spec, TIMING)},
        poll_interval_s=POLL_S,
        submits_per_hour=10,
        slurm=slurm,
        store=store,
        specs=RevisionFiles(tmp_path / "revisions"),
        lease=lease,
        dirs=InstanceDirs(tmp_path / "instances"),
        probes=Deaf(),
        clock=SteadyClock(lambda: time.time() + off["s"]),
        on_event=events.append,
    )
    try:
        await engine.poll()
        await engine.poll()
        way = "behind" if wrong_s > 0 else "ahead of"
        assert "Slurm's controller is 86" in engine.slurm_fault and way in engine.slurm_fault
        assert engine.instances == {}
        off["s"] = 0.0
        deadline = time.monotonic() + SETTLED_S
        while not engine.instances and time.monotonic() < deadline:
            await engine.poll()
        (instance,) = engine.instances.values()
        assert instance.job_id > 0
        codes = [event.code for event in events]
        assert codes.count("clock-corrected") == 1
        assert codes.index("clock-corrected") < codes.index("launch")
        assert abs(instance.created_at - time.time()) < SETTLED_S
    finally:
        store.close()
        lease.release()
