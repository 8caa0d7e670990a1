"""desired, memory, now -> Plan. Nothing here acts, waits or looks at a clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from saia_engine.model import (
    COMING,
    Action,
    AgentStatus,
    Alarm,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Instance,
    Launch,
    Plan,
    Reason,
    Service,
    Severity,
    StartDrain,
    State,
    Timing,
    WithdrawDrain,
    short_id,
)
from saia_engine.planner import timeline
from saia_engine.planner.brakes import Budget, backoff_until, mass_absent
from saia_engine.planner.lifecycle import fresh

CANCEL_AGAIN_S = 30.0
"""A cancel without effect is sent again after so long."""
STATE_DEADLINE_S: Mapping[State, float] = {
    State.INTENDED: 120.0,
    State.SUBMITTED: 120.0,
    State.STARTING: 1800.0,
    State.UNREADY: 60.0,
    State.LOST: 60.0,
}
DRAIN_OVERDUE_S = 60.0
"""So much later than its last moment a drained job should be gone."""
"""A longer stay raises an alarm (promise 24)."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the engine knows: records of instances (live, and ended of the last hour), agents' words."""

    instances: Mapping[str, Instance]
    statuses: Mapping[str, AgentStatus]
    submits_per_hour: int = 120


def plan(desired: Desired, memory: Memory, now: float) -> Plan:
    """All that should be done now, with reasons, in the order to do it."""
    names = sorted({*desired.services, *(i.service for i in memory.instances.values() if i.live)})
    budget = Budget(memory.instances.values(), memory.submits_per_hour, len(desired.services), now)
    absent = mass_absent(memory.instances.values(), now)
    frozen = {memory.instances[name].service for name in absent}
    actions: list[Action] = []
    alarms: list[Alarm] = []
    waiting: list[Reason] = []
    for name in names:
        fleet = _Fleet(name, desired, memory, now)
        for step in (fleet.serve_again, fleet.end_drains, fleet.resize, fleet.hand_over):
            for action in step():
                refusal = None
                if absent and (isinstance(action, Cancel) or (isinstance(action, Launch) and name in frozen)):
                    refusal = Reason("mass-absence", f"{name}: held back until it is clear what runs")
                elif isinstance(action, Launch):
                    refusal = budget.refuses(action)
                if refusal is None:
                    actions.append(action)
                else:
                    waiting.append(refusal)
        alarms += fleet.alarms()
        waiting += fleet.waiting
    alarms += _cluster_alarms(budget, memory.submits_per_hour, absent)
    return Plan(tuple(actions), tuple(alarms), tuple(waiting))


def _cluster_alarms(budget: Budget, per_hour: int, absent: frozenset[str]) -> Iterator[Alarm]:
    for subject in sorted(budget.exhausted):
        yield Alarm(
            "submits-exhausted",
            Severity.CRITICAL,
            subject,
            f"too many submits in the last hour (submits_per_hour = {per_hour}): no more until some are older",
        )
    if absent:
        yield Alarm(
            "mass-absence",
            Severity.CRITICAL,
            "slurm",
            f"{len(absent)} of our jobs are gone from Slurm's answer at once, without a word: nothing is"
            " cancelled or resubmitted for them until their agents are silent, too",
        )


class _Fleet:
    """One service's live instances, and the rules on them."""

    def __init__(self, name: str, desired: Desired, memory: Memory, now: float) -> None:
        self.name = name
        self.service: Service | None = desired.services.get(name)
        self.poll_s = desired.poll_interval_s
        self.now = now
        self.statuses = memory.statuses
        self.all = list(memory.instances.values())
        self.live = sorted(
            (i for i in self.all if i.service == name and i.live), key=lambda i: (i.created_at, i.id)
        )
        self.by_id = {i.id: i for i in self.live}
        heirs = sorted((i for i in self.live if i.replaces and i.drain is None), key=_spare_first)
        self.replacement = {i.replaces: i for i in heirs}
        """The best one of each, where a late twin makes them more."""
        self.twins = [i for i in heirs if i is not self.replacement[i.replaces] and self._predecessor(i)]
        self.ready_left = len(self.ready())
        self.waiting: list[Reason] = []
        self.withdrawn: set[str] = set()

    @property
    def wanted(self) -> int:
        return self.service.replicas if self.service else 0

    def timing(self, instance: Instance) -> Timing:
        return self.service.timing if self.service else instance.timing

    def heads(self) -> list[Instance]:
        """One for each filled slot: not draining, and not the replacement of one that still has it."""
        return [i for i in self.live if i.drain is None and self._predecessor(i) is None]

    def _predecessor(self, instance: Instance) -> Instance | None:
        """Who still has the slot; one that was requeued and waits has lost it."""
        old = self.by_id.get(instance.replaces)
        return old if old is not None and old.drain is None and old.node else None

    def ready(self) -> list[Instance]:
        return [i for i in self.live if i.state is State.READY]

    # -- rules

    def serve_again(self) -> Iterator[Action]:
        """Withdraw a drain for a replacement that is not ready any more."""
        if self.service is None:
            return
        missing = self.wanted - len(self.heads())
        for old in self.live:
            if not self._may_serve_again(old):
                continue
            heir = self.replacement.get(old.id)
            if heir is None:
                if missing <= 0:
                    continue
                missing -= 1
            elif heir.state is State.READY:
                continue
            self.withdrawn.add(old.id)
            yield WithdrawDrain(
                old.id,
                Reason(
                    "replacement-lost",
                    "its replacement is not ready any more, and it may still admit requests",
                ),
            )

    def _may_serve_again(self, instance: Instance) -> bool:
        return (
            instance.drain is not None
            and instance.drain.kind is DrainKind.HANDOVER
            and instance.cancel_sent_at is None
            and instance.state is State.DRAINING
            and instance.served
            and instance.end_time is not None
            and self.now < timeline.admit_until(instance.end_time, self.timing(instance))
        )

    def end_drains(self) -> Iterator[Action]:
        """Cancel what has drained, or has had its time."""
        for instance in self.live:
            if instance.drain is None or instance.id in self.withdrawn:
                continue
            if instance.cancel_sent_at is not None and self.now - instance.cancel_sent_at < CANCEL_AGAIN_S:
                continue
            reason = self._drain_is_over(instance)
            if reason is not None:
                yield Cancel(instance.id, reason)

    def _drain_is_over(self, instance: Instance) -> Reason | None:
        drain = instance.drain
        assert drain is not None
        if instance.node == "" and instance.state is not State.LOST:
            return Reason("never-started", "its job has not started, so nothing is connected")
        status = self.statuses.get(instance.id)
        if (
            status is not None
            and fresh(status, self.now)
            and status.seen_at > drain.started_at
            and status.draining
            and status.open_connections == 0
        ):
            return Reason("drained", "its agent reports no open connection")
        rule, deadline = self._drain_ends(instance, drain)
        if self.now < deadline:
            return None
        open_now = "unknown"
        if status is not None and fresh(status, self.now) and status.open_connections is not None:
            open_now = str(status.open_connections)
        return Reason(
            rule,
            f"its time to drain is over; open connections: {open_now}",
            (("deadline", deadline), ("open_connections", open_now)),
        )

    def _drain_ends(self, instance: Instance, drain: Drain) -> tuple[str, float]:
        """Up to when open streams may run: the rule's name, and the time."""
        timing = self.timing(instance)
        last_cut = float("inf") if instance.end_time is None else timeline.last_cut(instance.end_time, timing)
        by_order = drain.started_at + timing.drain_deadline_s
        if drain.kind is DrainKind.HANDOVER or last_cut <= by_order:
            return "last-cut", last_cut
        return "drain-deadline", by_order

    def resize(self) -> Iterator[Action]:
        """As many filled slots as wanted, each with one replacement at most: launch, or drain the surplus."""
        for twin in filter(self._can_spare, self.twins):
            yield StartDrain(
                twin.id, DrainKind.SURPLUS, Reason("twin", f"{twin.replaces} has another replacement")
            )
        heads = self.heads()
        filled = len(heads) + sum(1 for name in self.withdrawn if name not in self.replacement)
        missing = self.wanted - filled
        if missing > 0 and self.service is not None:
            for _ in range(missing):
                yield Launch(
                    self.name,
                    self.service.launch,
                    self.service.launch.revision,
                    Reason(
                        "too-few",
                        f"{filled} of {self.wanted} replicas are there or on their way",
                        (("have", filled), ("wanted", self.wanted)),
                    ),
                )
        elif missing < 0:
            yield from self._shrink(heads, -missing)

    def _shrink(self, heads: list[Instance], surplus: int) -> Iterator[Action]:
        kind = DrainKind.SURPLUS if self.service else DrainKind.REMOVAL
        text = (
            f"{len(heads)} replicas where {self.wanted} are wanted"
            if self.service
            else "the service was removed from the configuration"
        )
        reason = Reason("too-many", text, (("have", len(heads)), ("wanted", self.wanted)))
        for victim in sorted(heads, key=_spare_first)[:surplus]:
            heir = self.replacement.get(victim.id)
            leaving = [heir, victim] if heir and self._predecessor(heir) else [victim]
            if all(self._can_spare(i) for i in leaving):
                yield from (StartDrain(i.id, kind, reason) for i in leaving)

    def _can_spare(self, victim: Instance) -> bool:
        """Whether enough stay ready when this one leaves (promise 10); if so it counts as gone."""
        if victim.state is not State.READY or self.service is None:
            return True
        keep = min(self.service.min_available, self.wanted)
        if self.ready_left - 1 < keep:
            self.waiting.append(
                Reason("min-available", f"{short_id(victim.id)} stays until {keep} others are ready")
            )
            return False
        self.ready_left -= 1
        return True

    def hand_over(self) -> Iterator[Action]:
        """Replace what nears its end, and drain it once its replacement has proven itself."""
        if self.service is None:
            return
        spare = len(self.heads()) - self.wanted
        timing = self.service.timing
        for old in sorted(self.heads(), key=_spare_first)[max(0, spare) :]:
            if old.end_time is None or old.node == "":
                continue
            heir = self.replacement.get(old.id)
            if heir is None:
                submit_by = timeline.submit_by(old.end_time, timing, timing.lead_floor_s, self.poll_s)
                if self.now >= submit_by:
                    yield Launch(
                        self.name,
                        self.service.launch,
                        self.service.launch.revision,
                        Reason(
                            "replace-before-end",
                            f"{short_id(old.id)} ends in {old.end_time - self.now:.0f} s",
                            (("end", old.end_time), ("submit_by", submit_by)),
                        ),
                        replaces=old.id,
                    )
            yield from self._drain_for(old, old.end_time, heir, timing)

    def _drain_for(
        self, old: Instance, end: float, heir: Instance | None, timing: Timing
    ) -> Iterator[Action]:
        over = self.now >= timeline.admit_until(end, timing)
        if (
            heir is not None
            and heir.state is State.READY
            and heir.ready_since is not None
            and self.now - heir.ready_since >= timing.min_ready_s
            and (over or self._can_spare(old))
        ):
            yield StartDrain(
                old.id,
                DrainKind.HANDOVER,
                Reason(
                    "replacement-ready",
                    f"{short_id(heir.id)} has been ready for {self.now - heir.ready_since:.1f} s",
                    (("min_ready", timing.min_ready_s),),
                ),
            )
        elif over:
            yield StartDrain(
                old.id,
                DrainKind.HANDOVER,
                Reason("admission-over", "no new request may start before its end, replacement or not"),
            )

    # -- worries

    def alarms(self) -> Iterator[Alarm]:
        ready = len(self.ready())
        if self.service and self.wanted > 0 and ready == 0:
            yield Alarm("service-down", Severity.CRITICAL, self.name, "no instance is ready")
        elif self.service and ready < min(self.wanted, self.service.min_available):
            yield Alarm(
                "below-min-available",
                Severity.CRITICAL,
                self.name,
                f"{ready} ready, min_available is {self.service.min_available}",
            )
        elif ready < self.wanted:
            yield Alarm(
                "service-degraded", Severity.WARNING, self.name, f"{ready} of {self.wanted} replicas ready"
            )
        for instance in self.live:
            limit = STATE_DEADLINE_S.get(instance.state)
            if limit is not None and self.now - instance.state_since > limit:
                yield Alarm(
                    "state-overdue",
                    Severity.WARNING,
                    instance.id,
                    f"{instance.state} for longer than {limit:.0f} s",
                )
            if (
                instance.drain is not None
                and self.now > DRAIN_OVERDUE_S + self._drain_ends(instance, instance.drain)[1]
            ):
                yield Alarm(
                    "drain-overdue", Severity.WARNING, instance.id, "its job should have ended by now"
                )
            if self._replacement_late(instance):
                yield Alarm(
                    "replacement-late",
                    Severity.CRITICAL,
                    instance.id,
                    "its replacement is not ready and its time to drain has begun",
                )
        resume_at = backoff_until(self.name, self.all)
        if self.service and self.now < resume_at and self.wanted > len(self.heads()):
            yield Alarm(
                "crash-loop",
                Severity.CRITICAL,
                self.name,
                f"its last instances failed; launches are slowed; the last one: {self._last_outcome()}",
            )

    def _last_outcome(self) -> str:
        failed = [i for i in self.all if i.service == self.name and i.ended_at is not None]
        return max(failed, key=lambda i: i.ended_at or 0.0).outcome if failed else "unknown"

    def _replacement_late(self, old: Instance) -> bool:
        if self.service is None or old.drain is not None or old.end_time is None or old.node == "":
            return False
        heir = self.replacement.get(old.id)
        late = self.now >= timeline.drain_by(old.end_time, self.service.timing)
        return late and (heir is None or heir.state is not State.READY)


def _spare_first(instance: Instance) -> tuple[int, float]:
    """Which to give up first: not yet started, then starting, unready, and last the ready; oldest end first."""
    if instance.state in COMING:
        rank = 0 if instance.state is not State.STARTING else 1
    else:
        rank = 2 if instance.state is not State.READY else 3
    return rank, instance.end_time or 0.0
