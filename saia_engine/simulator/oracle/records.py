"""The oracle's records: one of each job, launch, agent, engine and stream, as it truly is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from saia_engine.simulator.oracle import grace

LIVE_STATES = frozenset(
    "PENDING RUNNING CONFIGURING SUSPENDED STOPPED SIGNALING RESIZING REQUEUED REQUEUE_FED"
    " REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT STAGE_OUT".split()
)
FAR_PAST = float("-inf")


@dataclass(slots=True, eq=False)
class JobSeen:
    """A job in Slurm's table, or one that a controller forgot and that may run on."""

    id: int
    name: str
    user: str
    submit_time: float
    accepted_at: float
    engine: str
    state: str = "PENDING"
    state_since: float = 0.0
    node: str = ""
    last_node: str = ""
    started_at: float | None = None
    """When it was first seen to run in this generation."""
    end: float | None = None
    restarts: int = 0
    restarted_at: float = FAR_PAST
    in_table: bool = True
    lost: bool = False
    left_table_at: float = FAR_PAST
    ended_at: float | None = None
    cause: str = ""
    completed_late: bool = False
    """It hung in COMPLETING for so long that it may have been given up."""
    ends: list[tuple[float, float | None]] = field(default_factory=list)
    """Each end time that Slurm had for it, with the time from which on."""

    @property
    def live(self) -> bool:
        return self.in_table and self.state in LIVE_STATES

    def ends_since(self, since: float) -> Iterator[float | None]:
        """All end times that held at some moment since then."""
        for began, end in reversed(self.ends):
            yield end
            if began <= since:
                return


@dataclass(slots=True, eq=False)
class Token:
    """One launch by an engine: its name is used once."""

    name: str
    instance: str
    service: str
    revision: str
    called_at: float
    engine: str
    outcome: str = "called"
    """called, taken, refused, unknown (the engine has seen no answer, whatever came of it)."""
    settled_at: float = FAR_PAST
    """When Slurm took or refused it."""
    job: JobSeen | None = None
    shown: bool = False
    """A good answer has shown its job."""
    shown_running: bool = False
    """And on which node it runs: before, nobody can ask its agent."""
    start_shown: tuple[float, float] = (FAR_PAST, FAR_PAST)
    """Its job's start, and when an answer first showed that."""
    missing_since: float | None = None
    """When the first of the believable answers in a row was asked that lacks it."""
    was_missing: bool = False
    """A believable answer has lacked it once."""
    found_at: float = FAR_PAST
    """When it was last found again, or adopted: its deadlines run anew."""
    written_off: bool = False
    """The engine has every right to believe that it is gone."""
    late: bool = False
    """Slurm took it up when the engine may have given up waiting: it may be one too many."""
    known_on: set[str] = field(default_factory=set)
    """Hosts whose journal has it: an engine there submitted it, or a good answer has shown it."""
    forgotten: bool = False
    """The engine that acts now has not got it in its journal, and no good answer has shown it since."""
    cancelled_at: float = FAR_PAST
    ordered_out_at: float = FAR_PAST
    """An operator asked for its drain."""
    cut_asked: bool = False
    """An operator asked for its end at once."""
    removed_at: float = FAR_PAST
    """Its service was taken from the configuration."""
    replace_asked: bool = False
    was_due: bool = False
    """Its replacement could be due at some time."""
    filler: bool = False
    """Submitted where a slot was free for sure: nobody's replacement."""
    extra: bool = False
    """Submitted where all slots were taken: somebody's replacement."""
    drained_for: Token | None = None
    """The replacement that allowed its drain."""
    by_order: bool = False
    """Its drain may be a surplus, a removal, a rollout, an illness or an operator's will: no hand-over for sure."""

    @property
    def ended(self) -> bool:
        if self.outcome == "refused":
            return True
        return self.job is not None and not self.job.live and not self.job.lost


@dataclass(slots=True, eq=False)
class AgentSeen:
    """The agent of one generation of an instance."""

    instance: str
    generation: int
    service: str
    job_id: int
    began_at: float
    state: str = "starting"
    since: float = 0.0
    ready_since: float | None = None
    """Of a readiness whose gaps were too short to be noticed for sure."""
    left_ready_at: float = FAR_PAST
    was_ready_s: float = 0.0
    """How long, when it last left readiness."""
    served: bool = False
    reachable: bool = True
    cut_off_at: float = FAR_PAST
    reached_since: float = FAR_PAST
    """When it was last cut off or came back."""
    draining: bool = False
    drained_at: float = FAR_PAST
    drained_well: bool = False
    """It served when it heard of its drain."""
    withdrawn_at: float = FAR_PAST

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self.reachable


@dataclass(slots=True, eq=False)
class EngineSeen:
    name: str
    host: str
    turn: int
    """Its lease's place among all that were written: the last one counts, whatever its epoch."""
    started_at: float
    journal: str
    running: bool = True
    ended_at: float = FAR_PAST
    refused_at: float | None = None
    """Its journal took no write any more."""
    believes: bool = False
    boot_at: float = FAR_PAST
    """When the controller that it asks came up."""
    doubts_until: float = FAR_PAST
    """It has taken an answer for what is: before, it knows of nothing that runs, nor publishes."""
    able_from: float = float("inf")
    """When it began to."""
    superseded_at: float | None = None
    """Another one has taken the lease since: it keeps the routes as they are."""
    quality: str = ""
    """Of its last answer."""
    answers: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=6))
    """(asked, came) of its last good ones."""
    stale_from: float | None = None
    """How far back its beliefs may reach, after a stale answer."""
    plan_from: float = FAR_PAST
    """When it began to do what its present plan asks for."""
    busy_until: float = FAR_PAST
    """What it does before this moment may be of the same plan."""
    frozen_at: float | None = None
    frozen_services: frozenset[str] = frozenset()
    alarms: frozenset[tuple[str, str]] = frozenset()
    kept: frozenset[str] = frozenset()
    """Instances that stood in its gates' routes when its journal failed."""

    @property
    def acting(self) -> bool:
        return self.running and self.refused_at is None and self.superseded_at is None

    @property
    def doubts(self) -> bool:
        """It says that Slurm's answers cannot be had, or are not to be believed."""
        return ("slurm-unavailable", "slurm") in self.alarms

    @property
    def last_acting(self) -> float:
        """When it acted last, as far as it no longer does."""
        stops = (self.superseded_at, self.refused_at)
        return min((at for at in stops if at is not None), default=self.ended_at)

    @property
    def view_from(self) -> float:
        """What was so before this moment and has not changed since, it must know."""
        known = self.answers[-1][0] if self.answers else FAR_PAST
        return known if self.stale_from is None else min(known, self.stale_from)

    def view_from_at(self, moment: float) -> float:
        """The same, as of a moment shortly ago; what came just before its end, or its journal's, it never told."""
        last = min(self.refused_at or moment, moment if self.running else self.ended_at)
        if last < moment:
            moment = last - grace.ROUTES_S
        for asked, came in reversed(self.answers):
            if came <= moment:
                return asked if self.stale_from is None else min(asked, self.stale_from)
        return FAR_PAST


@dataclass(slots=True, eq=False)
class Stream:
    instance: str
    generation: int
    opened_at: float
