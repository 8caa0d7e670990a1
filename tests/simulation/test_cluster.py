"""The simulated Slurm behaves as the real one was seen to."""

from __future__ import annotations

import math

import pytest

from saia_engine.model import LaunchSpec
from saia_engine.simulator.cluster import MIN_JOB_AGE_S, REQUEUE_WAIT_S, Cluster, Reserved, SimJob
from saia_engine.simulator.site import EPOCH, USER, Site
from saia_engine.simulator.truth import JobChanged, JobForgotten
from saia_engine.simulator.world import Recorder

SPEC = LaunchSpec(command=("serve",), gres="gpu:1")


class Bench:
    def __init__(self) -> None:
        self.seen = Recorder()
        self.site = Site(1, [self.seen])
        self.cluster = Cluster(self.site, gpu_nodes=2, gpus=2)

    def wait(self, seconds: float) -> None:
        self.site.loop.run_until(self.site.now + seconds)

    def submit(self, **options) -> SimJob:
        options = {"spec": SPEC, "gpus": 1, "limit_s": 600.0} | options
        return self.cluster.accept("saia.k7f3.hpc.chat.n1", USER, **options)

    def states(self) -> list[str]:
        return [event.state for event in self.seen.events if isinstance(event, JobChanged)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_job_starts_soon_where_there_is_room_and_is_cancelled_by_way_of_completing(bench: Bench) -> None:
    job = bench.submit()
    bench.wait(10)
    assert (job.state, job.node is not None) == ("RUNNING", True)
    bench.cluster.cancel(job.id, job.name, USER, "engine")
    bench.wait(10)
    assert bench.states() == ["PENDING", "RUNNING", "COMPLETING", "CANCELLED"]


def test_a_cancel_whose_name_or_user_does_not_match_does_nothing(bench: Bench) -> None:
    job = bench.submit()
    bench.wait(10)
    bench.cluster.cancel(job.id, "another", USER, "engine")
    bench.cluster.cancel(job.id, job.name, "anna", "engine")
    assert job.state == "RUNNING"


def test_limits_are_kept_by_the_minute_and_late_rather_than_early(bench: Bench) -> None:
    job = bench.submit(limit_s=61.0)
    bench.wait(10)
    assert job.start is not None
    assert (job.limit_s, job.end) == (120.0, job.start + 120.0)
    bench.wait(job.end - bench.site.now)
    assert job.state == "RUNNING"
    bench.wait(40)
    assert job.state == "TIMEOUT"


def test_an_ended_job_is_shown_for_a_while_and_then_forgotten(bench: Bench) -> None:
    job = bench.submit()
    bench.cluster.cancel(job.id, job.name, USER, "engine")
    bench.wait(MIN_JOB_AGE_S - 1)
    assert [row.state for row in bench.cluster.job_rows()] == ["CANCELLED"]
    bench.wait(2)
    assert bench.cluster.job_rows() == ()
    assert isinstance(bench.seen.events[-1], JobForgotten)


def test_a_requeue_keeps_the_id_raises_the_restarts_and_waits_two_minutes(bench: Bench) -> None:
    job = bench.submit()
    bench.wait(10)
    submitted = job.submit_time
    bench.cluster.requeue(job, "foreign")
    bench.wait(10)
    (row,) = bench.cluster.job_rows()
    assert (row.id, row.state, row.reason, row.restarts) == (job.id, "PENDING", "BeginTime", 1)
    assert row.submit_time > submitted
    bench.wait(REQUEUE_WAIT_S - 15)
    assert job.state == "PENDING"
    bench.wait(30)
    assert job.state == "RUNNING"


def test_a_held_job_waits_until_it_is_released(bench: Bench) -> None:
    job = bench.submit()
    bench.cluster.hold(job, True)
    bench.wait(300)
    assert bench.cluster.job_rows()[0].reason == "JobHeldUser"
    bench.cluster.hold(job, False)
    bench.wait(40)
    assert job.state == "RUNNING"


def test_an_admins_new_limit_moves_the_end_both_ways(bench: Bench) -> None:
    job = bench.submit(limit_s=600.0)
    bench.wait(10)
    assert job.start is not None
    bench.cluster.change_limit(job, 1200.0)
    assert job.end == job.start + 1200.0
    bench.cluster.change_limit(job, 120.0)
    bench.wait(160)
    assert job.state == "TIMEOUT"


def test_the_first_that_waits_gets_a_forecast_and_shorter_ones_slip_in_before_it(bench: Bench) -> None:
    long = [bench.submit(gpus=2, limit_s=3600.0), bench.submit(gpus=1, limit_s=1200.0)]
    bench.wait(10)
    first = bench.submit(gpus=2, limit_s=3600.0)
    longer, shorter = bench.submit(gpus=1, limit_s=3000.0), bench.submit(gpus=1, limit_s=600.0)
    bench.wait(40)
    assert [job.state for job in long] == ["RUNNING", "RUNNING"]
    assert (first.state, first.reason, first.forecast) == ("PENDING", "Resources", long[1].end)
    assert (longer.state, shorter.state) == ("PENDING", "RUNNING")


def test_no_job_starts_that_would_run_into_a_reservation(bench: Bench) -> None:
    nodes = tuple(name for name in bench.cluster.nodes if name.startswith("gpu"))
    bench.cluster.reserve(Reserved("maint", EPOCH + 900, EPOCH + 1800, nodes))
    late, early = bench.submit(limit_s=1200.0), bench.submit(limit_s=600.0)
    bench.wait(60)
    assert (late.state, early.state) == ("PENDING", "RUNNING")
    bench.wait(1900)
    assert late.state == "RUNNING"


def test_no_job_starts_on_a_node_that_drains_and_what_runs_there_goes_on(bench: Bench) -> None:
    job = bench.submit(limit_s=7200.0)
    bench.wait(10)
    for node in bench.cluster.nodes.values():
        node.draining = True
        bench.cluster.node_changed(node)
    waits = bench.submit()
    bench.wait(60)
    assert (job.state, waits.state) == ("RUNNING", "PENDING")
    assert {row.state for row in bench.cluster.node_rows()} >= {"mixed+drain", "idle+drain"}


def test_a_controller_that_is_down_sees_ends_and_starts_only_afterwards(bench: Bench) -> None:
    job = bench.submit(limit_s=60.0)
    bench.wait(10)
    boot = bench.cluster.boot
    bench.cluster.go_down()
    waits = bench.submit()
    bench.wait(300)
    assert (job.state, waits.state) == ("RUNNING", "PENDING")
    bench.cluster.come_up(lost_state=False)
    bench.wait(20)
    assert bench.cluster.boot > boot
    assert (job.state, waits.state) == ("TIMEOUT", "RUNNING")


def test_a_cold_restart_forgets_all_jobs_and_gives_their_ids_away_again(bench: Bench) -> None:
    job = bench.submit()
    bench.wait(10)
    bench.cluster.go_down()
    assert bench.cluster.come_up(lost_state=True) == [job]
    assert bench.cluster.job_rows() == ()
    assert bench.submit().id == job.id


def test_a_job_that_nobody_limits_has_an_end_all_the_same(bench: Bench) -> None:
    job = bench.submit()
    bench.wait(10)
    assert job.end is not None and job.end < math.inf
