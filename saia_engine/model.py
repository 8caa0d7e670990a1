"""The words of the system, as frozen values: what is desired, what Slurm shows, what we run.

Times are seconds since the epoch on the engine's steady clock, durations are seconds, memory is MiB.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

TOKEN_PREFIX = "saia"
_TOKEN = re.compile(rf"{TOKEN_PREFIX}" + r"\.([A-Za-z0-9_-]{1,64})" * 4)


# ---------------------------------------------------------------- desired


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """How an instance's agent asks its service how it fares. Durations are seconds."""

    kind: str = "http"
    """`http`: a GET that wants 2xx; `completion`: one token of a model, which wants choices."""
    path: str = "/health"
    model: str = ""
    """Of whom a completion is asked."""
    interval_s: float = 2.0
    """From an answer to the next question."""
    timeout_s: float = 5.0
    failures: int = 3
    """So many in a row count, never one."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that a job runs with. A change in any field needs a relaunch; the hash of all is the revision."""

    command: tuple[str, ...] = ()
    """Argument list; `{port}` and `{socket}` are filled in by the agent. Empty where `script` is set."""
    script: str = ""
    """Text for `/bin/sh`, where one command is not enough; it sees SAIA_SOCKET or SAIA_PORT."""
    listen: str = "port"
    """`socket`: a Unix socket at $SAIA_SOCKET; `port`: a loopback port, $SAIA_PORT."""
    environment: tuple[tuple[str, str], ...] = ()
    readiness_path: str = "/health"
    nodes: int = 1
    gres: str = ""
    cpus: int = 1
    memory_mib: int = 0
    """Per node; 0 leaves it to the partition."""
    time_limit_s: int = 3600
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    exclude: str = ""
    sbatch_options: tuple[str, ...] = ()
    time_min_s: int = 0
    """Slurm may shorten the limit down to this, so that the job fits before what is reserved; 0: never."""
    readiness: ProbeSpec | None = None
    """None asks for `readiness_path`, with a probe's defaults."""
    liveness: ProbeSpec | None = None
    """Asked once the service has been ready; None never asks."""

    @property
    def readiness_probe(self) -> ProbeSpec:
        return self.readiness or ProbeSpec(path=self.readiness_path)

    @property
    def revision(self) -> str:
        """First 12 hex digits of the SHA-256 over the fields that differ from their defaults, sorted.

        So a field that a later version adds, here or to a probe, leaves the revision of older specs as it is.
        """
        return _revision_of(self)

    def redacted(self) -> LaunchSpec:
        """The same without the values of its environment, for journal and display."""
        return replace(self, environment=tuple((name, "") for name, _ in self.environment))


@lru_cache(maxsize=1024)
def _revision_of(spec: LaunchSpec) -> str:
    """Each plan asks for it many times."""
    text = json.dumps(_told(spec), sort_keys=True, separators=(",", ":"), default=_told)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _told(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    return {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}


@dataclass(frozen=True, slots=True)
class Timing:
    """A service's durations (s) on the timeline of an instance; see `planner.timeline`."""

    lead_floor_s: float = 600.0
    lead_cap_s: float = 0.0
    """A learned lead is at most this; 0: what the time limit allows."""
    min_ready_s: float = 10.0
    drain_deadline_s: float = 300.0
    admission_margin_s: float = 120.0
    safety_margin_s: float = 30.0
    startup_deadline_s: float = 1800.0
    """From its job's start to its first readiness; who takes longer is replaced."""
    unready_deadline_s: float = 180.0
    """Who served, and then is unready for so long, is replaced."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """How a changed launch spec is rolled out; Kubernetes' and Nomad's knobs."""

    max_surge: int = 1
    """Instances above `replicas` at once."""
    max_unavailable: int = 0
    """Replicas that may be missing meanwhile; 0: the new one is proven before an old one drains."""
    healthy_deadline_s: float = 1800.0
    """From its job's start an instance has so long to be ready for `min_ready`."""
    progress_deadline_s: float = 3600.0
    """Without a step forward for so long, waiting in Slurm's queue not counted, a rollout has failed."""
    auto_revert: bool = True
    """A failed rollout goes back to the last good revision by itself."""


@dataclass(frozen=True, slots=True)
class Service:
    """A desired service: so many replicas of one launch spec, and who may ask what of it."""

    name: str
    launch: LaunchSpec
    timing: Timing = Timing()
    replicas: int = 1
    min_available: int = 0
    """Routable instances that our own acts never go below."""
    models: tuple[str, ...] = ()
    """Names under which OpenAI-style clients ask for it."""
    methods: tuple[str, ...] = ("GET", "POST")
    paths: tuple[str, ...] = ("/v1/",)
    """Exact paths, or prefixes where they end in `/`."""
    rolling: Rolling = Rolling()
    stagger: bool = True
    """Shorten time limits a little, so that replicas do not end together."""


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """What one proxy may reach, and how much of it at once; enforced by the gate."""

    services: tuple[str, ...] = ("*",)
    """Service names, or `*` for all."""
    relays: int = 32
    streams: int = 2000
    opens_per_second: int = 1000
    memory_mib: int = 256


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's change on top of the config file; shown until cleared."""

    service: str
    replicas: int
    uid: int
    at: float
    because: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator wants none of a service until it is resumed; then the file's number, or an override, holds again."""

    service: str
    uid: int
    at: float
    because: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """An operator has taken up an alarm: others need not, and it rings no more."""

    alarm: str
    """`code:subject`."""
    uid: int
    at: float
    severity: str
    """As it was then."""
    because: str = ""


@dataclass(frozen=True, slots=True)
class Pin:
    """A rollback: the service runs this revision while the file asks for `instead_of`; shown until cleared."""

    service: str
    revision: str
    instead_of: str
    because: str
    at: float
    uid: int | None = None
    """Who ordered it; None is the engine."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One launch spec that a service was asked to run, and what became of it."""

    service: str
    revision: str
    spec: LaunchSpec
    """Redacted."""
    since: float
    """When it was asked for, last."""
    good_at: float | None = None
    """When all replicas first ran it, each ready for `min_ready`."""
    failed_at: float | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """When a node is kept from new jobs: after so many failures there in an hour, for so long (s); 0: never."""

    failures: int = 2
    time_s: float = 3600.0


QUARANTINE = Quarantine()


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A node that no new job of ours may use for a while."""

    node: str
    until: float
    because: str
    at: float
    uid: int | None = None
    """Who ordered it; None is the engine."""


@dataclass(frozen=True, slots=True)
class WaitSample:
    """What one start took: time in Slurm's queue, and from job start to first readiness (s)."""

    at: float
    service: str
    shape: str
    """Partition and resources: see `planner.lead.shape`."""
    queue_s: float
    load_s: float | None = None
    """None: it never got ready."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be: the config file with the operators' overrides applied."""

    services: Mapping[str, Service]
    poll_interval_s: float = 15.0


# ---------------------------------------------------------------- what Slurm shows

JOB_LIVE_STATES = frozenset(
    "PENDING RUNNING CONFIGURING SUSPENDED STOPPED SIGNALING RESIZING REQUEUED REQUEUE_FED"
    " REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT STAGE_OUT".split()
)
JOB_ENDED_STATES = frozenset(
    "COMPLETED CANCELLED FAILED TIMEOUT NODE_FAIL PREEMPTED BOOT_FAIL DEADLINE OUT_OF_MEMORY REVOKED".split()
)


@dataclass(frozen=True, slots=True)
class Job:
    """One row of Slurm's job table, ours or anyone's. Names and reasons are raw: sanitise to show."""

    id: int
    name: str
    user: str
    state: str
    reason: str = ""
    partition: str = ""
    submit_time: float = 0.0
    start_time: float | None = None
    """When it started; for a pending job Slurm's forecast, if it has one."""
    end_time: float | None = None
    """When Slurm will end it, or ended it; None while unknown."""
    time_limit_s: float | None = None
    """None is unlimited or unknown."""
    restarts: int = 0
    nodes: tuple[str, ...] = ()
    node_count: int = 1
    gres: str = ""
    gpus: int = 0
    cpus: int = 0
    priority: int = 0

    @property
    def ended(self) -> bool:
        return self.state in JOB_ENDED_STATES


@dataclass(frozen=True, slots=True)
class Node:
    """One node as sinfo shows it."""

    name: str
    state: str
    """Slurm's word in lower case with its flags: `idle`, `mixed`, `down*`, `idle+drain`, ..."""
    address: str = ""
    """Where its jobs can be reached: Slurm's NodeAddr, or its name."""
    partitions: tuple[str, ...] = ()
    reason: str = ""
    cpus: int = 0
    cpus_allocated: int = 0
    memory_mib: int = 0
    gpu_type: str = ""
    gpus: int = 0
    gpus_allocated: int = 0

    @property
    def usable(self) -> bool:
        """Whether Slurm would start a job on it, one that it has powered down included."""
        state = self.state.replace("powered_down", "")
        return not any(word in state for word in ("down", "drain", "fail", "maint", "inval", "*"))


@dataclass(frozen=True, slots=True)
class Reservation:
    """A window that Slurm keeps some nodes for, as `scontrol show reservation` tells it."""

    name: str
    start: float
    end: float
    nodes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    @property
    def maintenance(self) -> bool:
        return "MAINT" in self.flags


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as sinfo shows it."""

    name: str
    up: bool = True
    """Jobs may be queued and started there."""
    max_time_s: float | None = None
    """None is no limit."""
    nodes: tuple[str, ...] = ()
    default: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One good observation of Slurm. A bad one is an exception of the Slurm port, never a value."""

    taken_at: float
    jobs: tuple[Job, ...] = ()
    nodes: tuple[Node, ...] = ()
    controller_boot: float = 0.0
    """When the controller started; a change is a restart."""
    reservations: tuple[Reservation, ...] = ()
    partitions: tuple[Partition, ...] = ()
    controller_now: float = 0.0
    """The controller's own clock when it answered, in whole seconds; 0 where the answer does not tell it."""

    @property
    def node_by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}


# ---------------------------------------------------------------- what we run


class State(StrEnum):
    """Where an instance stands; see design: intended -> submitted -> pending -> starting -> ready <-> unready ..."""

    INTENDED = "intended"
    SUBMITTED = "submitted"
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    DRAINING = "draining"
    LOST = "lost"
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = frozenset({State.STOPPED, State.FAILED})
COMING = frozenset({State.INTENDED, State.SUBMITTED, State.PENDING, State.STARTING})


class DrainKind(StrEnum):
    """Why an instance drains; decides when its streams may be cut."""

    HANDOVER = "handover"
    SURPLUS = "surplus"
    REMOVAL = "removal"
    ROLLOUT = "rollout"
    OPERATOR = "operator"
    UNHEALTHY = "unhealthy"
    """Never got ready in time, or hangs; its end counts as a failure."""


@dataclass(frozen=True, slots=True)
class Drain:
    kind: DrainKind
    started_at: float
    heard_at: float | None = None
    """When its agent first said that it drains: from then on it takes no new request."""
    at_once: bool = False
    """An operator does not want to wait for what is open on it."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Live use of one GPU as the agent's nvidia-smi saw it; None is unknown, never zero."""

    index: int
    utilisation_percent: float | None = None
    memory_used_mib: float | None = None
    memory_total_mib: float | None = None


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The newest word of an instance's agent over its control connection."""

    seen_at: float
    ready: bool = False
    draining: bool = False
    open_connections: int | None = None
    """Proven data connections; None is unknown, which is never zero."""
    verified: bool = False
    """The engine itself has had an answer to one request through the front."""
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""
    """What the probe that fails got to hear: of the liveness probe where `alive` is false."""
    alive: bool = True
    """False: the liveness probe failed as often in a row as its spec says, and has not succeeded since."""
    served: bool = False
    """Its service has been ready in this generation, whoever listened then."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One attempt to run a service: a record of the journal."""

    id: str
    service: str
    spec: LaunchSpec
    """Redacted: the values of its environment are in the instance directory only."""
    revision: str
    created_at: float
    state: State = State.INTENDED
    state_since: float = 0.0
    replaces: str = ""
    """Id of the instance whose slot it takes over; empty for a first or added one."""
    generation: int = 0
    """Slurm's restart count: a requeue makes a new generation, with new endpoint and secrets."""
    job_id: int = 0
    submit_time: float = 0.0
    """As Slurm shows it; 0 until first seen there."""
    user: str = ""
    reason: str = ""
    """Slurm's reason while pending."""
    node: str = ""
    forecast_at: float | None = None
    """While it waits: when Slurm expects to start it, where it says so."""
    started_at: float | None = None
    end_time: float | None = None
    ready_since: float | None = None
    """Start of the present unbroken readiness."""
    served: bool = False
    """Was ready at least once."""
    held: bool = False
    """Its job was held in the queue: its wait teaches nothing."""
    first_ready_at: float | None = None
    """First readiness of its present generation."""
    replace_asked: bool = False
    """An operator wants it handed over before its end."""
    drain: Drain | None = None
    cancel_sent_at: float | None = None
    absent_since: float | None = None
    """First good snapshot in a row that lacked its job; kept where it ended so, without a word."""
    completing_since: float | None = None
    ended_at: float | None = None
    outcome: str = ""
    """One sentence on how it ended."""
    end_state: str = ""
    """Slurm's word for its job's end, where it told one: CANCELLED, TIMEOUT, NODE_FAIL, ..."""
    log_tail: str = ""
    """Last lines of its output, for one that failed; raw: sanitise to show."""
    unsent: bool = False
    """Its directory could not be written, so it was never submitted: that is this host's fault."""
    timing: Timing = Timing()
    """Its service's at launch; counts once the service is no longer configured."""

    @property
    def job_name(self) -> str:
        return f"{TOKEN_PREFIX}.{self.id}"

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def live(self) -> bool:
        return self.state not in ENDED

    @property
    def vanished(self) -> bool:
        """Gone from Slurm without a word: how it ended nobody knows."""
        return self.ended and self.absent_since is not None

    @property
    def cancelled_by_others(self) -> bool:
        """Somebody else ended its job: respected as a failure, however long it had lived."""
        return self.end_state == "CANCELLED" and self.cancel_sent_at is None


def instance_id(installation: str, cluster: str, service: str, nonce: str) -> str:
    """The id that names an instance everywhere: job name, paths, routes. No part may hold a dot."""
    return f"{installation}.{cluster}.{service}.{nonce}"


def short_id(instance: str) -> str:
    """`<service>.<nonce>` of an instance's id, enough within one engine; anything else as it is."""
    parts = instance.split(".")
    return ".".join(parts[2:]) if len(parts) == 4 else instance


def parse_token(job_name: str) -> tuple[str, str, str, str] | None:
    """(installation, cluster, service, nonce) of one of saia's job names; None for any other name."""
    # Anyone may name a job, and the parts become paths.
    found = _TOKEN.fullmatch(job_name)
    return (found[1], found[2], found[3], found[4]) if found else None


# ---------------------------------------------------------------- what to do about it


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the planner wants an act: the rule's name, a sentence, and the inputs that decided it."""

    rule: str
    text: str
    inputs: tuple[tuple[str, str | float | int], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    """Alternatives that were weighed, each with why it was refused."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Submit a new instance of a service."""

    service: str
    spec: LaunchSpec
    """What to submit: the service's, with time limit and excluded nodes fitted to this launch."""
    revision: str
    """Of the service's own spec."""
    reason: Reason
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class StartDrain:
    instance: str
    kind: DrainKind
    reason: Reason


@dataclass(frozen=True, slots=True)
class WithdrawDrain:
    """The replacement died before `admit_until`: the old instance is wanted again."""

    instance: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Reassign:
    """It is not needed where it was meant to be, and takes over from another one."""

    instance: str
    replaces: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Cancel:
    instance: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Exclude:
    """Keep new jobs of ours off a node on which they keep failing."""

    node: str
    until: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Settle:
    """All replicas run this revision and have proven themselves: it is good."""

    service: str
    revision: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Revert:
    """The rollout of `revision` has failed; go back to `to`, or nowhere where `to` is empty."""

    service: str
    revision: str
    to: str
    reason: Reason


Action = Launch | StartDrain | WithdrawDrain | Reassign | Cancel | Exclude | Settle | Revert


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition that holds now. Its key (code, subject) is stable while it does."""

    code: str
    severity: Severity
    subject: str
    text: str
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner wants done now, and what it worries about. Nothing in it has been done."""

    actions: tuple[Action, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    waiting: tuple[Reason, ...] = ()
    """What it would do but must wait for."""
    again_at: float = 0.0
    """Until then it holds for the same records: whoever sees nothing new need not plan."""
