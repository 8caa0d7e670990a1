"""The rows of the state stream: what operators see. Made by the engine, read by `client` and the TUI.

Strings are as they came (job names may be hostile): whoever shows them passes them through `edge.text`.
Times are seconds since the epoch, durations seconds, memory MiB. None is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from saia_engine.model import (
    Action,
    Cancel,
    Exclude,
    Gpu,
    Launch,
    Plan,
    Reason,
    Reassign,
    Revert,
    Settle,
    StartDrain,
    WithdrawDrain,
)

API_VERSION = 1


class EngineView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row, keyed `engine`."""

    installation: str
    cluster: str
    kind: str
    """`slurm` or `local`."""
    version: str
    pid: int
    host: str
    started_at: float
    now: float
    poll_interval_s: float
    snapshot_at: float | None = None
    """When Slurm last gave a good answer."""
    slurm_fault: str = ""
    """Why the newest poll was bad; empty when it was good."""
    slurm_calls: int = 0
    """Commands sent to Slurm since the start."""
    routes_generation: int = 0
    acting: bool = True
    """False: it observes, but must not act; `not_acting_because` says why."""
    not_acting_because: str = ""


class ServiceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by name."""

    name: str
    models: list[str]
    replicas: int
    """Desired now, overrides and a pause applied."""
    configured_replicas: int
    ready: int = 0
    starting: int = 0
    """Intended to starting."""
    draining: int = 0
    unready: int = 0
    min_available: int = 0
    status: str = "ok"
    """`ok`, `degraded` (fewer ready than desired), `down` (none ready), `stopped` (0 desired), `paused`, `removed`."""
    next_end: float | None = None
    """Earliest end among its ready instances."""
    in_flight: int = 0
    requests: int = 0
    """Counted by gates since the engine's start; never falls while the engine runs."""
    errors: int = 0
    requests_per_s: float = 0.0
    override_by_uid: int | None = None
    override_at: float | None = None
    override_replicas: int | None = None
    """What an operator wants instead of the file's number; while it is paused it waits for the resume."""
    override_because: str = ""
    paused_by_uid: int | None = None
    """None while it is not paused."""
    paused_at: float | None = None
    paused_because: str = ""
    revision: str = ""
    """What it is asked to run now: the file's, or the one that it is pinned to."""
    pinned_to: str = ""
    """The revision of a rollback, while one holds."""
    lead_s: float | None = None
    """So long before it is needed a replacement is submitted."""
    lead_because: str = ""
    rollout: str = ""
    """How a rollout stands; empty when none is under way."""


class InstanceView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by id."""

    id: str
    service: str
    state: str
    since: float
    revision: str = ""
    generation: int = 0
    job_id: int = 0
    node: str = ""
    reason: str = ""
    """Why it is not ready: Slurm's word while its job waits, later what the readiness probe got to hear."""
    replaces: str = ""
    started_at: float | None = None
    ready_since: float | None = None
    end: float | None = None
    admit_until: float | None = None
    drain_by: float | None = None
    drain_kind: str = ""
    open_connections: int | None = None
    in_flight: int = 0
    gpus: list[Gpu] = []
    outcome: str = ""
    log: str = ""
    """Path of its output."""
    log_tail: str = ""
    """Last lines of its output, for one that failed."""
    time_limit_s: int = 0
    silent_since: float | None = None
    """When its agent was last heard, once that is too long ago to be believed: connections and GPUs are as of then."""


class JobView(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Keyed by str(job id). There are many, of plain values only: nothing for the garbage collector to look at."""

    id: int
    name: str
    user: str
    state: str
    partition: str = ""
    reason: str = ""
    nodes: str = ""
    """Compressed, as Slurm writes it."""
    gres: str = ""
    gpus: int = 0
    submit_time: float = 0.0
    start_time: float | None = None
    end_time: float | None = None
    time_limit_s: float | None = None
    instance: str = ""
    """Ours: the instance's id."""


class NodeView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by name."""

    name: str
    state: str
    partitions: list[str] = []
    reason: str = ""
    usable: bool = True
    cpus: int = 0
    cpus_allocated: int = 0
    memory_mib: int = 0
    gpu_type: str = ""
    gpus: int = 0
    gpus_allocated: int = 0
    gpus_ours: int = 0
    live: list[Gpu] = []
    """Use of the GPUs that our agents there report now."""
    excluded_until: float | None = None
    """Up to then no new job of ours goes there; None: it may."""
    excluded_because: str = ""


class LinkView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One connection of a proxy: a relay of the gate, as that tells of it."""

    relay: str
    pid: int
    peer: str = ""
    since: float | None = None
    round_trip_s: float | None = None
    """Through SSH to the proxy and back; None until the first ping was answered, and from an older gate."""
    routes_generation: int = 0
    """Applied by the proxy."""
    routes_behind: int = 0
    """So many generations newer is the engine's."""
    in_flight: int = 0
    orders_acked: bool = True


class ProxyView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by name. `said_*` is the proxy's own word; the rest is what the gate saw."""

    name: str
    services: list[str]
    connected: bool = False
    connected_since: float | None = None
    relays: int = 0
    peer: str = ""
    routes_generation: int = 0
    in_flight: int = 0
    requests: int = 0
    maintenance: bool = False
    """Wanted by the operator."""
    orders_acked: bool = True
    """All live relays acknowledged what is wanted, maintenance and keys, and there is at least one."""
    said_version: str = ""
    said_queue: int = 0
    keys_ordered: int = 0
    """API keys that operators revoked or gave other limits."""
    keys_revoked: int = 0
    said_keys: int = 0
    """How many it has; 0 also from one that is away, or does not tell."""
    round_trip_s: float | None = None
    """The slowest of its connections' newest."""
    routes_behind: int = 0
    """So many generations newer is the engine's than the oldest that is applied on a connection."""
    links: list[LinkView] = []
    """The oldest connection first."""
    said_started_at: float | None = None
    """By its own clock."""
    silent_since: float | None = None
    """When the last relay of one that is away was heard; None: it is there, or was not heard for 10 minutes."""


class LogPiece(msgspec.Struct, frozen=True):
    """A piece of what an instance printed, as `GET /v1/instances/{id}/log` answers it. No row of the stream."""

    data: bytes
    offset: int
    """Of its first byte in the file."""
    size: int
    """Of the whole file when it was read."""
    file: str
    """Identity of the file: another one means that it was rotated away."""
    written_at: float | None = None
    """When the file last changed."""

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.offset + len(self.data)


class TrafficView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the proxies tell of requests: all of it is their own word.

    Keyed `service`, or `service/model` where a service has several; `-` are requests that reached no service. Rates are
    of the last 10 s, times of the last minute. None is unknown: nobody tells, or there was nothing to time.
    """

    service: str
    """Empty in row `-`."""
    model: str = ""
    """Empty: all of the service."""
    models: list[str] = []
    requests_per_s: float | None = None
    """Those that ended."""
    errors_per_s: float | None = None
    """Those of them that failed by no doing of a client."""
    tokens_per_s: float | None = None
    """Server-sent events: of most servers one for each token."""
    first_token_p50_s: float | None = None
    """Of streams: from an instance that may take the request to the first event."""
    first_token_p95_s: float | None = None
    answer_p50_s: float | None = None
    """Of other requests: from there to the beginning of the answer."""
    answer_p95_s: float | None = None
    waited_p95_s: float | None = None
    """From a request's arrival to an instance that may take it."""
    in_flight: int = 0
    queued: int = 0
    """Of a whole service: requests that nothing could take yet."""
    failed: dict[str, int] = {}
    """In the last minute, by reason: see `wire.messages.REASONS`."""
    requests: int = 0
    """Since the engine's start."""
    troubled: bool = False
    """The whole service had requests that failed by no doing of a client in the last minute, or has some that wait."""


class KeyView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One API key of one proxy, keyed `proxy/key`; never the key or its hash. `said_*` is the proxy's own word."""

    proxy: str
    name: str
    known: bool = True
    """The proxy tells of it; one that is only ordered may not be there, or the proxy is away."""
    in_force: bool = True
    """What is ordered of it."""
    revoked: bool = False
    """Ordered, or in force there."""
    ordered_concurrency: int | None = None
    """None: as its proxy is configured. 0 is no limit."""
    ordered_per_minute: int | None = None
    ordered_by_uid: int | None = None
    ordered_at: float | None = None
    said_models: str = ""
    said_concurrency: int = 0
    """As it is in force there; 0 is no limit."""
    said_per_minute: int = 0
    said_in_flight: int = 0
    said_requests: int = 0
    """Since the proxy's start."""
    said_refused: int = 0
    """For its limits, or since it is revoked."""
    requests_per_s: float | None = None
    refused_per_s: float | None = None


class AlarmView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by `code:subject`; gone from the table once cleared."""

    code: str
    severity: str
    subject: str
    text: str
    since: float
    acked_by: int | None = None
    """The operator who took it up."""
    acked_at: float | None = None
    acked_because: str = ""


class EventView(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keyed by str(seq); the newest 500."""

    seq: int
    at: float
    code: str
    severity: str
    subject: str
    text: str
    uid: int | None = None
    """The operator who caused it; None is the engine itself."""


TABLES: dict[str, type[msgspec.Struct]] = {
    "engine": EngineView,
    "services": ServiceView,
    "instances": InstanceView,
    "jobs": JobView,
    "nodes": NodeView,
    "proxies": ProxyView,
    "traffic": TrafficView,
    "keys": KeyView,
    "alarms": AlarmView,
    "events": EventView,
}


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the stream: rows of one table that are new or changed, and keys that are gone.

    `reset`: forget the table first (start of a snapshot); `more`: the next line goes on with it, and they are one
    change. `seq` grows by one a line; after a gap the client connects again.
    """

    seq: int
    table: str
    set: dict[str, msgspec.Raw] = {}
    gone: list[str] = []
    reset: bool = False
    more: bool = False


def whole_row(row: msgspec.Struct) -> dict[str, Any]:
    """Every field of a row, also those that the wire leaves out because they hold the default."""
    return {field: getattr(row, field) for field in row.__struct_fields__}


def key_order_words(order: Mapping[str, Any]) -> str:
    """What operators want of an API key, the fields of a `wire.messages.KeyOrder`, in a few words."""
    words = ["revoked"] if order["revoked"] else []
    for limit, unit in (("concurrency", "at once"), ("per_minute", "a minute")):
        if order[limit] is not None:
            words.append(f"{order[limit] or 'any number'} {unit}")
    return ", ".join(words) or "as its proxy is configured"


def plan_rows(plan: Plan) -> dict[str, Any]:
    """A plan as `GET /v1/plan` answers it: acts, what they wait for and alarms, each with its reason."""
    return {
        "actions": [_act(action) | _why(action.reason) for action in plan.actions],
        "waiting": [_why(reason) for reason in plan.waiting],
        "alarms": [
            {"code": a.code, "severity": str(a.severity), "subject": a.subject, "text": a.text}
            for a in plan.alarms
        ],
    }


def _act(action: Action) -> dict[str, str]:
    match action:
        case Launch():
            return {"act": "launch", "subject": action.service, "replaces": action.replaces}
        case StartDrain():
            return {"act": "drain", "subject": action.instance, "kind": str(action.kind)}
        case WithdrawDrain():
            return {"act": "withdraw-drain", "subject": action.instance}
        case Reassign():
            return {"act": "reassign", "subject": action.instance, "replaces": action.replaces}
        case Cancel():
            return {"act": "cancel", "subject": action.instance}
        case Exclude():
            return {"act": "exclude", "subject": action.node}
        case Settle():
            return {"act": "settle", "subject": action.service, "revision": action.revision}
        case Revert():
            return {"act": "revert", "subject": action.service, "revision": action.revision, "to": action.to}


def _why(reason: Reason) -> dict[str, Any]:
    return {
        "rule": reason.rule,
        "text": reason.text,
        "inputs": dict(reason.inputs),
        "refused": [{"alternative": what, "because": why} for what, why in reason.refused],
    }
