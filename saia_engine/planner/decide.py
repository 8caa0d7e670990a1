"""desired, memory, now -> Plan. Nothing here acts, waits or looks at a clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from saia_engine.model import (
    QUARANTINE,
    Action,
    AgentStatus,
    Alarm,
    Cancel,
    Desired,
    Exclude,
    Exclusion,
    Instance,
    Launch,
    LaunchSpec,
    Plan,
    Quarantine,
    Reason,
    Revision,
    Service,
    Severity,
    Snapshot,
    State,
)
from saia_engine.planner import handover, health, lead, quarantine, rollout, sizing, worries
from saia_engine.planner.brakes import Budget, mass_absent
from saia_engine.planner.fleet import Fleet
from saia_engine.planner.foresight import Outlook
from saia_engine.planner.lead import Learned
from saia_engine.planner.moment import Moment


@dataclass(frozen=True, slots=True)
class Memory:
    """What the engine knows: records of instances (live, and ended of the last hour), agents' words."""

    instances: Mapping[str, Instance]
    statuses: Mapping[str, AgentStatus]
    submits_per_hour: int = 120
    snapshot: Snapshot | None = None
    learned: Mapping[str, Learned] = field(default_factory=dict)
    """By service: what past starts took."""
    revisions: Mapping[str, tuple[Revision, ...]] = field(default_factory=dict)
    """By service, oldest first."""
    exclusions: Mapping[str, Exclusion] = field(default_factory=dict)
    quarantine: Quarantine = QUARANTINE
    listening: Mapping[str, float] = field(default_factory=dict)
    """By instance: since when its agent has been asked; who is not in it has not been asked yet."""
    unfrozen_at: float = 0.0
    """When an operator last ended a freeze."""
    began_at: float = 0.0
    """When this engine began, or its clock was set right."""


def plan(desired: Desired, memory: Memory, now: float) -> Plan:
    """All that should be done now, with reasons, in the order to do it."""
    moment = Moment(now)
    records = memory.instances.values()
    by_service = _by_service(memory)
    outlook = Outlook.of(memory.snapshot, memory.exclusions, moment)
    budget = Budget(by_service, memory.submits_per_hour, len(desired.services), moment)
    absent = mass_absent(records, memory.unfrozen_at)
    silent = health.mass_silent(records, memory.statuses, moment)
    frozen = {memory.instances[name].service for name in absent}
    found = leads(desired, memory, moment)
    actions: list[Action] = list(
        quarantine.bad_nodes(memory.quarantine, records, memory.exclusions, outlook, moment)
    )
    # Launches of this very plan keep off those nodes, too.
    ahead = outlook.without(action.node for action in actions if isinstance(action, Exclude))
    alarms: list[Alarm] = []
    waiting: list[Reason] = []
    removed = {name for name, own in by_service.items() if any(i.live for i in own)}
    for name in sorted({*desired.services, *removed}):
        fleet = Fleet(
            name,
            desired.services.get(name),
            by_service.get(name, ()),
            statuses=memory.statuses,
            listening=memory.listening,
            lead=found.get(name, _NO_LEAD),
            outlook=ahead,
            revisions=memory.revisions.get(name, ()),
            poll_s=desired.poll_interval_s,
            began_at=memory.began_at,
            moment=moment,
        )
        for action in _acts(fleet, silent):
            refusal = None
            if absent and (isinstance(action, Cancel) or (isinstance(action, Launch) and name in frozen)):
                refusal = Reason("mass-absence", f"{name}: held back until it is clear what runs")
            elif isinstance(action, Launch) and fleet.going_back:
                refusal = Reason("going-back", f"{name}: its rollout is reverted first")
            elif isinstance(action, Launch):
                refusal = budget.refuses(action)
            if refusal is None:
                actions.append(action)
            else:
                waiting.append(refusal)
        alarms += worries.alarms(fleet)
        waiting += fleet.waiting
    alarms += _cluster_alarms(budget, memory, absent, silent, outlook)
    actions.sort(key=_waits_for_slurm)
    return Plan(tuple(actions), tuple(alarms), tuple(waiting), moment.again_at)


def _waits_for_slurm(action: Action) -> int:
    """What is said in a moment need not wait for commands of Slurm, nor a cancel for the slowest of them."""
    return 2 if isinstance(action, Launch) else 1 if isinstance(action, Cancel) else 0


def what_matters(snapshot: Snapshot) -> object:
    """What a plan depends on in Slurm's answer: not who else uses its nodes."""
    nodes = [(node.name, node.state, node.reason, node.partitions) for node in snapshot.nodes]
    return nodes, snapshot.partitions, snapshot.reservations


def _by_service(memory: Memory) -> defaultdict[str, list[Instance]]:
    found: defaultdict[str, list[Instance]] = defaultdict(list)
    for instance in memory.instances.values():
        found[instance.service].append(instance)
    return found


_NO_LEAD = lead.Lead(0.0, "the service is not configured")


def leads(desired: Desired, memory: Memory, moment: Moment) -> dict[str, lead.Lead]:
    """Each service's lead time now."""
    queued: defaultdict[str, list[Instance]] = defaultdict(list)
    shapes: dict[int, str] = {}

    def shape(spec: LaunchSpec) -> str:
        if id(spec) not in shapes:
            shapes[id(spec)] = lead.shape(spec)
        return shapes[id(spec)]

    for instance in memory.instances.values():
        if instance.state is State.PENDING and not instance.generation and not instance.held:
            queued[shape(instance.spec)].append(instance)

    def of(service: Service) -> lead.Lead:
        waiting = queued.get(shape(service.launch), ())
        known = memory.learned.get(service.name, Learned())
        return lead.lead(known, service, waiting, desired.poll_interval_s, moment)

    return {name: of(service) for name, service in desired.services.items()}


def rollouts(desired: Desired, memory: Memory) -> dict[str, str]:
    """Rollouts under way, each a sentence."""
    told: dict[str, str] = {}
    by_service = _by_service(memory)
    for name, service in desired.services.items():
        record = next(
            (r for r in memory.revisions.get(name, ()) if r.revision == service.launch.revision), None
        )
        if record is not None and (text := rollout.told(record, by_service[name], service.replicas)):
            told[name] = text
    return told


def _acts(fleet: Fleet, silent: frozenset[str]) -> Iterator[Action]:
    """Each rule sees what the ones before it have granted."""
    yield from sizing.serve_again(fleet)
    yield from sizing.end_drains(fleet)
    yield from health.end_unhealthy(fleet, silent)
    yield from handover.reassign(fleet)
    yield from rollout.judge(fleet)
    yield from rollout.roll(fleet)
    yield from sizing.resize(fleet)
    yield from handover.hand_over(fleet)


def _cluster_alarms(
    budget: Budget, memory: Memory, absent: frozenset[str], silent: frozenset[str], outlook: Outlook
) -> Iterator[Alarm]:
    for subject in sorted(budget.exhausted):
        yield Alarm(
            "submits-exhausted",
            Severity.CRITICAL,
            subject,
            f"too many submits in the last hour (submits_per_hour = {memory.submits_per_hour}): no more until"
            " some are older",
        )
    if absent:
        yield Alarm(
            "mass-absence",
            Severity.CRITICAL,
            "slurm",
            f"{len(absent)} of our jobs are gone from Slurm's answer at once, without a word: nothing is"
            " cancelled or resubmitted for them until their agents are silent, too",
        )
    if silent:
        yield Alarm(
            "mass-silence",
            Severity.CRITICAL,
            "agents",
            f"agents fell silent at once, {len(silent)} still are: none is ended for it; look at the network between"
            " here and the nodes",
        )
    for node in sorted(outlook.excluded):
        exclusion = memory.exclusions[node]
        yield Alarm(
            "node-excluded", Severity.INFO, node, f"no new job of ours goes there: {exclusion.because}"
        )
