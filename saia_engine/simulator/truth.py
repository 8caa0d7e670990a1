"""What really happens in the simulated world: the one interface between the world and the oracle.

Plain frozen values that import nothing of ours, and nothing in them comes from the engine's memory or journal.
Times are true seconds since the epoch; a job's own times are Slurm's, which runs on the true clock. Events come in
the order of `at`; those of one moment in the order in which they happened. Anything that is empty is unknown or
does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of one service: the last good configuration with the operators' overrides. Seconds."""

    name: str
    replicas: int
    min_available: int
    time_limit_s: float
    revision: str
    """Opaque: instances of another one are to be replaced."""
    max_surge: int = 0
    max_unavailable: int = 0
    lead_floor_s: float = 0.0
    lead_cap_s: float = 0.0
    """The longest lead there can be: replacements are never due earlier than by this one."""
    min_ready_s: float = 0.0
    drain_deadline_s: float = 0.0
    admission_margin_s: float = 0.0
    safety_margin_s: float = 0.0
    startup_deadline_s: float = 0.0
    unready_deadline_s: float = 0.0
    liveness: bool = True
    """A liveness probe may end it before its unready_deadline."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    at: float
    promise: int
    """Its number in the design; 0 is a fault of the world itself."""
    text: str


# ---------------------------------------------------------------- what is wanted


@dataclass(frozen=True, slots=True)
class Began:
    """The first event: what holds for the whole run."""

    at: float
    seed: int
    installation: str
    cluster: str
    user: str
    """Under whom our jobs run; foreign jobs may run under the same user."""
    poll_s: float
    command_timeout_s: float
    """After so long a command of Slurm's counts as without an answer."""
    message_timeout_s: float
    shared_delay_s: float
    """How long the shared file system may hide a change."""
    min_job_age_s: float


@dataclass(frozen=True, slots=True)
class Configured:
    """The whole wish from now on; an engine that runs has been told of it, one that starts reads it."""

    at: float
    services: Mapping[str, Wish]
    submits_per_hour: int


@dataclass(frozen=True, slots=True)
class ConfigRefused:
    """A bad edit: the wish stays as it was."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class OperatorOrdered:
    at: float
    verb: str
    """scale, clear-override, drain, replace, rollback, release-quarantine, ..."""
    service: str
    instance: str
    confirmed: bool
    """The operator has seen and taken the consequences, `min_available` among them."""


# ---------------------------------------------------------------- Slurm


@dataclass(frozen=True, slots=True)
class SubmitCalled:
    """An engine has started an sbatch; nothing has reached Slurm yet, and it may never."""

    at: float
    engine: str
    name: str
    time_limit_s: float = 0.0
    revision: str = ""
    """Of what it would run, as in `Wish`."""


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """Slurm has taken a job, ours or a foreign one."""

    at: float
    job_id: int
    name: str
    user: str
    submit_time: float
    answered: bool = True
    """False: who submitted it will see a time-out or an error, or has crashed."""
    engine: str = ""
    """Whose sbatch it was; empty: somebody else's."""


@dataclass(frozen=True, slots=True)
class SubmitRefused:
    """Slurm has refused a job, or the submit was lost on its way: it does not exist and never will."""

    at: float
    engine: str
    name: str
    answered: bool = True
    """False: the engine sees a time-out, so that it can't know."""


@dataclass(frozen=True, slots=True)
class CancelCalled:
    """An engine has started an scancel. What it hits is told by JobChanged."""

    at: float
    engine: str
    job_id: int
    name: str
    user: str


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job's state, node, limit or times changed: the whole of it as Slurm's controller has it now."""

    at: float
    job_id: int
    name: str
    user: str
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETING, COMPLETED, CANCELLED, TIMEOUT, NODE_FAIL, ..."""
    node: str
    """The first of its nodes."""
    start: float | None
    """When it started; of a pending job None."""
    end: float | None
    """When its limit ends it, or when it ended."""
    time_limit_s: float | None
    restarts: int
    submit_time: float
    cause: str
    """slurm, engine (an scancel of ours), foreign (a person), fault, time-limit, service (it ended by itself)."""


@dataclass(frozen=True, slots=True)
class JobForgotten:
    """Slurm knows it no longer: MinJobAge after its end, or a controller that lost its state (then it may run on)."""

    at: float
    job_id: int
    name: str
    state: str
    lost: bool
    """By a controller's lost state, not by its age."""


@dataclass(frozen=True, slots=True)
class NodeChanged:
    at: float
    node: str
    state: str
    """As sinfo prints it: idle, mixed, allocated, down*, idle+drain, ..."""
    usable: bool


@dataclass(frozen=True, slots=True)
class ReservationMade:
    """A maintenance window, known to Slurm from now on. One of length 0 was withdrawn."""

    at: float
    name: str
    start: float
    end: float
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControllerDown:
    at: float


@dataclass(frozen=True, slots=True)
class ControllerUp:
    """The controller is back, with a new boot time."""

    at: float
    lost_state: bool
    """It came up cold: jobs are forgotten (JobForgotten came before this), and ids start anew."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole observation (squeue, sinfo, scontrol) came to its end, or failed."""

    at: float
    engine: str
    quality: str
    """good, failed, empty, stale, truncated, late (longer than the command's time-out), young (the controller
    restarted less than MessageTimeout + a poll ago), clock (the engine started by a wrong wall clock, which is not
    mended yet)."""
    began: float
    """When it was asked."""
    calls: int = 0
    """Commands that it took."""


# ---------------------------------------------------------------- engines


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """It acts from now on: it has lock and lease, and has read its journal."""

    at: float
    engine: str
    """A name for each process: `a1` is the first on host a."""
    host: str
    epoch: int
    takeover: bool
    journal: str
    """kept, new (a host without one, or rebuilt), torn (its last write was lost)."""


@dataclass(frozen=True, slots=True)
class LeaseWritten:
    """A new holder stands in the shared lease; others may see it up to `shared_delay_s` later."""

    at: float
    engine: str
    host: str
    epoch: int


@dataclass(frozen=True, slots=True)
class EngineRefused:
    """It did not start: another one holds lock or lease."""

    at: float
    engine: str
    host: str
    why: str


@dataclass(frozen=True, slots=True)
class JournalRefused:
    """A write to this engine's journal failed: from now on it must not act."""

    at: float
    engine: str
    why: str


@dataclass(frozen=True, slots=True)
class EngineEnded:
    at: float
    engine: str
    how: str
    """crashed, stopped, host-lost."""


@dataclass(frozen=True, slots=True)
class AlarmsShown:
    """All alarms that an engine shows its operators, whenever they change."""

    at: float
    engine: str
    alarms: tuple[tuple[str, str], ...]
    """Code and subject of each."""


# ---------------------------------------------------------------- agents and routes


@dataclass(frozen=True, slots=True)
class AgentChanged:
    """The agent of an instance, which may outlive its job's row in Slurm's table."""

    at: float
    instance: str
    generation: int
    service: str
    job_id: int
    state: str
    """starting, ready (its service answers), unready (it does not), gone (the process ended)."""


@dataclass(frozen=True, slots=True)
class AgentReachable:
    """Whether packets pass between the agent and engines and gates; at its start they do."""

    at: float
    instance: str
    generation: int
    reachable: bool


@dataclass(frozen=True, slots=True)
class DrainHeard:
    """The agent heard an engine's order for the first time since it was otherwise."""

    at: float
    instance: str
    generation: int
    draining: bool
    """False: withdrawn, it serves again."""


@dataclass(frozen=True, slots=True)
class ReadRoute:
    instance: str
    generation: int
    service: str
    admit_until: float
    end: float
    draining: bool
    secret_valid: bool
    """The secret is that of the agent that runs now."""


@dataclass(frozen=True, slots=True)
class RoutesRead:
    """The gates of a host have a new table."""

    at: float
    host: str
    routes: tuple[ReadRoute, ...]


# ---------------------------------------------------------------- clients


@dataclass(frozen=True, slots=True)
class RequestOpened:
    """An instance has taken a request."""

    at: float
    stream: int
    service: str
    instance: str
    generation: int


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """No instance took it; `why`: no-route, unknown-service, no-gate, all-refused."""

    at: float
    service: str
    why: str


@dataclass(frozen=True, slots=True)
class RequestEnded:
    at: float
    stream: int
    how: str
    """done; client-left; cut (the instance was ended under it); lost (it crashed, hung or became unreachable)."""
    cause: str
    """Of a cut: as JobChanged.cause. Of a loss: the fault. Else empty."""


# ---------------------------------------------------------------- faults


@dataclass(frozen=True, slots=True)
class FaultBegan:
    at: float
    kind: str
    subject: str
    """What it strikes: an instance, node, engine, job id, service, or `slurm`."""


@dataclass(frozen=True, slots=True)
class FaultEnded:
    at: float
    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class FaultsStopped:
    """No fault is at work any more and none begins, no edit and no order comes; an engine acts."""

    at: float


@dataclass(frozen=True, slots=True)
class RoomPromised:
    """From now on a job of ours that is submitted starts within `queue_s` and its service is ready `load_s` after."""

    at: float
    queue_s: float
    load_s: float


Event = (
    Began
    | Configured
    | ConfigRefused
    | OperatorOrdered
    | SubmitCalled
    | JobAccepted
    | SubmitRefused
    | CancelCalled
    | JobChanged
    | JobForgotten
    | NodeChanged
    | ReservationMade
    | ControllerDown
    | ControllerUp
    | Answered
    | EngineStarted
    | LeaseWritten
    | EngineRefused
    | JournalRefused
    | EngineEnded
    | AlarmsShown
    | AgentChanged
    | AgentReachable
    | DrainHeard
    | RoutesRead
    | RequestOpened
    | RequestRefused
    | RequestEnded
    | FaultBegan
    | FaultEnded
    | FaultsStopped
    | RoomPromised
)


class Observer(Protocol):
    """Who is told of all that happens: the oracle, a recorder, a hash."""

    def see(self, event: Event) -> None:
        """Called for every event, in order."""
        ...

    def finish(self, at: float) -> None:
        """The run ends at this time."""
        ...
