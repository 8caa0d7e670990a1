"""The engine's state as rows for operators: pure functions from records to `view`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from saia_engine.model import (
    COMING,
    AgentStatus,
    Alarm,
    Exclusion,
    Instance,
    Override,
    Pause,
    Pin,
    ProxyLimits,
    Service,
    Snapshot,
    State,
)
from saia_engine.past import brief
from saia_engine.planner import timeline
from saia_engine.planner.lead import Lead
from saia_engine.planner.lifecycle import fresh
from saia_engine.proxy_orders import AS_CONFIGURED, acknowledged, in_force
from saia_engine.relays import Relays, Traffic
from saia_engine.reports import GateReport
from saia_engine.store import Event, ProxyWish
from saia_engine.telemetry import Telemetry
from saia_engine.view import (
    AlarmView,
    EventView,
    InstanceView,
    JobView,
    KeyView,
    LinkView,
    NodeView,
    ProxyView,
    ServiceView,
)
from saia_engine.wire.messages import KeyState

SHOWN_ENDED_S = 600.0


def services(
    desired: Mapping[str, Service],
    configured: Mapping[str, Service],
    overrides: Mapping[str, Override],
    instances: Mapping[str, Instance],
    relays: Relays,
    now: float,
    *,
    pauses: Mapping[str, Pause],
    pins: Mapping[str, Pin],
    leads: Mapping[str, Lead],
    rollouts: Mapping[str, str],
) -> dict[str, ServiceView]:
    """One row a configured service, and one for each removed one that still has instances."""
    live: dict[str, list[Instance]] = {name: [] for name in desired}
    for instance in instances.values():
        if instance.live:
            live.setdefault(instance.service, []).append(instance)
    in_flight = relays.in_flight(now)
    rows = {}
    for name, own in live.items():
        service = desired.get(name)
        ready = [i for i in own if i.state is State.READY]
        traffic = relays.traffic.get(name) or Traffic()
        override = overrides.get(name) if service else None
        pause = pauses.get(name) if service else None
        revision = service.launch.revision if service else ""
        pin = pins.get(name)
        lead = leads.get(name)
        rows[name] = ServiceView(
            name=name,
            models=list(service.models) if service else [],
            replicas=service.replicas if service else 0,
            configured_replicas=configured[name].replicas if service else 0,
            ready=len(ready),
            starting=sum(1 for i in own if i.state in COMING),
            draining=sum(1 for i in own if i.drain is not None),
            unready=sum(1 for i in own if i.state in (State.UNREADY, State.LOST)),
            min_available=service.min_available if service else 0,
            status="paused" if pause else _status(service, len(ready)),
            next_end=min((i.end_time for i in ready if i.end_time is not None), default=None),
            in_flight=sum(in_flight.get(i.id, 0) for i in own),
            requests=traffic.requests,
            errors=traffic.errors,
            requests_per_s=round(traffic.rate(now), 2),
            override_by_uid=override.uid if override else None,
            override_at=override.at if override else None,
            override_replicas=override.replicas if override else None,
            override_because=override.because if override else "",
            paused_by_uid=pause.uid if pause else None,
            paused_at=pause.at if pause else None,
            paused_because=pause.because if pause else "",
            revision=revision,
            pinned_to=pin.revision if pin and pin.revision == revision else "",
            lead_s=round(lead.seconds, 1) if lead else None,
            lead_because=lead.because if lead else "",
            rollout=rollouts.get(name, ""),
        )
    return rows


def _status(service: Service | None, ready: int) -> str:
    if service is None:
        return "removed"
    if service.replicas == 0:
        return "stopped"
    if ready == 0:
        return "down"
    return "ok" if ready >= service.replicas else "degraded"


def instances(
    records: Mapping[str, Instance],
    statuses: Mapping[str, AgentStatus],
    desired: Mapping[str, Service],
    in_flight: Mapping[str, int],
    logs: Mapping[str, str],
    now: float,
) -> dict[str, InstanceView]:
    """The live ones, and those that ended in the last ten minutes."""
    rows = {}
    for record in records.values():
        if record.ended_at is not None and now - record.ended_at > SHOWN_ENDED_S:
            continue
        service = desired.get(record.service)
        timing = service.timing if service else record.timing
        end = record.end_time if record.live else None
        status = statuses.get(record.id)
        rows[record.id] = InstanceView(
            id=record.id,
            service=record.service,
            state=str(record.state),
            since=record.state_since,
            revision=record.revision,
            generation=record.generation,
            job_id=record.job_id,
            node=record.node,
            reason=_why_not_ready(record, status),
            replaces=record.replaces,
            started_at=record.started_at,
            ready_since=record.ready_since,
            end=end,
            admit_until=timeline.admit_until(end, timing) if end is not None else None,
            drain_by=timeline.drain_by(end, timing) if end is not None else None,
            drain_kind=str(record.drain.kind) if record.drain else "",
            open_connections=status.open_connections if status else None,
            in_flight=in_flight.get(record.id, 0),
            gpus=list(status.gpus) if status else [],
            outcome=record.outcome,
            log=logs.get(record.id, ""),
            log_tail=record.log_tail,
            time_limit_s=record.spec.time_limit_s,
            silent_since=None if status is None or not record.live or fresh(status, now) else status.seen_at,
        )
    return rows


def _why_not_ready(record: Instance, status: AgentStatus | None) -> str:
    """Slurm's reason while its job waits, then what its agent's probe got to hear."""
    if record.state is State.PENDING:
        return record.reason
    if record.state in (State.STARTING, State.UNREADY) and status is not None:
        return status.fault
    return ""


def jobs(snapshot: Snapshot, ours: Mapping[int, str]) -> dict[str, JobView]:
    """All of the cluster's; `ours` maps job ids to instances."""
    return {
        str(job.id): JobView(
            id=job.id,
            name=job.name,
            user=job.user,
            state=job.state,
            partition=job.partition,
            reason=job.reason,
            nodes=",".join(job.nodes),
            gres=job.gres,
            gpus=job.gpus,
            submit_time=job.submit_time,
            start_time=job.start_time,
            end_time=job.end_time,
            time_limit_s=job.time_limit_s,
            instance=ours.get(job.id, ""),
        )
        for job in snapshot.jobs
    }


def nodes(
    snapshot: Snapshot,
    records: Mapping[str, Instance],
    statuses: Mapping[str, AgentStatus],
    exclusions: Mapping[str, Exclusion],
    now: float,
) -> dict[str, NodeView]:
    """GPUs of ours are those of our running jobs there; live use is what their agents report."""
    ours: dict[str, list[Instance]] = {}
    for record in records.values():
        if record.live and record.node:
            ours.setdefault(record.node, []).append(record)
    our_jobs = {record.job_id for here in ours.values() for record in here}
    gpus_of_job = {job.id: job.gpus // max(1, job.node_count) for job in snapshot.jobs if job.id in our_jobs}
    rows = {}
    for node in snapshot.nodes:
        here = ours.get(node.name, [])
        live = {gpu.index: gpu for i in here if fresh(statuses.get(i.id), now) for gpu in statuses[i.id].gpus}
        exclusion = exclusions.get(node.name)
        if exclusion is not None and exclusion.until <= now:
            exclusion = None
        rows[node.name] = NodeView(
            name=node.name,
            state=node.state,
            partitions=list(node.partitions),
            reason=node.reason,
            usable=node.usable,
            cpus=node.cpus,
            cpus_allocated=node.cpus_allocated,
            memory_mib=node.memory_mib,
            gpu_type=node.gpu_type,
            gpus=node.gpus,
            gpus_allocated=node.gpus_allocated,
            gpus_ours=sum(gpus_of_job.get(i.job_id, 0) for i in here),
            live=[live[index] for index in sorted(live)],
            excluded_until=exclusion.until if exclusion else None,
            excluded_because=exclusion.because if exclusion else "",
        )
    return rows


def proxies(
    configured: Mapping[str, ProxyLimits],
    wishes: Mapping[str, ProxyWish],
    relays: Relays,
    now: float,
    generation: int = 0,
) -> dict[str, ProxyView]:
    """One row a configured proxy; `generation` is that of the engine's routes."""
    rows = {}
    for name, limits in configured.items():
        wish = wishes.get(name) or ProxyWish()
        reports = sorted(relays.of(name, now), key=lambda report: (report.connected_since, report.relay))
        links = [_link(report, wish, generation) for report in reports]
        rows[name] = ProxyView(
            name=name,
            services=list(limits.services),
            connected=bool(reports),
            connected_since=min((r.connected_since for r in reports), default=None),
            silent_since=None if reports else relays.last_heard(name),
            relays=len(reports),
            peer=", ".join(sorted({r.peer for r in reports if r.peer})),
            routes_generation=min((r.routes_generation for r in reports), default=0),
            in_flight=sum(link.in_flight for link in links),
            requests=relays.proxy_requests.get(name, 0),
            maintenance=wish.maintenance,
            orders_acked=acknowledged(wish, reports),
            keys_ordered=len(wish.keys),
            keys_revoked=sum(1 for key in wish.keys.values() if key.order.revoked),
            said_version=next((r.version for r in reports), ""),
            said_queue=sum(sum(r.queued.values()) for r in reports),
            said_keys=len(relays.said_keys(name, now)),
            round_trip_s=max((at for link in links if (at := link.round_trip_s) is not None), default=None),
            routes_behind=max((link.routes_behind for link in links), default=0),
            links=links,
            said_started_at=max((r.started_at for r in reports), default=0.0) or None,
        )
    return rows


def _link(report: GateReport, wish: ProxyWish, generation: int) -> LinkView:
    trip = report.round_trip_s
    return LinkView(
        relay=report.relay[:8],
        pid=report.pid,
        peer=report.peer,
        since=report.connected_since or None,
        round_trip_s=None if trip is None else brief(trip),
        routes_generation=report.routes_generation,
        routes_behind=max(0, generation - report.routes_generation),
        in_flight=sum(report.in_flight.values()),
        orders_acked=acknowledged(wish, [report]),
    )


def keys(
    configured: Collection[str],
    wishes: Mapping[str, ProxyWish],
    relays: Relays,
    telemetry: Telemetry,
    now: float,
) -> dict[str, KeyView]:
    """All API keys that the proxies tell of, or that something is ordered for."""
    rows = {}
    for proxy in configured:
        wish = wishes.get(proxy) or ProxyWish()
        said = {row.name: row for row in relays.said_keys(proxy, now)}
        acked = acknowledged(wish, relays.of(proxy, now))
        for name in {*said, *wish.keys}:
            row, ordered = said.get(name), wish.keys.get(name)
            order = ordered.order if ordered else AS_CONFIGURED
            told = row or KeyState(name)
            requests, refused = telemetry.key_rates(f"{proxy}/{name}", now) if row else (None, None)
            rows[f"{proxy}/{name}"] = KeyView(
                proxy=proxy,
                name=name,
                known=row is not None,
                in_force=in_force(order, row, acked=acked, tells=bool(said)),
                revoked=order.revoked or told.revoked,
                ordered_concurrency=order.concurrency,
                ordered_per_minute=order.per_minute,
                ordered_by_uid=ordered.uid if ordered else None,
                ordered_at=ordered.at if ordered else None,
                said_models=told.models,
                said_concurrency=told.concurrency,
                said_per_minute=told.per_minute,
                said_in_flight=told.in_flight,
                said_requests=told.requests,
                said_refused=told.refused,
                requests_per_s=requests,
                refused_per_s=refused,
            )
    return rows


def alarms(current: Mapping[tuple[str, str], Alarm]) -> dict[str, AlarmView]:
    return {
        f"{alarm.code}:{alarm.subject}": AlarmView(
            alarm.code, str(alarm.severity), alarm.subject, alarm.text, alarm.since
        )
        for alarm in current.values()
    }


def event(happened: Event) -> EventView:
    return EventView(
        happened.seq,
        happened.at,
        happened.code,
        happened.severity,
        happened.subject,
        happened.text,
        happened.uid,
    )
