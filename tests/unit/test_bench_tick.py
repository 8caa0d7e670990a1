"""The bench measures what it says: text in Slurm's form, through the real parser, into a fleet that needs nothing."""

from __future__ import annotations

from bench import tick
from saia_engine.slurm import text


def test_the_made_text_is_read_as_what_it_stands_for() -> None:
    _, instances = tick.fleet(3)
    jobs = text.jobs(tick.squeue(200, instances, "nonce", seed=1), "nonce")
    ours = {job.name: job for job in jobs if job.user == tick.USER}
    assert len(jobs) == 200 + len(instances)
    assert {i.job_name: i.job_id for i in instances} == {name: job.id for name, job in ours.items()}
    assert all(ours[i.job_name].nodes == (i.node,) and ours[i.job_name].gpus == 1 for i in instances)
    states = {job.state for job in jobs}
    assert {"PENDING", "RUNNING", "COMPLETED"} <= states
    assert any(len(job.nodes) > 1 for job in jobs)
    nodes = text.nodes(tick.sinfo("nonce"), "nonce")
    assert (len(nodes), nodes[0].gpus, nodes[0].gpus_allocated) == (tick.NODES, 4, 3)


def test_a_settled_fleet_is_measured() -> None:
    cost = tick.measure(foreign=50, services=3, count=1)
    assert 0 < cost.parse < cost.tick
    assert cost.plan > 0 and cost.show > 0
