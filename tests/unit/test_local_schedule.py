"""First in first out, first fit, no backfill."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saia_engine.slurm.local.ledger import JobRecord, NodeRecord
from saia_engine.slurm.local.schedule import free_on, parse_gres, place, possible

NODES = (NodeRecord("node01", 4, 100, 2), NodeRecord("node02", 4, 100, 2, gpu_type="a100"))


def job(ident: int, **fields: object) -> JobRecord:
    base = JobRecord(ident, f"n{ident}", "me", "/o", "/", submit_time=float(ident), time_limit_s=60)
    return replace(base, **fields)  # type: ignore[arg-type]


def test_the_first_node_that_fits_is_taken_and_its_lowest_free_gpus() -> None:
    started = place(NODES, [job(1, gpus=1), job(2, gpus=2), job(3, gpus=1)], now=1000.0)
    assert [j.placed for j in started] == [(("node01", (0,)),), (("node02", (0, 1)),), (("node01", (1,)),)]
    assert {(j.state, j.start_time, j.end_time) for j in started} == {("RUNNING", 1000.0, 1060.0)}


def test_nothing_overtakes_the_first_that_must_wait() -> None:
    jobs = [job(1, cpus=3), job(2, cpus=3), job(3, cpus=4), job(4, cpus=1)]
    first, second, third, fourth = place(NODES, jobs, now=0.0)
    assert (first.state, second.state) == ("RUNNING", "RUNNING")
    assert (third.state, third.reason) == ("PENDING", "Resources")
    assert (fourth.state, fourth.reason) == ("PENDING", "Priority")
    assert place(NODES, [first, second, third, fourth], now=1.0) == []


def test_order_is_by_submit_time_so_a_requeued_job_goes_to_the_end() -> None:
    requeued, other = job(1, cpus=4, node_count=2, submit_time=9.0), job(2, cpus=4, node_count=2)
    changed = {j.id: j.state for j in place(NODES, [requeued, other], now=10.0)}
    assert changed == {2: "RUNNING", 1: "PENDING"}


def test_drained_nodes_start_nothing_but_still_count_as_possible() -> None:
    drained = tuple(replace(node, drained=True) for node in NODES)
    assert place(drained, [job(1)], now=0.0) == [job(1, reason="Resources")]
    assert possible(job(1), drained)


@pytest.mark.parametrize(
    ("wish", "can"),
    [
        ({"cpus": 4, "gpus": 2, "memory_mib": 100}, True),
        ({"cpus": 5}, False),
        ({"memory_mib": 101}, False),
        ({"gpus": 3}, False),
        ({"node_count": 2}, True),
        ({"node_count": 3}, False),
        ({"exclude": ("node01",)}, True),
        ({"exclude": ("node01", "node02")}, False),
        ({"gpus": 1, "gpu_type": "h100", "exclude": ("node01",)}, False),
        ({"gpus": 1, "gpu_type": "a100", "exclude": ("node01",)}, True),
    ],
)
def test_what_could_ever_run(wish: dict[str, object], can: bool) -> None:
    assert possible(job(1, **wish), NODES) is can


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", (0, "")),
        ("gpu", (1, "")),
        ("gpu:2", (2, "")),
        ("gpu:a100", (1, "a100")),
        ("gpu:a100:4", (4, "a100")),
    ],
)
def test_gres(text: str, parsed: tuple[int, str]) -> None:
    assert parse_gres(text) == parsed


@pytest.mark.parametrize("text", ["fpga:1", "gpu:", "gpu:1:2", "gpu:-1", "gpu:2,gpu:3", "gpu:2\n"])
def test_gres_that_no_node_has(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_gres(text)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 100), st.integers(1, 2)), max_size=12
    )
)
def test_no_node_is_ever_overbooked_and_no_gpu_given_twice(wishes: list[tuple[int, int, int, int]]) -> None:
    jobs = {
        number: job(number, cpus=cpus, gpus=gpus, memory_mib=memory, node_count=nodes)
        for number, (cpus, gpus, memory, nodes) in enumerate(wishes, 1)
    }
    for round_ in range(len(jobs) + 1):
        jobs |= {j.id: j for j in place(NODES, jobs.values(), now=float(round_))}
        running = [j for j in jobs.values() if j.state == "RUNNING"]
        for node in NODES:
            here = [indexes for j in running for name, indexes in j.placed if name == node.name]
            given_out = [index for indexes in here for index in indexes]
            assert len(given_out) == len(set(given_out))
            free = free_on(node, running)
            assert min(free.cpus, free.memory_mib) >= 0
        for j in running[:1]:
            jobs[j.id] = replace(j, state="COMPLETED")
    assert all(j.state in ("COMPLETED", "RUNNING") for j in jobs.values())
