"""Observe, plan, intend, act, record: the one place where decisions become acts.

`poll` asks Slurm; `react` takes in what agents said since. Both end in a plan that is acted upon. Every act is
durable in the journal before it happens, and reads the lease first.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from saia_engine import traces
from saia_engine.alarms import Alarms
from saia_engine.belief import Belief
from saia_engine.clock import SteadyClock
from saia_engine.edge.logs import get_logger
from saia_engine.instance_dirs import Directories
from saia_engine.learning import Learning
from saia_engine.lease import Lease, LeaseLost, LeaseUnreadable
from saia_engine.model import (
    QUARANTINE,
    TOKEN_PREFIX,
    Action,
    AgentStatus,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Exclude,
    Exclusion,
    Instance,
    Launch,
    Node,
    Override,
    Pause,
    Pin,
    Plan,
    Quarantine,
    Reason,
    Reassign,
    Revert,
    Revision,
    Service,
    Settle,
    Severity,
    Snapshot,
    StartDrain,
    State,
    WithdrawDrain,
    instance_id,
    parse_token,
)
from saia_engine.offload import Offload, in_thread
from saia_engine.planner import decide, lifecycle
from saia_engine.planner.lead import Lead
from saia_engine.planner.moment import Moment
from saia_engine.probes import Ears, Target
from saia_engine.slurm.port import Slurm, SlurmError, SlurmUnavailable, SubmitRejected, SubmitUnknown
from saia_engine.store import Event, Store
from saia_engine.wishes import SpecFiles, Wishes, WishRefused

REMEMBER_ENDED_S = 3600.0
RETAIN_S = 7 * 86400.0
"""Journal records and directories of ended instances are kept so long."""
NONCE_BYTES = 4
EXPLAINED = frozenset({State.SUBMITTED, State.DRAINING})
"""States that an act's own event tells of."""
STALE_POLLS = 2
"""Between polls, plans are made on the last good snapshot while it is younger than so many polls."""

log = get_logger("reconciler")


def fresh_nonce() -> str:
    """The last part of a new instance's id."""
    return secrets.token_hex(NONCE_BYTES)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose jobs are ours: all four must match (promise 2)."""

    installation: str
    cluster: str
    user: str


class Reconciler:
    """Owns the records of all instances. Its methods run on one event loop, `poll` and `react` one after the other."""

    def __init__(
        self,
        *,
        identity: Identity,
        services: Mapping[str, Service],
        poll_interval_s: float,
        submits_per_hour: int,
        quarantine: Quarantine = QUARANTINE,
        slurm: Slurm,
        store: Store,
        specs: SpecFiles,
        lease: Lease,
        dirs: Directories,
        probes: Ears,
        clock: SteadyClock,
        routed: Callable[[], Mapping[str, str]] = dict,
        on_event: Callable[[Event], None] = lambda event: None,
        nonce: Callable[[], str] = fresh_nonce,
        offload: Offload = in_thread,
    ) -> None:
        now = clock.now
        self._began_at = now()
        """What was written down before is an earlier engine's, or of a wrong clock."""
        self.identity = identity
        self.instances = _remembered(store, now())
        self.wishes = Wishes(store, specs, services, poll_interval_s, now)
        self.learning = Learning(store, now, poll_interval_s)
        self.snapshot: Snapshot | None = None
        self._nodes: dict[str, Node] = {}
        """Of the snapshot, by name."""
        self._cluster: object = None
        """What the planner sees of the snapshot."""
        self.slurm_fault = ""
        self._belief = Belief(clock, store, poll_interval_s)
        self._traces_taken = False
        """What directories tell of, and the journal did not know, is among the instances."""
        self._routed = routed
        """Addresses by instance, of the routes that stand: they count until Slurm has told them."""
        self._heard_from = 0.0
        """No plan before: what was just adopted, or runs from before this engine's start, may serve or not, and its
        agent has not had its time to say so."""
        self.alarms = Alarms(now, self._record)
        self.last_plan = Plan()
        self._planned_on: object = None
        """What the last plan was made of."""
        self._kept = 0
        """Changes of records so far."""
        self._poll_interval_s = poll_interval_s
        self._submits_per_hour = submits_per_hour
        self._quarantine = quarantine
        self._slurm = slurm
        self._store = store
        self._lease = lease
        self._dirs = dirs
        self._probes = probes
        self._now = now
        self._clock = clock
        self._on_event = on_event
        self._nonce = nonce
        self._offload = offload
        self._busy = asyncio.Lock()

    # -- what is desired

    @property
    def desired(self) -> Desired:
        """The config file with all that operators put on top of it."""
        return self.wishes.desired

    def configured(self, service: str) -> Service | None:
        """As the file says."""
        return self.wishes.configured(service)

    @property
    def overrides(self) -> Mapping[str, Override]:
        return self.wishes.overrides

    @property
    def pauses(self) -> Mapping[str, Pause]:
        return self.wishes.pauses

    @property
    def pins(self) -> Mapping[str, Pin]:
        return self.wishes.pins

    @property
    def revisions(self) -> Mapping[str, tuple[Revision, ...]]:
        return self.wishes.revisions

    @property
    def exclusions(self) -> Mapping[str, Exclusion]:
        return self.wishes.exclusions

    def configure(
        self,
        services: Mapping[str, Service],
        submits_per_hour: int,
        quarantine: Quarantine = QUARANTINE,
    ) -> None:
        """A changed configuration file; the next plan follows it. Raises JournalError."""
        self._submits_per_hour = submits_per_hour
        self._quarantine = quarantine
        self.wishes.configure(services)
        self._clear_obsolete_pins()

    def _clear_obsolete_pins(self) -> None:
        for pin in self.wishes.clear_obsolete_pins():
            text = f"the configuration asks for something else than {pin.instead_of}"
            self._record("pin-cleared", Severity.INFO, pin.service, text)

    # -- the loop's two steps

    async def poll(self) -> None:
        """Ask Slurm once, then plan and act. A bad answer changes nothing (promise 6).

        Raises JournalError and LeaseLost, which end all acting.
        """
        async with self._busy:
            await self._notice_successor()
            if self.snapshot is None:
                self._watch()  # who has traffic is heard, also while Slurm is silent
            began = self._now()
            try:
                # Our clock, not Slurm's: a jump of the wall clock must not age the answer (promise 14).
                snapshot = replace(await self._slurm.observe(), taken_at=began)
                if self._belief.our_clock_is_wrong(snapshot):
                    snapshot = replace(snapshot, taken_at=snapshot.taken_at + self._correct_clock())
                self._belief.doubt_restart(snapshot)
                await self._take_in_traces(snapshot)
            except SlurmUnavailable as exc:
                self.slurm_fault = str(exc)
                self.alarms.worry("slurm-unavailable", "slurm", str(exc), Severity.CRITICAL)
                self._fold_statuses()
                return
            self.slurm_fault = ""
            self.alarms.calm("slurm-unavailable", "slurm")
            if self.snapshot is None and any(i.live and i.node for i in self.instances.values()):
                self._begin_to_hear()
            self.snapshot = snapshot
            self._nodes = snapshot.node_by_name
            self._cluster = decide.what_matters(snapshot)
            await self._fold_snapshot(snapshot)
            self._watch()
            await self._advance()

    def _begin_to_hear(self) -> None:
        # From now, not from the answer's time: a slow one may have taken as long.
        self._heard_from = self._now() + lifecycle.STATUS_FRESH_S

    async def _notice_successor(self) -> None:
        """Also with nothing to do: a second engine's agents must not hear two minds. Raises LeaseLost."""
        try:
            await self._check_lease()
        except LeaseUnreadable:
            pass  # who has something to do finds out
        except LeaseLost:
            self._probes.watch(())
            raise

    def _note_revisions(self) -> None:
        self._clear_obsolete_pins()  # the file may have changed while no engine ran
        for revision in self.wishes.note_revisions():
            again = " again" if revision.good_at else ""
            self._record(
                "revision", Severity.INFO, revision.service, f"{revision.revision} is asked for{again}"
            )
        if self.wishes.fault:
            self.alarms.worry("revision-not-kept", "engine", self.wishes.fault)
        else:
            self.alarms.calm("revision-not-kept", "engine")
        pins = [pin for pin in self.wishes.pins.values() if pin.service in self.desired.services]
        for pin in pins:
            who = "by itself" if pin.uid is None else f"by uid {pin.uid}"
            text = f"runs {pin.revision} instead of {pin.instead_of}, {who}: {pin.because}"
            if self.desired.services[pin.service].launch.revision != pin.revision:
                text = f"should run {pin.revision} instead of {pin.instead_of}, {who}, but cannot any more"
            self.alarms.worry("rolled-back", pin.service, text)
        self.alarms.calm_all_but("rolled-back", {pin.service for pin in pins})

    async def _take_in_traces(self, snapshot: Snapshot) -> None:
        """At the first answer that is believed. Raises SlurmUnavailable."""
        if self._traces_taken:
            return
        try:
            unfinished = await self._offload(self._dirs.unfinished)
        except OSError as exc:
            raise SlurmUnavailable(f"which instances ran before cannot be told yet: {exc}") from exc
        ours = (name for name in unfinished if self._ours(f"{TOKEN_PREFIX}.{name}"))
        unknown = [name for name in ours if self._store.instance(name) is None]
        known = [i for i in self.instances.values() if i.live]
        for instance, told in await self._offload(self._told_by_directories, unknown, known, snapshot):
            text = f"{told} and Slurm does not show it: it counts until it is clear whether it runs"
            self._record("trace", Severity.WARNING, instance.id, text)
            self._keep(instance)
        self._traces_taken = True

    def _told_by_directories(
        self, unknown: list[str], known: list[Instance], snapshot: Snapshot
    ) -> list[tuple[Instance, str]]:
        user = self.identity.user
        new = traces.open_cases(self._dirs, unknown, snapshot, user)
        later = traces.later_runs(self._dirs, known, snapshot, user)
        return [
            *(
                (instance, "there is a directory of it, but this journal has nothing of it")
                for instance in new
            ),
            *((instance, "its directory tells of a later run than this journal") for instance in later),
        ]

    def _ours(self, job_name: str) -> bool:
        token = parse_token(job_name)
        return token is not None and token[:2] == (self.identity.installation, self.identity.cluster)

    def _correct_clock(self) -> float:
        """Begin anew, as an engine that starts now; returns by how many seconds the clock was wrong."""
        right_until = self.snapshot.taken_at if self.snapshot else float("inf")
        moved_s = self._clock.follow_wall()
        now = self._now()
        self._record(
            "clock-corrected",
            Severity.WARNING,
            "engine",
            f"moved by {moved_s:+.0f} s: this host's clock was wrong when the engine started, or the host stood"
            " still; it agrees with Slurm's controller's now",
        )
        self.instances = _remembered(self._store, now)
        for instance in list(self.instances.values()):
            self._keep(lifecycle.dated_anew(instance, min(right_until, now), now))
        self.learning = Learning(self._store, self._now, self._poll_interval_s)
        self._probes.watch(())  # what agents said has a wrong time, too
        self.snapshot, self._planned_on, self._heard_from = None, None, 0.0
        self._began_at = now
        self._belief.begin_anew()
        self._traces_taken = False
        return moved_s

    @property
    def busy(self) -> bool:
        """Whether a poll or its acts are under way, or those of a reaction."""
        return self._busy.locked()

    async def hear(self) -> None:
        """Take in the agents' newest words while it is busy."""
        self._fold_statuses()

    async def react(self) -> None:
        """Take in the agents' newest words, and act on them where Slurm's last word is young enough."""
        async with self._busy:
            await self._advance()

    async def take_in(self, snapshot: Snapshot) -> None:
        """Fold one good answer into the records, and adopt what they lack, without a plan: for a lost journal."""
        async with self._busy:
            self.snapshot = snapshot
            await self._fold_snapshot(snapshot)

    def preview(self) -> Plan:
        """What it would do now. Changes nothing."""
        return decide.plan(self.desired, self._memory(), self._now())

    @property
    def settled(self) -> bool:
        """Slurm has answered, and whoever runs has had its time to say so: before, neither plan nor routes change."""
        return self.snapshot is not None and self._now() >= self._heard_from

    async def _advance(self) -> None:
        self._fold_statuses()
        snapshot = self.snapshot
        if snapshot is None or self.slurm_fault:
            return
        if self._now() - snapshot.taken_at > STALE_POLLS * self._poll_interval_s:
            return
        if not self.settled:
            return
        self._note_revisions()
        known = self._known()
        if self._now() < self.last_plan.again_at and known == self._planned_on:
            return
        plan = self.last_plan = self.preview()
        # Not after acts: what becomes of them is planned for at once.
        self._planned_on = None if plan.actions else known
        self.alarms.plan(plan.alarms)  # first: an act may fail, or hang
        unready = {name for name, i in self.instances.items() if i.state is not State.READY}
        for action in plan.actions:
            await self._check_lease()
            if self._is_ready_by_now(action, unready):
                break  # what follows was planned without it
            await self._act(action)
        self._watch()
        if plan.actions:
            self._fold_statuses()  # who serves again is ready at once where its agent has said so

    # -- observing

    async def _fold_snapshot(self, snapshot: Snapshot) -> None:
        ours = (job for job in snapshot.jobs if job.user == self.identity.user)
        # Of two with one name the one that has not ended counts.
        jobs_by_name = {job.name: job for job in sorted(ours, key=lambda job: not job.ended)}
        for instance in [i for i in self.instances.values() if i.live]:
            job = jobs_by_name.get(instance.job_name)
            if job is not None and instance.job_id and job.id != instance.job_id:
                job = lifecycle.job_of(instance, snapshot, self.identity.user)
            gone = job is None or job.ended
            exited = ""
            if gone and instance.job_id:
                exited = await self._offload(self._dirs.exit_sentence, instance.id, instance.generation)
            folded = lifecycle.fold_job(
                self.instances[instance.id],
                job,
                taken_at=snapshot.taken_at,
                poll_s=self._poll_interval_s,
                exited=exited,
                alive=lifecycle.fresh(self._probes.statuses.get(instance.id), self._now()),
            )
            if folded.state is State.FAILED and folded.started_at is not None:
                folded = replace(folded, log_tail=await self._offload(self._dirs.log_tail, folded.id))
            self._keep(folded)
        await self._adopt_or_end_strangers(snapshot)

    async def _adopt_or_end_strangers(self, snapshot: Snapshot) -> None:
        """Live jobs with our token that no live record claims: late twins, or a lost journal's."""
        unknown: set[str] = set()
        for job in snapshot.jobs:
            if job.user != self.identity.user or job.ended or job.state == "COMPLETING":
                continue
            token = parse_token(job.name)
            if token is None or token[:2] != (self.identity.installation, self.identity.cluster):
                continue
            name = instance_id(*token)
            known = self.instances.get(name)
            if known is not None and known.job_id not in (0, job.id):
                await self._cancel_job(job.id, job.name, name, "a twin of an instance that has its job")
                continue
            if known is not None and known.live:
                continue
            record = known or await self._offload(self._dirs.recorded, name)
            if record is None or (record.id, record.service) != (name, token[2]):
                unknown.add(str(job.id))
                self.alarms.worry(
                    "unknown-job",
                    str(job.id),
                    f"job {job.id} has our token {job.name}, but neither journal nor directory know it:"
                    " left alone; cancel it by hand if it is not wanted",
                )
                continue
            adopted = lifecycle.fold_job(
                replace(lifecycle.revived(record, snapshot.taken_at), job_id=job.id),
                job,
                taken_at=snapshot.taken_at,
                poll_s=self._poll_interval_s,
            )
            was = "is live, though its instance had ended" if known else "was running, but not in the journal"
            self._record("adopted", Severity.WARNING, name, f"job {job.id} {was}")
            self._begin_to_hear()
            self._keep(adopted)
        self.alarms.calm_all_but("unknown-job", unknown)

    def _fold_statuses(self) -> None:
        if self.snapshot is None:
            return  # whether the clock is right, Slurm has not told yet
        now = self._now()
        for name, instance in [(i.id, i) for i in self.instances.values() if i.live]:
            status = self._probes.statuses.get(name)
            self._keep(lifecycle.fold_status(instance, status, now, self._probes.listening_since.get(name)))
        faulty = set()
        for name, fault in self._probes.faults.items():
            instance = self.instances.get(name)
            if fault and instance is not None and instance.live and instance.cancel_sent_at is None:
                faulty.add(name)
                self.alarms.worry("agent-fault", name, fault)
        self.alarms.calm_all_but("agent-fault", faulty)

    def _watch(self) -> None:
        """Tell the probes whom to follow: each instance that Slurm has started."""
        routed = self._routed()
        self._probes.watch(
            Target(
                instance=i.id,
                generation=i.generation,
                address=self.address(i),
                node_names=(i.node,),
                readiness=i.spec.readiness_probe,
                drain=i.drain is not None and not lifecycle.never_told(i, self._began_at),
            )
            for i in self.instances.values()
            if i.live and i.node and (self.snapshot is not None or i.id in routed)
        )

    def address(self, instance: Instance) -> str:
        """Where Slurm says, or said to the last engine, that the instance's job can be reached."""
        if self.snapshot is None:
            return self._routed().get(instance.id, "")
        node = self._nodes.get(instance.node)
        return (node.address if node else "") or instance.node

    def _memory(self) -> decide.Memory:
        desired = self.desired.services
        return decide.Memory(
            self.instances,
            self._probes.statuses,
            self._submits_per_hour,
            self.snapshot,
            self.learning.learned(desired),
            self.wishes.revisions,
            self.wishes.exclusions,
            self._quarantine,
            self._probes.listening_since,
            self.wishes.unfrozen_at,
            self._began_at,
        )

    def _known(self) -> object:
        """All that a plan is made of but time: while it is equal, and the last plan holds, no new one is needed."""
        return (
            self._kept,
            self.wishes.all_of_them(),
            (self._submits_per_hour, self._quarantine),
            self.learning.learned(self.desired.services),
            self._cluster,
            [self._word(i) for i in self.instances.values() if i.live and i.node],
        )

    def _word(self, instance: Instance) -> object:
        """What the planner hears in its agent's last word."""
        status = self._probes.statuses.get(instance.id)
        fresh = lifecycle.fresh(status, self._now())
        said = status is not None and (status.alive, status.served)
        heard = fresh, said, self._probes.listening_since.get(instance.id)
        if status is None or instance.drain is None:
            return heard
        drained = status.draining, status.open_connections == 0
        return (heard, status.seen_at > instance.drain.started_at, drained)

    @property
    def leads(self) -> dict[str, Lead]:
        """Each service's lead time now."""
        return decide.leads(self.desired, self._memory(), Moment(self._now()))

    @property
    def rollouts(self) -> dict[str, str]:
        """Rollouts under way, each a sentence."""
        return decide.rollouts(self.desired, self._memory())

    # -- acting

    async def _act(self, action: Action) -> None:
        if isinstance(action, Launch):
            await self._launch(action)
            return
        if isinstance(action, Exclude | Settle | Revert):
            self._act_on_wishes(action)
            return
        # An operator's word may have come between the plan and this act.
        instance = self.instances[action.instance]
        match action:
            case StartDrain() if instance.drain is None and instance.live:
                self.start_drain(instance, action.kind, action.reason)
            case WithdrawDrain() if instance.state is State.DRAINING and instance.cancel_sent_at is None:
                self._keep(lifecycle.serving_again(instance, self._now()))
                self._explain("drain-withdrawn", instance.id, action.reason)
            case Reassign() if instance.live and instance.drain is None:
                self._keep(replace(instance, replaces=action.replaces))
                self._explain("reassigned", instance.id, action.reason)
            case Cancel() if instance.live:
                await self._cancel(instance, action.reason)

    def _is_ready_by_now(self, action: Action, unready: set[str]) -> bool:
        """Who was to be drained while it was not; acts take time, and agents are heard meanwhile."""
        if not isinstance(action, StartDrain) or action.instance not in unready:
            return False
        return self.instances[action.instance].state is State.READY

    def _act_on_wishes(self, action: Exclude | Settle | Revert) -> None:
        match action:
            case Exclude():
                now = self._now()
                self.wishes.exclude(Exclusion(action.node, action.until, action.reason.text, now))
                self._explain("node-excluded", action.node, action.reason)
            case Settle():
                self.wishes.settle(action.service, action.revision)
                self._explain("rollout-done", action.service, action.reason)
            case Revert():
                pin = self.wishes.revert(action.service, action.revision, action.to, action.reason.text)
                self._explain("rollout-failed", action.service, action.reason)
                if pin is not None:
                    text = f"{pin.revision} instead of {pin.instead_of}: {pin.because}"
                    self._record("rolled-back", Severity.WARNING, action.service, text)

    async def _check_lease(self) -> None:
        # In a thread: a hanging shared file system must not stop probes and API.
        await self._offload(self._lease.check)

    def start_drain(
        self, instance: Instance, kind: DrainKind, reason: Reason, uid: int | None = None
    ) -> None:
        """Order a drain; the agent hears of it at once. Raises WishRefused."""
        self._drain(instance, Drain(kind, self._now()), reason, uid)

    def cancel_at_once(self, instance: Instance, reason: Reason, uid: int) -> None:
        """Order a drain that waits for nothing that is open; one that drains already may be told so, too.

        Raises WishRefused.
        """
        before = instance.drain or Drain(DrainKind.OPERATOR, self._now())
        # An end for illness still counts as a failure; no other drain must be withdrawn any more.
        kind = before.kind if before.kind is DrainKind.UNHEALTHY else DrainKind.OPERATOR
        self._drain(instance, replace(before, kind=kind, at_once=True), reason, uid)

    def _drain(self, instance: Instance, drain: Drain, reason: Reason, uid: int | None) -> None:
        if self.snapshot is None:
            raise WishRefused("Slurm has not answered yet: until then nothing is begun that has a deadline")
        self._keep(lifecycle.draining(replace(instance, drain=drain), self._now()))
        self._explain("drain", instance.id, reason, uid)
        self._watch()

    async def _launch(self, launch: Launch) -> None:
        service = self.wishes.configured(launch.service)
        if service is None:
            return  # a reload has just removed it
        now = self._now()
        name = instance_id(self.identity.installation, self.identity.cluster, launch.service, self._nonce())
        instance = Instance(
            id=name,
            service=launch.service,
            spec=launch.spec.redacted(),
            revision=launch.revision,
            created_at=now,
            state_since=now,
            replaces=launch.replaces,
            user=self.identity.user,
            timing=service.timing,
        )
        self._keep(instance)
        self._explain("launch", name, launch.reason)
        try:
            request = await self._offload(self._dirs.prepare, instance, launch.spec)
        except OSError as exc:
            self._keep(replace(self.instances[name], unsent=True))
            self._fail(instance, f"its directory cannot be written: {exc}")
            return
        try:
            job_id = await self._slurm.submit(request)
        except SubmitRejected as exc:
            self._fail(instance, f"Slurm refused the job: {exc}")
        except SubmitUnknown as exc:
            # It may have run: the slot stays taken until two good snapshots lack the token (promise 4).
            self._record("submit-unknown", Severity.WARNING, name, str(exc))
        else:
            # Read anew: an operator may have ordered a drain meanwhile.
            self._keep(lifecycle.submitted(self.instances[name], job_id, self._now()))
            self._record("submitted", Severity.INFO, name, f"job {job_id}")

    def _fail(self, instance: Instance, why: str) -> None:
        self._keep(lifecycle.end(self.instances[instance.id], why, self._now()))

    async def _cancel(self, instance: Instance, reason: Reason) -> None:
        # Only what Slurm's last good answer shows under our token, user, id and submit time (promise 2).
        job = lifecycle.job_of(instance, self.snapshot, self.identity.user) if self.snapshot else None
        if job is None or job.ended or job.submit_time != instance.submit_time:
            return
        self._keep(replace(instance, cancel_sent_at=self._now()))
        self._explain("cancel", instance.id, reason)
        try:
            await self._slurm.cancel(instance.job_id, instance.job_name)
        except SlurmError as exc:
            self._record("cancel-failed", Severity.WARNING, instance.id, str(exc))

    async def _cancel_job(self, job_id: int, job_name: str, subject: str, why: str) -> None:
        await self._check_lease()
        self._record("cancel", Severity.WARNING, subject, f"job {job_id}: {why}")
        try:
            await self._slurm.cancel(job_id, job_name)
        except SlurmError as exc:
            self._record("cancel-failed", Severity.WARNING, subject, str(exc))

    # -- operators' words

    def set_override(self, override: Override) -> None:
        self.wishes.set_override(override)

    def clear_override(self, service: str) -> None:
        self.wishes.clear_override(service)

    def pause(self, pause: Pause) -> None:
        self.wishes.pause(pause)

    def resume(self, service: str) -> None:
        self.wishes.resume(service)

    def rollback(self, service: str, revision: str | None, uid: int, why: str = "") -> Pin:
        """Raises WishRefused."""
        pin = self.wishes.rollback(service, revision, uid, why)
        self.record("rollback", service, f"to {pin.revision} instead of {pin.instead_of}", uid, why)
        return pin

    def clear_pin(self, service: str, uid: int, why: str = "") -> None:
        """Raises WishRefused."""
        pin = self.wishes.pins.get(service)
        if pin is None:
            raise WishRefused(f"{service} is not rolled back")
        self.wishes.clear_pin(service)
        self.record("pin-cleared", service, f"back to {pin.instead_of} of the configuration", uid, why)

    def ask_replace(self, instance: str, uid: int, why: str = "") -> None:
        """Hand it over before its end. Raises WishRefused."""
        record = self.instances.get(instance)
        if record is None or record.ended:
            raise WishRefused(f"there is no live instance {instance}")
        if record.drain is not None:
            raise WishRefused(f"{instance} is draining already ({record.drain.kind})")
        self._keep(replace(record, replace_asked=True))
        self.record("replace", instance, "to be handed over to a new instance", uid, why)

    def exclude(self, node: str, until: float, because: str, uid: int) -> Exclusion:
        """Raises WishRefused."""
        if self.snapshot is None or node not in self.snapshot.node_by_name:
            raise WishRefused(f"Slurm shows no node {node}")
        exclusion = Exclusion(node, until, because, self._now(), uid)
        self.wishes.exclude(exclusion)
        self.record("node-excluded", node, because, uid)
        return exclusion

    def include(self, node: str, uid: int, why: str = "") -> None:
        """Raises WishRefused."""
        self.wishes.include(node)
        self.record("node-included", node, "new jobs may go there again", uid, why)

    def unfreeze(self, uid: int, why: str = "") -> None:
        """An operator's word that what is absent is gone (promise 7)."""
        self.wishes.unfreeze()
        self.record("unfrozen", "slurm", "what is absent now counts as gone", uid, why)

    # -- recording

    def _keep(self, instance: Instance) -> None:
        """The one way a record changes: durable, then visible."""
        before = self.instances.get(instance.id)
        if instance is before or instance == before:
            return
        self._store.save(instance)
        self.instances[instance.id] = instance
        self._kept += 1
        self.learning.note(before, instance)
        if before is not None and before.state is not instance.state and instance.state not in EXPLAINED:
            severity = Severity.WARNING if instance.state is State.FAILED else Severity.INFO
            told = _told(instance, before, self._probes.statuses.get(instance.id))
            self._record(f"instance-{instance.state}", severity, instance.id, told)

    async def forget_old(self) -> None:
        """Let go of what ended long ago: the planner's memory soon, journal and directories later."""
        if self.snapshot is None:
            return  # whether the clock is right, Slurm has not told yet
        now = self._now()
        self.wishes.forget_old()
        for name, instance in list(self.instances.items()):
            ended_at = instance.ended_at
            if ended_at is not None and instance.vanished and not instance.job_id:
                ended_at = instance.created_at  # it never was: only its submit counts
            if ended_at is not None and ended_at < now - REMEMBER_ENDED_S:
                del self.instances[name]
                self._kept += 1
        for name in self._store.forget_ended(now - RETAIN_S):
            await self._offload(self._dirs.remove, name)

    def _explain(self, code: str, subject: str, reason: Reason, uid: int | None = None) -> None:
        detail = {
            "rule": reason.rule,
            "inputs": dict(reason.inputs),
            "refused": [list(r) for r in reason.refused],
        }
        self._record(code, Severity.INFO, subject, f"{reason.rule}: {reason.text}", uid, detail)

    def _record(
        self,
        code: str,
        severity: Severity,
        subject: str,
        text: str,
        uid: int | None = None,
        detail: Mapping[str, object] | None = None,
    ) -> None:
        event = self._store.record(self._now(), code, severity, subject, text, uid, detail)
        log.info(code, subject=subject, text=text, severity=str(severity), uid=uid)
        self._on_event(event)

    def record(self, code: str, subject: str, text: str, uid: int | None = None, why: str = "") -> None:
        """An event from outside the loop: an operator's act and its reason, a start, a stop."""
        detail = {"reason": why} if why else {}
        self._record(code, Severity.INFO, subject, f"{text}; reason: {why}" if why else text, uid, detail)


def _remembered(store: Store, now: float) -> dict[str, Instance]:
    """The journal's records for an engine that starts now.

    Absence counts as it sees it itself: its predecessor may have been told a lie just before it ended.
    """
    return {
        name: replace(i, absent_since=None) if i.live and i.absent_since is not None else i
        for name, i in store.instances(now - REMEMBER_ENDED_S).items()
    }


def _told(instance: Instance, before: Instance, status: AgentStatus | None) -> str:
    """A change of state as a sentence. `status`: its agent's newest word."""
    match instance.state:
        case State.PENDING:
            return f"job {instance.job_id} waits: {instance.reason or 'no reason given'}"
        case State.STARTING:
            return f"job {instance.job_id} started on {instance.node}"
        case State.READY:
            waited = instance.state_since - before.state_since
            return f"ready after {waited:.0f} s on {instance.node}"
        case State.UNREADY:
            why = f": {status.fault}" if status is not None and status.fault else ""
            return f"not ready any more, was {before.state}{why}"
        case State.LOST:
            return f"job {instance.job_id} is absent from Slurm's answer, was {before.state}"
    return instance.outcome or f"was {before.state}"
