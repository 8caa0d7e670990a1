"""How each table of the state is listed: its columns, its order (worst first) and its words."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import ENDED, Severity, State
from saia_engine.view import (
    AlarmView,
    EventView,
    InstanceView,
    JobView,
    NodeView,
    ProxyView,
    ServiceView,
)
from saia_tui import moments
from saia_tui.cells import count, gpu_cells, join, known, meter, sparkline, state_cell, text
from saia_tui.columns import Column, Listing, Sight

URGENT_S = 120.0
SOON_S = 600.0
WORST_SERVICE = ("down", "degraded", "removed", "ok", "stopped")
WORST_SEVERITY = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)
WORST_STATE = (
    State.LOST,
    State.UNREADY,
    State.FAILED,
    State.STARTING,
    State.PENDING,
    State.SUBMITTED,
    State.INTENDED,
    State.DRAINING,
    State.READY,
    State.STOPPED,
)
TROUBLE = (State.LOST, State.UNREADY)
FOREVER = float("inf")


def _rank(word: str, order: tuple[str, ...]) -> int:
    return order.index(word) if word in order else -1


def _until(at: float | None, sight: Sight) -> Text:
    if at is None:
        return known(None)
    left = at - sight.now
    style = "warn" if left < URGENT_S else "" if left < SOON_S else "quiet"
    return text(moments.countdown(left), style)


def _since(at: float | None, sight: Sight) -> Text:
    return known(moments.age(None if not at else max(0.0, sight.now - at)), "quiet")


# ---------------------------------------------------------------- services


def _ready_of_desired(row: ServiceView, sight: Sight, width: int) -> Text:
    style = "ok" if row.ready >= row.replicas else "bad" if row.ready == 0 else "warn"
    mark = text("*", "busy") if row.override_by_uid is not None else text("")
    return join(text(row.ready, style), text(f"/{row.replicas}", "quiet"), mark)


def _errors(row: ServiceView, sight: Sight, width: int) -> Text:
    return count(row.errors, "bad" if row.errors * 100 > row.requests else "warn")


def _rate(row: ServiceView, sight: Sight, width: int) -> Text:
    return text(f"{row.requests_per_s:.1f}", "" if row.requests_per_s else "faint")


def _override(row: ServiceView, sight: Sight, width: int) -> Text:
    if row.override_by_uid is None:
        return text("")
    return text(f"uid {row.override_by_uid}: {row.configured_replicas} → {row.replicas}", "busy")


SERVICES = Listing(
    table="services",
    title="SERVICES",
    columns=(
        Column("SERVICE", lambda row, s, w: text(row.name, "strong"), 14, lambda r: r.name, grow=2, limit=28),
        Column(
            "STATUS",
            lambda row, s, w: state_cell(row.status),
            10,
            lambda r: _rank(r.status, WORST_SERVICE),
        ),
        Column("READY", _ready_of_desired, 6, lambda r: r.ready - r.replicas, right=True),
        Column("START", lambda row, s, w: count(row.starting, "busy"), 5, lambda r: r.starting, right=True),
        Column("DRAIN", lambda row, s, w: count(row.draining, "busy"), 5, lambda r: r.draining, right=True),
        Column(
            "UNREADY",
            lambda row, s, w: count(row.unready, "warn"),
            7,
            lambda r: r.unready,
            drop=6,
            right=True,
        ),
        Column(
            "NEXT END",
            lambda row, s, w: _until(row.next_end, s),
            8,
            lambda r: r.next_end or FOREVER,
            right=True,
        ),
        Column("REQ/S", _rate, 6, lambda r: r.requests_per_s, right=True),
        Column(
            "RATE", lambda row, s, w: sparkline(s.rates.get(row.name, ()), w), 10, grow=3, limit=60, drop=4
        ),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 5, lambda r: r.in_flight, drop=3, right=True),
        Column("ERRORS", _errors, 6, lambda r: r.errors, drop=1, right=True),
        Column(
            "REQUESTS", lambda row, s, w: count(row.requests), 9, lambda r: r.requests, drop=7, right=True
        ),
        Column("OVERRIDE", _override, 18, lambda r: r.override_at or 0, drop=8),
        Column("MODELS", lambda row, s, w: text(" ".join(row.models), "quiet"), 12, grow=2, limit=32, drop=9),
    ),
    order=lambda row: (_rank(row.status, WORST_SERVICE), row.name),
    words=lambda row: f"{row.name} {row.status} {' '.join(row.models)}",
    empty="No services yet: declare one in the engine's configuration file, [services.NAME].",
)

# ---------------------------------------------------------------- instances


def short(instance: str) -> str:
    """`chat.7f3a` of `<installation>.<cluster>.chat.7f3a`; anything else as it is."""
    parts = instance.split(".")
    return ".".join(parts[2:]) if len(parts) == 4 else instance


def _instance_state(row: InstanceView, sight: Sight, width: int) -> Text:
    cell = state_cell(row.state)
    return join(cell, text(f" {row.drain_kind}", "quiet")) if row.drain_kind and width > 12 else cell


def _note(row: InstanceView, sight: Sight, width: int) -> Text:
    """The one thing to know beside the state: why it waits, how it ended, whom it replaces."""
    if row.outcome:
        return text(row.outcome, "bad" if row.state == State.FAILED else "quiet")
    if row.reason:
        return text(row.reason, "warn")
    return text(f"replaces {row.replaces.rpartition('.')[2]}", "quiet") if row.replaces else text("")


def _job(row: InstanceView, sight: Sight, width: int) -> Text:
    again = f"+{row.generation}" if row.generation else ""
    return known(f"{row.job_id}{again}" if row.job_id else None, "quiet")


def _gpu_use(row: InstanceView, sight: Sight, width: int) -> Text:
    return meter(mean_use(row), max(2, width - 5))


def mean_use(row: InstanceView | NodeView) -> float | None:
    """Mean utilisation (percent) over the GPUs that report one."""
    gpus = row.gpus if isinstance(row, InstanceView) else row.live
    values = [gpu.utilisation_percent for gpu in gpus if gpu.utilisation_percent is not None]
    return sum(values) / len(values) if values else None


def _memory(row: InstanceView | NodeView, sight: Sight, width: int) -> Text:
    gpus = row.gpus if isinstance(row, InstanceView) else row.live
    used = [gpu.memory_used_mib for gpu in gpus if gpu.memory_used_mib is not None]
    total = [gpu.memory_total_mib for gpu in gpus if gpu.memory_total_mib is not None]
    if not used or not total:
        return known(None)
    return text(f"{sum(used) / 1024:.0f}/{sum(total) / 1024:.0f}G", "quiet")


def _end_order(row: InstanceView) -> tuple[bool, float]:
    return (row.end is None, row.end or 0.0)


def _instance_order(row: InstanceView) -> tuple[object, ...]:
    """What is in trouble, then what ends next, then what ended last."""
    if row.state in ENDED:
        return (2, -row.since, row.id)
    return (0 if row.state in TROUBLE else 1, row.end or FOREVER, row.id)


def is_live(row: InstanceView) -> bool:
    return row.state not in ENDED


INSTANCES = Listing(
    table="instances",
    title="INSTANCES",
    columns=(
        Column(
            "INSTANCE", lambda row, s, w: text(short(row.id), "strong"), 18, lambda r: r.id, grow=2, limit=30
        ),
        Column("STATE", _instance_state, 11, lambda r: _rank(r.state, WORST_STATE), grow=1, limit=20),
        Column("ENDS IN", lambda row, s, w: _until(row.end, s), 7, _end_order, right=True),
        Column("NODE", lambda row, s, w: known(row.node), 10, lambda r: r.node, grow=1, limit=20),
        Column("JOB", _job, 8, lambda r: r.job_id, right=True),
        Column(
            "OPEN",
            lambda row, s, w: known(row.open_connections),
            5,
            lambda r: -1 if r.open_connections is None else r.open_connections,
            right=True,
        ),
        Column("GPU USE", _gpu_use, 11, lambda r: mean_use(r) or 0.0, drop=2),
        Column("MEMORY", _memory, 9, drop=5, right=True),
        Column("SINCE", lambda row, s, w: _since(row.since, s), 7, lambda r: r.since, drop=4, right=True),
        Column(
            "ADMITS",
            lambda row, s, w: _until(row.admit_until, s),
            7,
            lambda r: r.admit_until or 0,
            drop=6,
            right=True,
        ),
        Column("REVISION", lambda row, s, w: known(row.revision, "quiet"), 12, lambda r: r.revision, drop=7),
        Column("NOTE", _note, 12, grow=5, drop=3),
    ),
    order=_instance_order,
    words=lambda row: f"{row.id} {row.state} {row.node} {row.job_id} {row.reason} {row.outcome}",
    empty="No instances: none is desired, or the engine has not launched one yet.",
)

# ---------------------------------------------------------------- jobs


def _job_state(row: JobView, sight: Sight, width: int) -> Text:
    style = {"RUNNING": "ok", "PENDING": "quiet", "FAILED": "bad", "NODE_FAIL": "bad"}.get(row.state, "busy")
    return text(row.state.lower(), style)


def _where(row: JobView, sight: Sight, width: int) -> Text:
    return text(row.nodes) if row.nodes else text(f"({row.reason})" if row.reason else "", "warn")


JOBS = Listing(
    table="jobs",
    title="JOBS",
    columns=(
        Column("JOB", lambda row, s, w: text(row.id), 8, lambda r: r.id, right=True),
        Column(
            "",
            lambda row, s, w: text("■", "ours") if row.instance else text(" "),
            1,
            lambda r: not r.instance,
        ),
        Column(
            "NAME",
            lambda row, s, w: text(
                short(row.instance) if row.instance else row.name, "ours" if row.instance else ""
            ),
            16,
            lambda r: r.name,
            grow=4,
            limit=48,
        ),
        Column("USER", lambda row, s, w: text(row.user, "quiet"), 8, lambda r: r.user, grow=1, limit=14),
        Column("STATE", _job_state, 10, lambda r: r.state),
        Column(
            "ENDS IN",
            lambda row, s, w: _until(row.end_time, s),
            7,
            lambda r: r.end_time or FOREVER,
            right=True,
        ),
        Column("NODES (REASON)", _where, 14, lambda r: r.nodes or r.reason, grow=3, limit=40),
        Column("GPUS", lambda row, s, w: count(row.gpus), 4, lambda r: r.gpus, drop=2, right=True),
        Column("PARTITION", lambda row, s, w: text(row.partition, "quiet"), 9, lambda r: r.partition, drop=3),
        Column(
            "STARTED",
            lambda row, s, w: _since(row.start_time, s),
            7,
            lambda r: r.start_time or 0,
            drop=4,
            right=True,
        ),
        Column(
            "SUBMITTED",
            lambda row, s, w: _since(row.submit_time, s),
            9,
            lambda r: r.submit_time,
            drop=5,
            right=True,
        ),
        Column(
            "LIMIT",
            lambda row, s, w: known(moments.age(row.time_limit_s), "quiet"),
            7,
            lambda r: r.time_limit_s or FOREVER,
            drop=6,
            right=True,
        ),
    ),
    order=lambda row: (not row.instance, row.state != "RUNNING", -row.id),
    words=lambda row: f"{row.id} {row.name} {row.user} {row.state} {row.partition} {row.nodes} {row.reason}",
    empty="Slurm shows no jobs.",
)

# ---------------------------------------------------------------- nodes


def _node_state(row: NodeView, sight: Sight, width: int) -> Text:
    return text(("● " if row.usable else "✖ ") + row.state, "ok" if row.usable else "bad")


def _gpus(row: NodeView, sight: Sight, width: int) -> Text:
    if not row.gpus:
        return text("no GPUs", "faint")
    return gpu_cells(row.gpus, row.gpus_ours, row.gpus_allocated, width, usable=row.usable)


NODES = Listing(
    table="nodes",
    title="NODES",
    columns=(
        Column("NODE", lambda row, s, w: text(row.name, "strong"), 10, lambda r: r.name, grow=1, limit=20),
        Column("STATE", _node_state, 13, lambda r: (r.usable, r.state), grow=1, limit=20),
        Column("GPUS", _gpus, 8, lambda r: r.gpus - r.gpus_allocated),
        Column(
            "USED",
            lambda row, s, w: text(f"{row.gpus_allocated}/{row.gpus}", "quiet") if row.gpus else known(None),
            5,
            lambda r: r.gpus_allocated,
            right=True,
        ),
        Column("OURS", lambda row, s, w: count(row.gpus_ours, "ours"), 4, lambda r: r.gpus_ours, right=True),
        Column(
            "LIVE USE",
            lambda row, s, w: meter(mean_use(row), max(2, w - 5)),
            13,
            lambda r: mean_use(r) or -1.0,
        ),
        Column("MEMORY", _memory, 9, drop=4, right=True),
        Column("TYPE", lambda row, s, w: known(row.gpu_type, "quiet"), 6, lambda r: r.gpu_type, drop=2),
        Column(
            "CPUS",
            lambda row, s, w: text(f"{row.cpus_allocated}/{row.cpus}", "quiet"),
            7,
            lambda r: r.cpus_allocated,
            drop=5,
            right=True,
        ),
        Column("PARTITIONS", lambda row, s, w: text(",".join(row.partitions), "quiet"), 10, drop=6),
        Column("REASON", lambda row, s, w: text(row.reason, "warn"), 10, lambda r: r.reason, grow=4, drop=1),
    ),
    order=lambda row: (row.usable, row.gpus == 0, row.name),
    words=lambda row: f"{row.name} {row.state} {row.gpu_type} {row.reason} {' '.join(row.partitions)}",
    empty="Slurm shows no nodes.",
)

# ---------------------------------------------------------------- proxies


def _connection(row: ProxyView, sight: Sight, width: int) -> Text:
    return text("● connected", "ok") if row.connected else text("✖ away", "bad")


def _maintenance(row: ProxyView, sight: Sight, width: int) -> Text:
    word = "on" if row.maintenance else "off"
    if row.maintenance_acked or not (row.connected or row.maintenance):
        return text(f"▽ {word}" if row.maintenance else word, "warn" if row.maintenance else "quiet")
    return text(f"◑ {word}, not acked", "warn")


PROXIES = Listing(
    table="proxies",
    title="PROXIES",
    columns=(
        Column("PROXY", lambda row, s, w: text(row.name, "strong"), 10, lambda r: r.name, grow=1, limit=20),
        Column("LINK", _connection, 11, lambda r: r.connected),
        Column("FOR", lambda row, s, w: _since(row.connected_since, s), 7, right=True),
        Column("MAINTENANCE", _maintenance, 16, lambda r: (r.maintenance, r.maintenance_acked)),
        Column("OPEN", lambda row, s, w: count(row.in_flight), 6, lambda r: r.in_flight, right=True),
        Column("ROUTES", lambda row, s, w: known(row.routes_generation or None), 6, right=True),
        Column("RELAYS", lambda row, s, w: count(row.relays), 6, lambda r: r.relays, drop=2, right=True),
        Column(
            "REQUESTS", lambda row, s, w: count(row.requests), 10, lambda r: r.requests, drop=1, right=True
        ),
        Column("QUEUE~", lambda row, s, w: count(row.said_queue, "warn"), 6, drop=3, right=True),
        Column("VERSION~", lambda row, s, w: known(row.said_version, "quiet"), 8, drop=2),
        Column("PEER", lambda row, s, w: known(row.peer, "quiet"), 16, grow=1, limit=40, drop=5),
        Column("SERVICES", lambda row, s, w: text(" ".join(row.services), "quiet"), 10, grow=1, drop=6),
    ),
    order=lambda row: (row.connected, row.maintenance_acked, row.name),
    words=lambda row: f"{row.name} {row.peer} {row.said_version} {' '.join(row.services)}",
    empty="No proxies yet: [proxies.NAME] in the configuration, then saia-engine gate-key --proxy NAME KEY.",
)

# ---------------------------------------------------------------- alarms and events


def _severity(row: AlarmView | EventView, sight: Sight, width: int) -> Text:
    return state_cell(row.severity)


def _plain_unless_bad(row: AlarmView | EventView, sight: Sight, width: int) -> Text:
    return text(row.text, "quiet" if row.severity == Severity.INFO else "")


def _by(row: EventView, sight: Sight, width: int) -> Text:
    return text("engine", "faint") if row.uid is None else text(f"uid {row.uid}", "busy")


ALARMS = Listing(
    table="alarms",
    title="ALARMS",
    columns=(
        Column("ALARM", _severity, 10, lambda r: _rank(r.severity, WORST_SEVERITY)),
        Column("FOR", lambda row, s, w: _since(row.since, s), 7, lambda r: r.since, right=True),
        Column("SUBJECT", lambda row, s, w: text(short(row.subject), "strong"), 12, grow=1, limit=24),
        Column(
            "CODE", lambda row, s, w: text(row.code, "quiet"), 18, lambda r: r.code, drop=1, limit=24, grow=1
        ),
        Column("WHAT IS WRONG", lambda row, s, w: text(row.text), 56, grow=8),
    ),
    order=lambda row: (_rank(row.severity, WORST_SEVERITY), -row.since, row.code, row.subject),
    words=lambda row: f"{row.severity} {row.code} {row.subject} {row.text}",
    empty="● none: everything is as desired",
    empty_style="ok",
)

EVENTS = Listing(
    table="events",
    title="EVENTS",
    columns=(
        Column("TIME", lambda row, s, w: text(moments.clock(row.at, s.now), "quiet"), 8, lambda r: -r.seq),
        Column(
            "", lambda row, s, w: state_cell(row.severity)[:1], 1, lambda r: _rank(r.severity, WORST_SEVERITY)
        ),
        Column(
            "SUBJECT",
            lambda row, s, w: text(short(row.subject), "strong"),
            14,
            lambda r: r.subject,
            grow=1,
            limit=24,
        ),
        Column("EVENT", _plain_unless_bad, 20, grow=8),
        Column("BY", _by, 8, lambda r: -1 if r.uid is None else r.uid, drop=1),
        Column("CODE", lambda row, s, w: text(row.code, "quiet"), 18, lambda r: r.code, drop=2),
    ),
    order=lambda row: -row.seq,
    words=lambda row: f"{row.severity} {row.code} {row.subject} {row.text} uid={row.uid}",
    empty="Nothing has happened yet.",
)

LISTINGS = {each.table: each for each in (SERVICES, INSTANCES, JOBS, NODES, PROXIES, ALARMS, EVENTS)}
