"""Records as operators see them."""

from __future__ import annotations

from dataclasses import replace

from saia_engine import rows
from saia_engine.model import (
    AgentStatus,
    Exclusion,
    Gpu,
    Instance,
    Job,
    LaunchSpec,
    Node,
    Override,
    Pause,
    Pin,
    ProxyLimits,
    Service,
    Snapshot,
    State,
    Timing,
)
from saia_engine.planner.lead import Lead
from saia_engine.relays import Relays
from saia_engine.reports import GateReport
from saia_engine.store import ProxyWish

NOW = 1_000_000.0
CHAT = Service("chat", LaunchSpec(), Timing(), 2, 1, models=("m",))
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
)


def services(
    *records: Instance,
    wanted: Service | None = CHAT,
    pauses: dict[str, Pause] | None = None,
    **overrides: Override,
):
    known = {"chat": wanted} if wanted else {}
    records_by_id = {i.id: i for i in records}
    return rows.services(
        known,
        known,
        overrides,
        records_by_id,
        Relays(),
        NOW,
        pauses=pauses or {},
        pins={},
        leads={},
        rollouts={},
    )


def test_a_service_shows_its_revision_lead_rollout_and_a_rollback_that_holds() -> None:
    revision = CHAT.launch.revision

    def row(pin: Pin):
        return rows.services(
            {"chat": CHAT},
            {"chat": CHAT},
            {},
            {},
            Relays(),
            NOW,
            pauses={},
            pins={"chat": pin},
            leads={"chat": Lead(1500.0, "queue 20m")},
            rollouts={"chat": "1 of 2"},
        )["chat"]

    shown = row(Pin("chat", revision, "other", "it failed", 1.0))
    assert (shown.revision, shown.pinned_to, shown.rollout) == (revision, revision, "1 of 2")
    assert (shown.lead_s, shown.lead_because) == (1500.0, "queue 20m")
    assert row(Pin("chat", "lost", "other", "it failed", 1.0)).pinned_to == ""


def test_a_services_status_says_how_it_stands() -> None:
    second = replace(READY, id="k.hpc.chat.a2", end_time=NOW + 10)
    assert services(READY, second)["chat"].status == "ok"
    assert services(READY, second)["chat"].next_end == NOW + 10
    assert services(READY)["chat"].status == "degraded"
    assert services()["chat"].status == "down"
    assert services(wanted=replace(CHAT, replicas=0))["chat"].status == "stopped"


def test_a_paused_service_says_who_why_and_what_comes_back() -> None:
    by_hand = Override("chat", 5, 1000, NOW - 50, "a course")
    pauses = {"chat": Pause("chat", 1001, NOW - 9, "no GPUs")}
    row = services(READY, wanted=replace(CHAT, replicas=0), pauses=pauses, chat=by_hand)["chat"]
    assert (row.status, row.replicas, row.ready) == ("paused", 0, 1)
    assert (row.paused_by_uid, row.paused_at, row.paused_because) == (1001, NOW - 9, "no GPUs")
    assert (row.override_replicas, row.override_because) == (5, "a course")
    assert services(READY, wanted=None, pauses=pauses)["chat"].paused_by_uid is None


def test_a_removed_service_shows_until_its_last_instance_is_gone() -> None:
    row = services(READY, wanted=None)["chat"]
    assert (row.status, row.replicas, row.ready) == ("removed", 0, 1)
    assert services(replace(READY, state=State.STOPPED, ended_at=NOW), wanted=None) == {}


def test_an_override_shows_who_and_when() -> None:
    row = services(READY, chat=Override("chat", 1, 1000, 5.0))["chat"]
    assert (row.override_by_uid, row.override_at) == (1000, 5.0)


def test_ended_instances_show_for_ten_minutes_without_an_end_to_come() -> None:
    gone = replace(READY, state=State.FAILED, ended_at=NOW - 599, outcome="it broke")
    shown = rows.instances({gone.id: gone}, {}, {"chat": CHAT}, {}, {}, NOW)
    assert (shown[gone.id].outcome, shown[gone.id].end) == ("it broke", None)
    assert rows.instances({gone.id: gone}, {}, {"chat": CHAT}, {}, {}, NOW + 2) == {}


def test_what_is_unknown_is_not_shown_as_zero() -> None:
    row = rows.instances({READY.id: READY}, {}, {"chat": CHAT}, {}, {}, NOW)[READY.id]
    assert row.open_connections is None


def test_a_nodes_live_gpus_are_those_that_our_agents_see() -> None:
    node = Node("gpu01", "mixed", "10.0.0.1", gpus=4, gpus_allocated=3)
    mine, other = Job(1, "n", "svc", "RUNNING", gpus=2), Job(2, "x", "eve", "RUNNING", gpus=1)
    statuses = {READY.id: AgentStatus(NOW, gpus=(Gpu(1, 50.0), Gpu(0, 10.0)))}
    row = rows.nodes(Snapshot(NOW, (mine, other), (node,)), {READY.id: READY}, statuses, {}, NOW)["gpu01"]
    assert (row.gpus_ours, [gpu.index for gpu in row.live]) == (2, [0, 1])


def test_a_node_shows_an_exclusion_until_it_is_over() -> None:
    snapshot = Snapshot(NOW, (), (Node("gpu01", "idle"), Node("gpu02", "idle")))
    exclusions = {
        "gpu01": Exclusion("gpu01", NOW + 5, "2 failures", NOW - 9),
        "gpu02": Exclusion("gpu02", NOW, "old", NOW - 9),
    }
    shown = rows.nodes(snapshot, {}, {}, exclusions, NOW)
    assert (shown["gpu01"].excluded_until, shown["gpu01"].excluded_because) == (NOW + 5, "2 failures")
    assert (shown["gpu02"].excluded_until, shown["gpu02"].excluded_because) == (None, "")


def test_jobs_show_which_are_ours() -> None:
    snapshot = Snapshot(NOW, (Job(1, "n", "svc", "RUNNING"), Job(2, "x", "eve", "PENDING")))
    shown = rows.jobs(snapshot, {1: READY.id})
    assert (shown["1"].instance, shown["2"].instance) == (READY.id, "")


def test_a_proxy_has_acknowledged_when_all_its_live_relays_have() -> None:
    relays = Relays()
    wish = {"cloud": ProxyWish(3, True)}

    def acked(*revisions: int) -> bool:
        for number, revision in enumerate(revisions):
            relays.note(
                GateReport(proxy="cloud", relay=f"{number:016x}", pid=1, admin_revision=revision), {}, NOW
            )
        return rows.proxies({"cloud": ProxyLimits()}, wish, relays, NOW)["cloud"].orders_acked

    assert not acked()
    assert not acked(3, 2)
    assert acked(3, 3)


def test_an_agent_that_fell_silent_is_named_once_it_is_not_believed_any_more() -> None:
    def silent_since(seen_at: float) -> float | None:
        statuses = {READY.id: AgentStatus(seen_at, ready=True)}
        return rows.instances({READY.id: READY}, statuses, {"chat": CHAT}, {}, {}, NOW)[READY.id].silent_since

    assert silent_since(NOW - 5) is None
    assert silent_since(NOW - 60) == NOW - 60


def test_a_proxy_that_is_away_tells_when_it_was_last_heard() -> None:
    relays = Relays()

    def silent_since(now: float) -> float | None:
        return rows.proxies({"cloud": ProxyLimits()}, {}, relays, now)["cloud"].silent_since

    assert silent_since(NOW) is None
    report = GateReport(
        proxy="cloud",
        relay="r",
        pid=1,
        peer="",
        connected_since=1.0,
        routes_generation=1,
        admin_revision=0,
        in_flight={},
        requests={},
        errors={},
        version="",
        queued={},
    )
    relays.note(report, {}, NOW)
    assert silent_since(NOW + 2) is None
    assert silent_since(NOW + 60) == NOW
