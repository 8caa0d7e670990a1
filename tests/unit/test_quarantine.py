"""Bad nodes are kept out, where the fault is the node's: proof, near misses, and how many."""

from __future__ import annotations

import pytest

from saia_engine.model import Exclude, Exclusion, Instance, Launch, LaunchSpec, Plan, Quarantine, State
from saia_engine.planner.quarantine import WINDOW_S
from tests.unit.planner_support import NOW, acts, alarms, cluster, ended, instance, node, plan, rules, scaled

FOUR = cluster()
ELSEWHERE = instance("c", node="gpu02")


def failed(name: str, ago_s: float = 1000, on: str = "gpu01", **fields) -> Instance:
    return ended(name, State.FAILED, ago_s, node=on, outcome="exit code 9", **fields)


def quarantine(*fleet: Instance, snapshot=FOUR, **known) -> Plan:
    return plan(*fleet, service=scaled(1), snapshot=snapshot, **known)


def excluded(found: Plan) -> list[str]:
    return [a.node for a in found.actions if isinstance(a, Exclude)]


def test_two_failures_on_one_node_while_it_runs_elsewhere_exclude_the_node_for_a_time() -> None:
    found = quarantine(failed("a"), failed("b", 500), ELSEWHERE)
    (act,) = found.actions
    assert isinstance(act, Exclude)
    assert (act.node, act.until, act.reason.rule) == ("gpu01", NOW + 3600, "bad-node")
    assert dict(act.reason.inputs) == {"a": "exit code 9", "b": "exit code 9"}


def test_a_launch_of_the_same_plan_keeps_off_it() -> None:
    found = plan(failed("a"), failed("b", 500), ELSEWHERE, service=scaled(2), snapshot=FOUR)
    assert excluded(found) == ["gpu01"]
    (launch,) = [a for a in found.actions if isinstance(a, Launch)]
    assert launch.spec.exclude == "gpu01"


def test_how_many_and_how_long_are_configured() -> None:
    fleet = [failed("a"), failed("b"), ELSEWHERE]
    assert excluded(quarantine(*fleet, quarantine=Quarantine(3))) == []
    assert excluded(quarantine(*fleet, quarantine=Quarantine(0))) == []
    (act, *_) = quarantine(*fleet, quarantine=Quarantine(2, 60.0)).actions
    assert act.until == NOW + 60  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "proof",
    [
        ELSEWHERE,
        instance("c", node="gpu02", first_ready_at=NOW - 90_000),
        instance("c", State.DRAINING, node="gpu02", first_ready_at=NOW - 100),
        ended("c", State.STOPPED, 50, node="gpu02", first_ready_at=NOW - 3000),
        failed("c", service="embed"),
    ],
    ids=["ready there", "for long", "ready before", "ended well", "another service fails here, too"],
)
def test_what_proves_that_it_is_the_node(proof: Instance) -> None:
    assert excluded(quarantine(failed("a"), failed("b"), proof)) == ["gpu01"]


@pytest.mark.parametrize(
    "no_proof",
    [
        instance("c", node="gpu01"),
        instance("c", State.STARTING, node="gpu02"),
        instance("c", node="gpu02", revision="older"),
        instance("c", node="gpu02", service="embed"),
        ended("c", State.STOPPED, 50, node="gpu02", first_ready_at=NOW - WINDOW_S - 1),
    ],
    ids=[
        "it runs here",
        "it only starts there",
        "another revision runs there",
        "another service",
        "long ago",
    ],
)
def test_a_service_that_fails_everywhere_excludes_no_node(no_proof: Instance) -> None:
    assert excluded(quarantine(failed("a"), failed("b"), no_proof)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"end_state": "PREEMPTED"},
        {"end_state": "TIMEOUT"},
        {"end_state": "CANCELLED"},
        {"absent_since": NOW - 1100},
        {"ago_s": WINDOW_S + 1},
        {"on": ""},
        {"on": "gpu03"},
        {"spec": LaunchSpec(nodes=2)},
    ],
    ids=[
        "preempted",
        "time-out",
        "scancel",
        "vanished",
        "long ago",
        "nowhere",
        "elsewhere",
        "one of several nodes",
    ],
)
def test_ends_that_say_nothing_about_the_node(fields: dict) -> None:
    assert excluded(quarantine(failed("a"), failed("b", **fields), ELSEWHERE)) == []


def test_a_node_that_is_out_is_not_excluded_again_nor_for_what_was_before() -> None:
    fleet = [failed("a"), failed("b", 500), ELSEWHERE]
    out = {"gpu01": Exclusion("gpu01", NOW + 100, "bad", NOW - 900)}
    assert excluded(quarantine(*fleet, exclusions=out)) == []
    was = {"gpu01": Exclusion("gpu01", NOW - 400, "bad", NOW - 900)}
    assert excluded(quarantine(*fleet, exclusions=was)) == []
    again = [failed("d", 300), failed("e", 200)]
    assert excluded(quarantine(*fleet, *again, exclusions=was)) == ["gpu01"]


def test_no_more_than_half_of_a_partitions_nodes_are_ever_out() -> None:
    fleet = [failed(f"{n}{k}", on=f"gpu0{n}") for n in (1, 2, 3) for k in "ab"]
    fleet.append(instance("c", node="gpu04"))
    assert excluded(quarantine(*fleet)) == ["gpu01", "gpu02"]
    out = {"gpu03": Exclusion("gpu03", NOW + 100, "by hand", NOW)}
    assert excluded(quarantine(*fleet, exclusions=out)) == ["gpu01"]


def test_a_small_partition_is_not_emptied_because_the_cluster_is_large() -> None:
    nodes = [node("gpu01"), node("gpu02"), *(node(f"cpu{n}", partition="cpu") for n in range(50))]
    fleet = [failed(f"{n}{k}", on=f"gpu0{n}") for n in (1, 2) for k in "ab"]
    served = ended("c", State.STOPPED, 50, node="cpu1", first_ready_at=NOW - 100)
    assert excluded(quarantine(*fleet, served, snapshot=cluster(*nodes))) == ["gpu01"]


def test_of_an_unknown_cluster_no_node_is_excluded() -> None:
    assert excluded(quarantine(failed("a"), failed("b"), ELSEWHERE, snapshot=None)) == []


def test_new_jobs_keep_off_it_and_old_ones_leave_it() -> None:
    out = {"gpu01": Exclusion("gpu01", NOW + 100, "bad", NOW), "gone": Exclusion("gone", NOW + 9, "x", NOW)}
    found = quarantine(instance("a", node="gpu01"), exclusions=out)
    assert (acts(found), rules(found)) == ([("Launch", "a")], ["node-excluded"])
    assert found.actions[0].spec.exclude == "gpu01", "Slurm refuses one that it does not know"  # type: ignore[union-attr]
    assert ("node-excluded", "gpu01") in alarms(found)


def test_an_exclusion_that_is_over_is_over() -> None:
    out = {"gpu01": Exclusion("gpu01", NOW, "bad", NOW - 60)}
    found = quarantine(instance("a", node="gpu01"), exclusions=out)
    assert (acts(found), alarms(found)) == ([], set())
