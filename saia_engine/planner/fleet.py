"""One service's instances and the questions that the rules ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saia_engine.model import (
    COMING,
    AgentStatus,
    Instance,
    Launch,
    Reason,
    Revision,
    Service,
    State,
    Timing,
    short_id,
)
from saia_engine.planner import timeline, walltime
from saia_engine.planner.foresight import Outlook
from saia_engine.planner.lead import LONGEST_SHARE, Lead, within
from saia_engine.planner.moment import Moment

LISTEN_S = 60.0
"""So long an engine that has just started listens to an agent before its silence counts against it."""


class Fleet:
    """Live instances of one service, and those that ended of late; what a rule grants counts for the next."""

    def __init__(
        self,
        name: str,
        service: Service | None,
        instances: Sequence[Instance],
        *,
        statuses: Mapping[str, AgentStatus],
        listening: Mapping[str, float],
        lead: Lead,
        outlook: Outlook,
        revisions: Sequence[Revision],
        poll_s: float,
        began_at: float,
        moment: Moment,
    ) -> None:
        self.name = name
        self.service = service
        """None: removed from the configuration."""
        self.revision = service.launch.revision if service else ""
        """The one that is asked for."""
        self.statuses = statuses
        self.listening = listening
        self.lead = lead
        self.outlook = outlook
        self.revisions = revisions
        self.poll_s = poll_s
        self.began_at = began_at
        self.reached, self.passed = moment.reached, moment.passed
        self.now = moment.now
        self.all = instances
        self.waiting: list[Reason] = []
        self.withdrawn: set[str] = set()
        self.leaving: set[str] = set()
        """Whom an earlier rule of this plan drains."""
        self._reassigned: dict[str, str] = {}
        """By instance: whom it replaces from this plan on."""
        self.going_back = False
        """An earlier rule of this plan reverts the rollout: what is asked for now, is not for long."""
        self._planned_ends: list[float] = []
        self.live = sorted((i for i in instances if i.live), key=lambda i: (i.created_at, i.id))
        self.by_id = {i.id: i for i in self.live}
        heirs = sorted((i for i in self.live if i.drain is None and self._replaces(i)), key=self.spare_first)
        self.replacement = {i.replaces: i for i in heirs}
        """The best one of each, where a late twin makes them more."""
        self.twins = [i for i in heirs if i is not self.replacement[i.replaces] and self.predecessor(i)]
        self.ready_left = sum(1 for i in self.ready() if not self.admission_over(i))
        """Who leaves anyway is no one to count on."""

    @property
    def wanted(self) -> int:
        return self.service.replicas if self.service else 0

    def timing(self, instance: Instance) -> Timing:
        return self.service.timing if self.service else instance.timing

    def heads(self) -> list[Instance]:
        """One for each filled slot: not draining, and not the replacement of one that still has it."""
        return [
            i
            for i in self.live
            if i.drain is None and i.id not in self.leaving and self.predecessor(i) is None
        ]

    def missing(self) -> int:
        """How many slots are empty; negative where there are more than are wanted."""
        return self.wanted - len(self.heads()) - sum(1 for name in self.withdrawn if self._alone(name))

    def _alone(self, withdrawn: str) -> bool:
        """Whether no replacement counts for its slot."""
        heir = self.replacement.get(withdrawn)
        return heir is None or heir.id in self.leaving

    def surplus(self) -> tuple[list[Instance], int]:
        """Heads in the order in which to give them up, and how many are too many."""
        # One that Slurm does not show may be gone: for its sake none that runs is given up.
        shown = [i for i in self.heads() if i.state is not State.LOST]
        return sorted(shown, key=self.spare_first), max(0, len(shown) - self.wanted)

    def heir(self, old: Instance) -> Instance | None:
        """Who replaces it while it still has the slot."""
        heir = self.replacement.get(old.id)
        stays = heir is not None and heir.id not in self.leaving and self.predecessor(heir) is old
        return heir if stays else None

    def predecessor(self, instance: Instance) -> Instance | None:
        """Who still has the slot; one that was requeued and waits has lost it."""
        old = self.by_id.get(self._replaces(instance))
        if old is None or old.drain is not None or old.id in self.leaving or not old.node:
            return None
        return old

    def _replaces(self, instance: Instance) -> str:
        """Id of whom it replaces. Who was requeued meanwhile has lost the slot to it, and fills another."""
        replaced = self._reassigned.get(instance.id, instance.replaces)
        old = self.by_id.get(replaced)
        return "" if old is not None and self._lost_its_slot_to(instance, old) else replaced

    def _lost_its_slot_to(self, instance: Instance, old: Instance) -> bool:
        return bool(old.generation) and old.submit_time > instance.created_at

    def can_take_over(self, instance: Instance, old: Instance) -> bool:
        return instance.created_at > old.created_at and not self._lost_its_slot_to(instance, old)

    def reassign(self, heir: Instance, old: Instance | None = None) -> None:
        """From now on it replaces this one, or nobody."""
        self._reassigned[heir.id] = old.id if old else ""
        self.replacement = {name: i for name, i in self.replacement.items() if i is not heir}
        if old is not None:
            self.replacement[old.id] = heir
        self.twins = [i for i in self.twins if i is not heir]

    def ready(self) -> list[Instance]:
        return [i for i in self.live if i.state is State.READY]

    def admission_over(self, instance: Instance) -> bool:
        """Whether it drains now, replacement or not."""
        end = instance.end_time
        return end is not None and self.reached(timeline.admit_until(end, self.timing(instance)))

    def proven(self, instance: Instance | None) -> bool:
        """Whether it has been ready for `min_ready`, without a break (promise 11)."""
        return (
            instance is not None
            and instance.id not in self.leaving
            and instance.state is State.READY
            and instance.ready_since is not None
            and self.reached(instance.ready_since + self.timing(instance).min_ready_s)
        )

    def spare_first(self, instance: Instance) -> tuple[int, float]:
        """Which to give up first: never shown by Slurm, not started, starting, unready, not proven; last the ready,
        oldest end first."""
        if not instance.job_id:
            rank = 0
        elif instance.state is State.STARTING:
            rank = 2
        elif instance.state in COMING:
            rank = 1
        elif instance.state is not State.READY:
            rank = 3
        else:
            rank = 5 if self.proven(instance) else 4
        return rank, instance.end_time or 0.0

    def heard_out(self, instance: Instance) -> bool:
        """Whether its agent has had time to speak since the engine began to listen (promise 15)."""
        since = self.listening.get(instance.id)
        return since is not None and self.passed(since + LISTEN_S)

    def due(self, old: Instance) -> Reason | None:
        """Why its replacement must be submitted now; None while there is time."""
        if old.node == "" or self.service is None:
            return None
        leaves_by = self.outlook.leaves_by(old)
        if leaves_by is None:
            return self.outlook.why_leave(old)
        submit_by = self._submit_by(old, leaves_by, self.service)
        if not self.reached(submit_by):
            return self.outlook.why_leave(old)
        window = self.outlook.maintenance_of(old) if leaves_by != old.end_time else None
        what = f"must leave before the maintenance {window.name}" if window else "ends"
        return Reason(
            "replace-before-maintenance" if window else "replace-before-end",
            f"{short_id(old.id)} {what} in {leaves_by - self.now:.0f} s",
            (
                ("leaves_by", leaves_by),
                ("submit_by", submit_by),
                ("lead", self.lead.seconds),
                ("lead_because", self.lead.because),
            ),
            (("wait for the next poll", "the lead would no longer fit before it must drain"),),
        )

    def _submit_by(self, old: Instance, leaves_by: float, service: Service) -> float:
        """By the timeline; where its time limit has no room for that, it still serves for a while first."""
        timing, limit_s = service.timing, old.spec.time_limit_s
        lead_s = within(self.lead.seconds, timing, limit_s, self.poll_s)
        submit_by = timeline.submit_by(leaves_by, timing, lead_s, self.poll_s)
        if limit_s <= timeline.shortest_time_limit(timing, self.poll_s):
            started_at = max(old.started_at or 0.0, old.created_at)
            submit_by = max(submit_by, started_at + (1 - LONGEST_SHARE) * limit_s)
        return submit_by

    def can_spare(self, victim: Instance) -> bool:
        """Whether enough stay ready when this one leaves (promise 10); if so it counts as gone."""
        if victim.state is not State.READY or self.service is None or self.admission_over(victim):
            return True
        keep = min(self.service.min_available, self.wanted)
        if self.ready_left - 1 < keep:
            self.waiting.append(
                Reason(
                    "min-available",
                    f"{short_id(victim.id)} stays until {keep} others are ready",
                    (("ready", self.ready_left), ("min_available", keep)),
                )
            )
            return False
        self.ready_left -= 1
        return True

    def launch(self, reason: Reason, replaces: str = "") -> Launch:
        """With the time limit and the nodes that suit this moment."""
        assert self.service is not None
        fitted = walltime.fit(
            self.service, self.lead, self._sisters_end(replaces), self.outlook, self.poll_s, self.now
        )
        self._planned_ends.append(self.now + self.lead.queue_s + fitted.spec.time_limit_s)
        limit = ("time_limit", fitted.spec.time_limit_s)
        refused = (*reason.refused, *((f"a time limit of {what}", why) for what, why in fitted.because))
        reason = Reason(reason.rule, reason.text, (*reason.inputs, limit), refused)
        return Launch(self.name, fitted.spec, self.revision, reason, replaces)

    def _sisters_end(self, replaced: str) -> list[float]:
        """When the others are expected to end, whoever has not started included."""
        expected = self.now + self.lead.queue_s
        return [
            i.end_time if i.end_time is not None else max(expected, i.created_at) + i.spec.time_limit_s
            for i in self.live
            if i.drain is None and i.id != replaced and i.id not in self.leaving
        ] + self._planned_ends
