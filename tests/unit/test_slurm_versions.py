"""What Slurm's commands print from 20.11 to 25.11, read by the adapter: `slurm_outputs/<version>/`.

The files are written by hand in the form that each version's source prints; names, numbers and nodes are made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saia_engine.model import Job, Node, Partition
from saia_engine.slurm import text

OUTPUTS = Path(__file__).with_name("slurm_outputs")
VERSIONS = sorted(directory.name for directory in OUTPUTS.iterdir())
NONCE = "5a1af1c710000000"
NOW = 1_795_500_000.0

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def printed(version: str, name: str) -> str:
    return (OUTPUTS / version / name).read_text()


def messages(version: str, name: str) -> Iterator[str]:
    """What a command wrote to stderr, one time after the other."""
    yield from printed(version, name).split("\n\n")


def jobs(version: str) -> dict[str, Job]:
    """By name; of several with one name the last."""
    return {job.name.partition("\n")[0]: job for job in text.jobs(printed(version, "squeue.txt"), NONCE)}


# Each holds in every version.
JOBS: dict[str, Callable[[Job], bool]] = {
    "saia.k7f3.hpc.chat.0a1b2c3d": lambda job: (
        (job.state, job.user, job.partition, job.reason) == ("RUNNING", "svc", "gpu", "")
        and (job.submit_time, job.start_time, job.end_time) == (NOW, NOW + 5, NOW + 3605)
        and (job.nodes, job.node_count, job.cpus, job.time_limit_s) == (("gpu01",), 1, 16, 3600)
        and (job.gres, job.gpus, job.priority) == ("gpu:a100:2", 2, 4294901757)
    ),
    "saia.k7f3.hpc.big.0a1b2c3e": lambda job: (
        job.nodes == ("gpu02", "gpu03", "gpu04", "gpu07")
        and (job.node_count, job.gpus, job.restarts, job.time_limit_s) == (4, 16, 3, 93_600)
    ),
    "saia.k7f3.hpc.chat.0a1b2c3f": lambda job: (
        (job.state, job.reason, job.nodes) == ("PENDING", "Resources", ())
        and (job.start_time, job.end_time) == (NOW + 7200, None)  # the forecast; an end is none
    ),
    "no-limit": lambda job: (job.time_limit_s, job.start_time, job.end_time) == (None, None, None),
    "endless": lambda job: (job.time_limit_s, job.end_time) == (None, None) and job.start_time is not None,
    "array of five": lambda job: (job.state, job.nodes) == ("RUNNING", ("cn002",)),
    "het": lambda job: (job.gpus, job.gres) == (1, "gpu:1"),
    "ends": lambda job: job.state == "COMPLETING" and not job.ended,
    "given up": lambda job: job.state == "CANCELLED" and job.ended,
    "no luck": lambda job: (
        (job.state, job.reason, job.restarts) == ("NODE_FAIL", "NodeDown", 1) and job.ended
    ),
    "too big": lambda job: job.state == "OUT_OF_MEMORY" and job.ended,
    "of a state unheard of": lambda job: not job.ended,
    "x": lambda job: job.user == "eve" and job.reason.endswith("UnavailableNodes:gpu[01-02],cn001"),
    "from another cluster of the federation": lambda job: (
        job.id > 67_108_864 and job.nodes == ("nid00012", "nid00013")
    ),
    "paused": lambda job: job.state == "SUSPENDED" and not job.ended,
    "back again": lambda job: job.restarts == 2 and not job.ended,
}


def test_jobs(version: str):
    found = jobs(version)
    assert found.keys() == JOBS.keys()
    wrong = [name for name, holds in JOBS.items() if not holds(found[name])]
    assert wrong == []
    ids = [job.id for job in text.jobs(printed(version, "squeue.txt"), NONCE)]
    assert len(set(ids)) == len(ids) == 18 and 99 not in ids


NODES: dict[str, Callable[[Node], bool]] = {
    "gpu01": lambda node: (
        node.usable
        and (node.state, node.address, node.partitions) == ("mixed", "10.1.0.1", ("gpu", "long"))
        and (node.cpus, node.cpus_allocated, node.memory_mib) == (64, 16, 512_000)
        and (node.gpu_type, node.gpus, node.gpus_allocated, node.reason) == ("a100", 4, 2, "")
    ),
    "gpu02": lambda node: node.usable and (node.gpus, node.gpus_allocated) == (4, 4),
    "gpu03": lambda node: not node.usable and node.reason == "NHC: check_hw_gpu | xid 79\n(gpu 3)",
    "gpu04": lambda node: not node.usable and "*" in node.state and "drain" in node.state,
    "gpu05": lambda node: node.usable and (node.gpu_type, node.gpus) == ("", 4),
    "gpu06": lambda node: "reserved" in node.state,
    "gpu07": lambda node: not node.usable and node.reason.endswith("(3 < 4)"),
    "cn001": lambda node: node.usable and (node.gpus, node.gpu_type) == (0, ""),
    "cn002": lambda node: node.usable and node.partitions == ("old",),
}


def test_nodes(version: str):
    found = {node.name: node for node in text.nodes(printed(version, "sinfo.txt"), NONCE)}
    homeless = found.pop("cn003", None)  # the later versions tell of nodes without a partition
    assert homeless is None or homeless.partitions == ()
    assert found.keys() == NODES.keys()
    wrong = [name for name, holds in NODES.items() if not holds(found[name])]
    assert wrong == []


def test_partitions(version: str):
    gpu, long, old = text.partitions(printed(version, "sinfo.txt"), NONCE)
    names = tuple(f"gpu{number:02}" for number in range(1, 8))
    assert gpu == Partition("gpu", up=True, max_time_s=86_400.0, nodes=names, default=True)
    assert long == Partition("long", nodes=("gpu01", "cn001"))
    assert old == Partition("old", up=False, max_time_s=1800.0, nodes=("cn002",))


def test_reservations(version: str):
    maintenance, course, cores, licence = text.reservations(printed(version, "reservations.txt"))
    assert (maintenance.name, maintenance.maintenance) == ("maint.2026", True)
    assert (maintenance.start, maintenance.end) == (NOW + 86_400, NOW + 115_200)
    assert len(maintenance.nodes) == 10 and maintenance.nodes[-1] == "cn003"
    assert maintenance.users == ("root",) and "FLEX" not in maintenance.flags
    assert (course.maintenance, course.accounts, course.users) == (False, ("teaching", "-guests"), ())
    assert (cores.nodes, cores.flags, cores.users) == (("cn001",), ("DAILY",), ("anna", "eve"))
    assert (licence.nodes, licence.flags) == ((), ("ANY_NODES",))


def test_configuration_and_a_submit(version: str):
    assert text.boot_time(printed(version, "config.txt")) == NOW - 86_400
    assert text.controller_time(printed(version, "config.txt")) == NOW + 100
    assert text.submitted_id(printed(version, "sbatch.txt")) > 100


def test_refusals_are_told_from_doubts(version: str):
    refused, doubtful = messages(version, "refused.txt"), messages(version, "doubtful.txt")
    assert [said for said in refused if not text.provably_refused(said)] == []
    assert [said for said in doubtful if text.provably_refused(said)] == []


def test_a_cancel_of_what_is_gone_is_told_from_one_that_failed(version: str):
    assert all(text.is_gone(said) for said in messages(version, "scancel_gone.txt"))
    assert not any(text.is_gone(said) for said in messages(version, "scancel_failed.txt"))
