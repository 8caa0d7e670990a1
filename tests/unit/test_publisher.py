"""Who is in routes.json, as the gates will read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine import routes
from saia_engine.front import Endpoint
from saia_engine.model import (
    AgentStatus,
    Drain,
    DrainKind,
    Instance,
    LaunchSpec,
    ProxyLimits,
    Service,
    State,
    Timing,
)
from saia_engine.planner.lead import Learned
from saia_engine.publisher import NO_END, Publisher

NOW = 1_000_000.0
TIMING = Timing(admission_margin_s=120, safety_margin_s=30)
CHAT = Service("chat", LaunchSpec(), TIMING, 2, models=("m",), methods=("POST",), paths=("/v1/",))
ENDPOINT = Endpoint(20017, 1, "a" * 64, "c" * 64, "gpu99")
READY = Instance(
    "k.hpc.chat.a1",
    "chat",
    LaunchSpec(),
    "r",
    NOW - 900,
    state=State.READY,
    job_id=1,
    node="gpu01",
    end_time=NOW + 3000,
    served=True,
    timing=TIMING,
)


class Desk:
    """A publisher and what it is told, changed piece by piece."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "routes.json"
        self.told: dict = {
            "services": {"chat": CHAT},
            "proxies": {"cloud": ProxyLimits()},
            "instances": {READY.id: READY},
            "statuses": {},
            "endpoints": {READY.id: ENDPOINT},
            "addresses": {READY.id: "10.0.0.1"},
            "now": NOW,
        }
        self.start()

    def start(self) -> None:
        self.publisher = Publisher(
            routes.RoutesFile(self.path),
            installation="k",
            cluster="hpc",
            gate_socket=Path("/run/saia/gate.sock"),
        )

    def publish(self, *instances: Instance, **told) -> routes.RouteTable:
        if instances:
            told["instances"] = {i.id: i for i in instances}
        self.told |= told
        self.publisher.publish(**self.told)
        return routes.load(self.path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_ready_instance_is_a_route_at_slurms_address_with_the_agents_port(desk: Desk) -> None:
    table = desk.publish()
    (route,) = table.routes
    assert (route.host, route.port, route.secret) == ("10.0.0.1", 20017, "a" * 64)
    assert (route.admit_until, route.end, route.draining) == (NOW + 2850, NOW + 3000, False)
    assert (route.methods, route.paths) == (("POST",), ("/v1/",))
    assert (table.installation, table.cluster, table.gate_socket) == ("k", "hpc", "/run/saia/gate.sock")
    assert (table.services["chat"].ready, table.services["chat"].replicas) == (1, 2)


def test_no_control_secret_ever_reaches_the_file(desk: Desk) -> None:
    desk.publish()
    assert "c" * 64 not in desk.path.read_text()


@pytest.mark.parametrize(
    "state",
    [s for s in State if s not in (State.READY, State.DRAINING)],
)
def test_nobody_else_is_a_route(desk: Desk, state: State) -> None:
    assert desk.publish(replace(READY, state=state)).routes == ()


def test_a_draining_one_stays_until_its_job_is_gone(desk: Desk) -> None:
    drains = replace(READY, state=State.DRAINING, drain=Drain(DrainKind.HANDOVER, NOW))
    assert desk.publish(drains).routes[0].draining
    assert desk.publish(replace(drains, state=State.STOPPED)).routes == ()


def test_one_that_slurm_lost_but_that_answers_stays(desk: Desk) -> None:
    lost = replace(READY, state=State.LOST)
    assert desk.publish(lost, statuses={READY.id: AgentStatus(NOW, ready=True)}).routes
    assert not desk.publish(lost, statuses={READY.id: AgentStatus(NOW - 60, ready=True)}).routes


def test_the_generation_rises_with_each_change_and_only_then(desk: Desk) -> None:
    first = desk.publish()
    written = desk.path.stat().st_mtime_ns
    assert desk.publish(now=NOW + 5) == first
    assert desk.path.stat().st_mtime_ns == written
    assert desk.publish(replace(READY, end_time=NOW + 100)).generation == first.generation + 1


def test_who_comes_is_counted_with_when_the_next_one_may_be_ready(desk: Desk) -> None:
    coming = replace(READY, state=State.PENDING, end_time=None, created_at=NOW, submit_time=NOW)
    table = desk.publish(
        READY,
        replace(coming, id="k.hpc.chat.a2", forecast_at=NOW + 500),
        replace(coming, id="k.hpc.chat.a3", state=State.SUBMITTED),
        replace(coming, id="k.hpc.chat.a4", state=State.STARTING, started_at=NOW - 5000),
        learned={"chat": Learned(queue_s=90_000, load_s=100)},
    )
    chat = table.services["chat"]
    assert (chat.ready, chat.starting, chat.queued, chat.eta) == (1, 3, 2, NOW + 600)
    assert desk.publish(now=NOW + 599) == table, "it stands still: nothing is written"
    assert desk.publish(now=NOW + 601).services["chat"].eta == NOW + 90_100
    assert desk.publish(READY).services["chat"].eta is None


def test_a_changed_limit_changes_the_last_moment_of_admission(desk: Desk) -> None:
    desk.publish()
    assert desk.publish(replace(READY, end_time=NOW + 500)).routes[0].admit_until == NOW + 350


def test_a_job_without_an_end_is_a_route_all_the_same(desk: Desk) -> None:
    (route,) = desk.publish(replace(READY, end_time=None)).routes
    assert route.end == NO_END


def test_a_restarted_engine_keeps_the_routes_until_its_own_ears_have_heard(desk: Desk) -> None:
    before = desk.publish()
    desk.start()
    after = desk.publish(endpoints={})
    assert after.routes == before.routes
    assert after.generation == before.generation + 1
    assert desk.publish(endpoints={READY.id: ENDPOINT}).routes == before.routes


def test_an_old_generations_route_is_not_kept(desk: Desk) -> None:
    desk.publish()
    assert desk.publish(replace(READY, generation=1), endpoints={}).routes == ()


def test_an_instance_of_a_removed_service_drains_by_its_own_times_and_admits_nothing_new(desk: Desk) -> None:
    own = replace(READY, timing=Timing(admission_margin_s=500, safety_margin_s=100), state=State.DRAINING)
    table = desk.publish(own, services={})
    assert table.services == {}
    assert (table.routes[0].admit_until, table.routes[0].paths) == (NOW + 2400, ())


def test_a_table_that_cannot_be_written_is_a_fault_until_it_can(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.path = tmp_path / "gate" / "routes.json"
    desk.start()
    desk.publisher.publish(**desk.told)
    assert "cannot be written" in desk.publisher.fault
    desk.path.parent.mkdir()
    assert len(desk.publish().routes) == 1
    assert desk.publisher.fault == ""


def test_until_slurm_has_answered_who_cannot_serve_leaves_the_last_engines_table(desk: Desk) -> None:
    other, draining = replace(READY, id="k.hpc.chat.a2"), replace(READY, id="k.hpc.chat.a3")
    desk.publish(
        READY,
        other,
        draining,
        endpoints=dict.fromkeys((READY.id, other.id, draining.id), ENDPOINT),
        addresses=dict.fromkeys((READY.id, other.id, draining.id), "10.0.0.1"),
    )
    desk.start()
    assert desk.publisher.addresses() == dict.fromkeys((READY.id, other.id, draining.id), "10.0.0.1")

    def routed(now: float, **statuses: AgentStatus) -> list[str]:
        shorter = replace(other, end_time=NOW + 1000)
        gone = replace(draining, state=State.DRAINING, drain=Drain(DrainKind.HANDOVER, NOW))
        desk.publisher.withdraw(
            services=desk.told["services"],
            instances={i.id: i for i in (READY, shorter, gone)},
            statuses={f"k.hpc.chat.{nonce}": status for nonce, status in statuses.items()},
            listening={READY.id: NOW},
            now=now,
        )
        return [f"{r.instance[-2:]} {r.admit_until - NOW:.0f}" for r in routes.load(desk.path).routes]

    good = AgentStatus(NOW + 20, True, False, 0, True)
    assert routed(NOW + 5) == ["a1 2850", "a2 850", "a3 2850"]
    assert routed(NOW + 20) == ["a2 850", "a3 2850"]
    assert routed(NOW + 20, a1=good, a2=replace(good, ready=False)) == ["a1 2850", "a3 2850"]


def test_a_damaged_table_is_begun_anew(desk: Desk) -> None:
    desk.path.write_text("{")
    desk.start()
    assert len(desk.publish().routes) == 1
