"""Observe, plan, intend, act, record: the one place where decisions become acts.

`poll` asks Slurm; `react` takes in what agents said since. Both end in a plan that is acted upon. Every act is
durable in the journal before it happens, and reads the lease first.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from saia_engine.alarms import Alarms
from saia_engine.edge.logs import get_logger
from saia_engine.instance_dirs import Directories
from saia_engine.lease import Lease
from saia_engine.model import (
    Action,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Exclude,
    Instance,
    Launch,
    Override,
    Plan,
    Reason,
    Revert,
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
from saia_engine.probes import Ears, Target
from saia_engine.slurm.port import Slurm, SlurmError, SlurmUnavailable, SubmitRejected, SubmitUnknown
from saia_engine.store import Event, Store

REMEMBER_ENDED_S = 3600.0
RETAIN_S = 7 * 86400.0
"""Journal records and directories of ended instances are kept so long."""
NONCE_BYTES = 4
EXPLAINED = frozenset({State.SUBMITTED, State.DRAINING})
"""States that an act's own event tells of."""
SETTLE_POLLS = 1
"""A restarted controller is not believed for MessageTimeout and so many polls: it may print an empty table."""
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
    """Owns the records of all instances. Its methods run on one event loop, `poll` and `react` never at once."""

    def __init__(
        self,
        *,
        identity: Identity,
        services: Mapping[str, Service],
        poll_interval_s: float,
        submits_per_hour: int,
        slurm: Slurm,
        store: Store,
        lease: Lease,
        dirs: Directories,
        probes: Ears,
        now: Callable[[], float],
        on_event: Callable[[Event], None] = lambda event: None,
        nonce: Callable[[], str] = fresh_nonce,
        offload: Offload = in_thread,
    ) -> None:
        self.identity = identity
        self.instances: dict[str, Instance] = store.instances(now() - REMEMBER_ENDED_S)
        self.overrides: dict[str, Override] = store.overrides()
        self.snapshot: Snapshot | None = None
        self.slurm_fault = ""
        self._boot = 0.0
        self._believed_from = 0.0
        self.alarms = Alarms(now, self._record)
        self.last_plan = Plan()
        self._services = services
        self._poll_interval_s = poll_interval_s
        self._submits_per_hour = submits_per_hour
        self._slurm = slurm
        self._store = store
        self._lease = lease
        self._dirs = dirs
        self._probes = probes
        self._now = now
        self._on_event = on_event
        self._nonce = nonce
        self._offload = offload
        self._busy = asyncio.Lock()

    # -- what is desired

    @property
    def desired(self) -> Desired:
        """The config file with the operators' overrides applied."""
        services = dict(self._services)
        for override in self.overrides.values():
            service = services.get(override.service)
            if service is not None:
                services[service.name] = replace(service, replicas=override.replicas)
        return Desired(services, self._poll_interval_s)

    def configured(self, service: str) -> Service | None:
        return self._services.get(service)

    def configure(self, services: Mapping[str, Service], submits_per_hour: int) -> None:
        """A changed configuration file; the next plan follows it."""
        self._services = services
        self._submits_per_hour = submits_per_hour

    # -- the loop's two steps

    async def poll(self) -> None:
        """Ask Slurm once, then plan and act. A bad answer changes nothing (promise 6).

        Raises JournalError and LeaseLost, which end all acting.
        """
        async with self._busy:
            began = self._now()
            try:
                # Our clock, not Slurm's: a jump of the wall clock must not age the answer (promise 14).
                snapshot = replace(await self._slurm.observe(), taken_at=began)
                self._doubt_new_controller(snapshot)
            except SlurmUnavailable as exc:
                self.slurm_fault = str(exc)
                self.alarms.worry("slurm-unavailable", "slurm", str(exc), Severity.CRITICAL)
                self._fold_statuses()
                return
            self.slurm_fault = ""
            self.alarms.calm("slurm-unavailable", "slurm")
            self.snapshot = snapshot
            await self._fold_snapshot(snapshot)
            self._watch()
            await self._advance()

    def _doubt_new_controller(self, snapshot: Snapshot) -> None:
        """An empty answer after a restart can be a lie (promise 5). Raises SlurmUnavailable."""
        if self._boot not in (0.0, snapshot.controller_boot):
            settle_s = lifecycle.MESSAGE_TIMEOUT_S + SETTLE_POLLS * self._poll_interval_s
            self._believed_from = snapshot.taken_at + settle_s
        self._boot = snapshot.controller_boot
        if snapshot.taken_at < self._believed_from:
            raise SlurmUnavailable("Slurm's controller has just restarted: its answers are not believed yet")

    async def react(self) -> None:
        """Take in the agents' newest words, and act on them where Slurm's last word is young enough."""
        if self._busy.locked():
            self._fold_statuses()
            return
        async with self._busy:
            await self._advance()

    def preview(self) -> Plan:
        """What it would do now. Changes nothing."""
        return decide.plan(self.desired, self._memory(), self._now())

    async def _advance(self) -> None:
        self._fold_statuses()
        snapshot = self.snapshot
        if snapshot is None or self.slurm_fault:
            return
        if self._now() - snapshot.taken_at > STALE_POLLS * self._poll_interval_s:
            return
        plan = self.last_plan = self.preview()
        for action in plan.actions:
            await self._act(action)
        self.alarms.plan(plan.alarms)
        self._watch()

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
            self._keep(
                lifecycle.fold_job(
                    self.instances[instance.id],
                    job,
                    taken_at=snapshot.taken_at,
                    poll_s=self._poll_interval_s,
                    exited=exited,
                    alive=lifecycle.fresh(self._probes.statuses.get(instance.id), self._now()),
                )
            )
        await self._adopt_or_end_strangers(snapshot)

    async def _adopt_or_end_strangers(self, snapshot: Snapshot) -> None:
        """Live jobs with our token that no live record claims: late twins, or a lost journal's."""
        unknown: set[str] = set()
        for job in snapshot.jobs:
            token = parse_token(job.name)
            if token is None or job.user != self.identity.user or job.ended or job.state == "COMPLETING":
                continue
            if token[:2] != (self.identity.installation, self.identity.cluster):
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
            self._keep(adopted)
        self.alarms.calm_all_but("unknown-job", unknown)

    def _fold_statuses(self) -> None:
        now = self._now()
        for name, instance in [(i.id, i) for i in self.instances.values() if i.live]:
            status = self._probes.statuses.get(name)
            self._keep(lifecycle.fold_status(instance, status, now, self._probes.listening_since.get(name)))
        for instance in self.instances.values():
            fault = self._probes.faults.get(instance.id, "")
            if fault and instance.live and instance.cancel_sent_at is None:
                self.alarms.worry("agent-fault", instance.id, fault)
            else:
                self.alarms.calm("agent-fault", instance.id)

    def _watch(self) -> None:
        """Tell the probes whom to follow: each instance that Slurm has started."""
        nodes = self.snapshot.node_by_name if self.snapshot else {}
        self._probes.watch(
            Target(
                instance=i.id,
                generation=i.generation,
                address=(nodes[i.node].address if i.node in nodes else "") or i.node,
                node_names=(i.node,),
                readiness_path=i.spec.readiness_path,
                drain=i.drain is not None,
            )
            for i in self.instances.values()
            if i.live and i.node
        )

    def address(self, instance: Instance) -> str:
        """Where Slurm says that the instance's job can be reached."""
        nodes = self.snapshot.node_by_name if self.snapshot else {}
        return (nodes[instance.node].address if instance.node in nodes else "") or instance.node

    def _memory(self) -> decide.Memory:
        return decide.Memory(self.instances, self._probes.statuses, self._submits_per_hour)

    # -- acting

    async def _act(self, action: Action) -> None:
        await self._check_lease()
        if isinstance(action, Launch):
            await self._launch(action)
            return
        if isinstance(action, Exclude | Settle | Revert):
            return
        # An operator's word may have come between the plan and this act.
        instance = self.instances[action.instance]
        match action:
            case StartDrain() if instance.drain is None and instance.live:
                self.start_drain(instance, action.kind, action.reason)
            case WithdrawDrain() if instance.state is State.DRAINING and instance.cancel_sent_at is None:
                self._keep(lifecycle.serving_again(instance, self._now()))
                self._explain("drain-withdrawn", instance.id, action.reason)
            case Cancel() if instance.live:
                await self._cancel(instance, action.reason)

    async def _check_lease(self) -> None:
        # In a thread: a hanging shared file system must not stop probes and API.
        await self._offload(self._lease.check)

    def start_drain(
        self, instance: Instance, kind: DrainKind, reason: Reason, uid: int | None = None
    ) -> None:
        """Order a drain; the agent hears of it at once."""
        now = self._now()
        self._keep(lifecycle.draining(replace(instance, drain=Drain(kind, now)), now))
        self._explain("drain", instance.id, reason, uid)
        self._watch()

    async def _launch(self, launch: Launch) -> None:
        service = self._services.get(launch.service)
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
        self._store.set_override(override)
        self.overrides[override.service] = override

    def clear_override(self, service: str) -> None:
        self._store.clear_override(service)
        self.overrides.pop(service, None)

    # -- recording

    def _keep(self, instance: Instance) -> None:
        """The one way a record changes: durable, then visible."""
        before = self.instances.get(instance.id)
        if instance == before:
            return
        self._store.save(instance)
        self.instances[instance.id] = instance
        if before is not None and before.state is not instance.state and instance.state not in EXPLAINED:
            severity = Severity.WARNING if instance.state is State.FAILED else Severity.INFO
            self._record(f"instance-{instance.state}", severity, instance.id, _told(instance, before))

    async def forget_old(self) -> None:
        """Let go of what ended long ago: the planner's memory soon, journal and directories later."""
        now = self._now()
        for name, instance in list(self.instances.items()):
            if instance.ended_at is not None and instance.ended_at < now - REMEMBER_ENDED_S:
                del self.instances[name]
        for name in self._store.forget_ended(now - RETAIN_S):
            await self._offload(self._dirs.remove, name)

    def _explain(self, code: str, subject: str, reason: Reason, uid: int | None = None) -> None:
        self._record(code, Severity.INFO, subject, f"{reason.rule}: {reason.text}", uid)

    def _record(self, code: str, severity: Severity, subject: str, text: str, uid: int | None = None) -> None:
        event = self._store.record(self._now(), code, severity, subject, text, uid)
        log.info(code, subject=subject, text=text, severity=str(severity), uid=uid)
        self._on_event(event)

    def record(self, code: str, subject: str, text: str, uid: int | None = None) -> None:
        """An event from outside the loop: an operator's act, a start, a stop."""
        self._record(code, Severity.INFO, subject, text, uid)


def _told(instance: Instance, before: Instance) -> str:
    """A change of state as a sentence."""
    match instance.state:
        case State.PENDING:
            return f"job {instance.job_id} waits: {instance.reason or 'no reason given'}"
        case State.STARTING:
            return f"job {instance.job_id} started on {instance.node}"
        case State.READY:
            waited = instance.state_since - before.state_since
            return f"ready after {waited:.0f} s on {instance.node}"
        case State.UNREADY:
            return f"not ready any more, was {before.state}"
        case State.LOST:
            return f"job {instance.job_id} is absent from Slurm's answer, was {before.state}"
    return instance.outcome or f"was {before.state}"
