"""A service, its instances and the plan that follows from them, for the tests of the planner's rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from saia_engine.model import (
    AgentStatus,
    Desired,
    Drain,
    DrainKind,
    Exclude,
    Instance,
    Launch,
    LaunchSpec,
    Node,
    Partition,
    Plan,
    Reservation,
    Revert,
    Revision,
    Service,
    Settle,
    Snapshot,
    State,
    Timing,
)
from saia_engine.planner import decide

NOW = 1_000_000.0
POLL_S = 15.0
LIMIT_S = 86400
TIMING = Timing(
    lead_floor_s=600, min_ready_s=10, drain_deadline_s=300, admission_margin_s=120, safety_margin_s=30
)
CHAT = Service("chat", LaunchSpec(command=("serve",), time_limit_s=LIMIT_S), TIMING, replicas=1)
DUE_S = 600 + 10 + 300 + 30 + 2 * POLL_S
"""So long before its end an instance's replacement is due."""
WANTED = CHAT.launch.revision


def instance(name: str, state: State = State.READY, ends_in: float | None = 50_000.0, **fields) -> Instance:
    started = state not in (State.INTENDED, State.SUBMITTED, State.PENDING)
    known = {
        "job_id": sum(name.encode()),
        "submit_time": NOW - 5000,
        "node": "gpu01" if started else "",
        "end_time": NOW + ends_in if started and ends_in is not None else None,
        "ready_since": NOW - 1000 if state is State.READY else None,
        "served": state in (State.READY, State.UNREADY, State.DRAINING),
        "created_at": NOW - 5000,
        "state_since": NOW - 5,
        "timing": TIMING,
    }
    fixed = {"service": "chat", "spec": CHAT.launch, "revision": WANTED}
    return Instance(id=name, state=state, **{**fixed, **known, **fields})


def draining(name: str, kind: DrainKind = DrainKind.HANDOVER, since_s: float = 20, **fields) -> Instance:
    return instance(name, State.DRAINING, drain=Drain(kind, NOW - since_s), **fields)


def ended(
    name: str, state: State, ago_s: float, served: bool = False, lived_s: float = 30, **fields
) -> Instance:
    at = NOW - ago_s
    times = {"ended_at": at, "created_at": at - lived_s, "started_at": at - lived_s, "served": served}
    return instance(name, state, **{**times, **fields})


def status(**fields) -> AgentStatus:
    return AgentStatus(**{"seen_at": NOW - 1, "draining": True, "open_connections": 0, **fields})


def node(name: str, state: str = "mixed", partition: str = "gpu", **fields) -> Node:
    return Node(name, state, partitions=(partition,), **fields)


def cluster(
    *nodes: Node, reservations: Iterable[Reservation] = (), max_time_s: float | None = None
) -> Snapshot:
    """A cluster of one partition, the default one."""
    nodes = nodes or tuple(node(f"gpu0{n}") for n in range(1, 5))
    partition = Partition("gpu", True, max_time_s, tuple(n.name for n in nodes), default=True)
    return Snapshot(NOW - 1, nodes=nodes, reservations=tuple(reservations), partitions=(partition,))


def maintenance(starts_in: float, *nodes: str, lasts_s: float = 7200.0) -> Reservation:
    return Reservation("upgrade", NOW + starts_in, NOW + starts_in + lasts_s, nodes, ("MAINT",))


def revision(name: str = WANTED, **fields) -> Revision:
    return Revision("chat", name, CHAT.launch, **{"since": NOW - 1000, **fields})


def plan(
    *instances: Instance,
    service: Service | None = CHAT,
    statuses: dict[str, AgentStatus] | None = None,
    now: float = NOW,
    per_hour: int = 120,
    snapshot: Snapshot | None = None,
    revisions: Iterable[Revision] = (),
    **known,
) -> Plan:
    services = {service.name: service} if service else {}
    known = {"listening": {i.id: NOW - 10_000 for i in instances}, **known}
    memory = decide.Memory(
        {i.id: i for i in instances},
        statuses or {},
        per_hour,
        snapshot,
        revisions={"chat": tuple(revisions)},
        **known,
    )
    return decide.plan(Desired(services, POLL_S), memory, now)


def acts(found: Plan) -> list[tuple[str, str]]:
    """(act, subject): who is replaced by a launch, who is drained or cancelled, which node or revision."""

    def subject(action: object) -> str:
        match action:
            case Launch():
                return action.replaces
            case Exclude():
                return action.node
            case Settle() | Revert():
                return action.revision
        return action.instance  # type: ignore[attr-defined]

    return [(type(a).__name__, subject(a)) for a in found.actions]


def rules(found: Plan) -> list[str]:
    return [action.reason.rule for action in found.actions]


def waits(found: Plan) -> list[str]:
    return [reason.rule for reason in found.waiting]


def alarms(found: Plan) -> set[tuple[str, str]]:
    return {(alarm.code, alarm.subject) for alarm in found.alarms}


def scaled(replicas: int, min_available: int = 0) -> Service:
    return replace(CHAT, replicas=replicas, min_available=min_available)
