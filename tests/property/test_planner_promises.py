"""plan and lifecycle against a tiny scripted Slurm in virtual time: the engine's promises after every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saia_engine.model import (
    AgentStatus,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Instance,
    Job,
    Launch,
    LaunchSpec,
    Service,
    StartDrain,
    State,
    Timing,
    WithdrawDrain,
)
from saia_engine.planner import brakes, decide, lead, lifecycle, timeline

POLL_S = 15.0
TIMING = Timing(
    lead_floor_s=60, min_ready_s=10, drain_deadline_s=60, admission_margin_s=30, safety_margin_s=10
)
LIMIT_S = 600
USER = "svc"
MIN_JOB_AGE_S = 300.0


@dataclass
class ScriptedJob:
    """A job, and the agent and service in it."""

    id: int
    name: str
    submitted: float
    starts: float
    load_s: float
    limit_s: float = LIMIT_S
    state: str = "PENDING"
    start: float | None = None
    end: float | None = None
    restarts: int = 0
    draining: bool = False
    healthy: bool = True
    reachable: bool = True
    hidden_polls: int = 0
    streams: list[float] = field(default_factory=list)
    """When each open one will have ended."""

    def advance(self, now: float) -> None:
        if self.state == "PENDING" and now >= self.starts:
            self.state, self.start, self.end = "RUNNING", now, now + self.limit_s
        if self.state == "RUNNING" and self.end is not None and now >= self.end:
            self.finish("TIMEOUT", now)
        self.streams = [ends for ends in self.streams if ends > now]

    def finish(self, state: str, now: float) -> None:
        self.state, self.end, self.streams = state, now, []

    @property
    def live(self) -> bool:
        return self.state in ("PENDING", "RUNNING")

    def row(self) -> Job:
        return Job(
            self.id,
            self.name,
            USER,
            self.state,
            submit_time=self.submitted,
            start_time=self.start,
            end_time=self.end,
            restarts=self.restarts,
            nodes=("node",) if self.start else (),
        )

    def status(self, now: float) -> AgentStatus | None:
        if self.state != "RUNNING" or self.start is None or not self.reachable:
            return None
        ready = self.healthy and now >= self.start + self.load_s
        return AgentStatus(now, ready, self.draining, len(self.streams), verified=ready)


class Planner(RuleBasedStateMachine):
    @initialize(
        replicas=st.integers(1, 3), min_available=st.integers(0, 2), per_hour=st.sampled_from([8, 60])
    )
    def configure(self, replicas: int, min_available: int, per_hour: int) -> None:
        self.per_hour = per_hour
        self.request_s = 20.0
        self.now = 1_000_000.0
        self.service: Service | None = Service(
            "chat",
            LaunchSpec(command=("serve",), time_limit_s=LIMIT_S),
            TIMING,
            replicas,
            min(replicas, min_available),
        )
        self.removed_at: float | None = None
        self.jobs: dict[int, ScriptedJob] = {}
        self.records: dict[str, Instance] = {}
        self.statuses: dict[str, AgentStatus] = {}
        self.launches: list[float] = []
        self.queue_s, self.load_s = 0.0, 5.0
        self.next_submit = "taken"
        self.disturbed_until = 0.0
        """Slurm lied or agents fell silent: what takes time may take that much more."""

    # -- what the world does

    @rule(polls=st.integers(1, 12))
    def time_passes(self, polls: int) -> None:
        for _ in range(polls):
            self.poll()

    @rule()
    def a_whole_life_passes(self) -> None:
        for _ in range(LIMIT_S // int(POLL_S)):
            self.poll()

    @rule(queue_s=st.sampled_from([0.0, 30.0, 200.0]), load_s=st.sampled_from([0.0, 5.0, 40.0, 10_000.0]))
    def later_jobs_are_slower(self, queue_s: float, load_s: float) -> None:
        self.queue_s, self.load_s = queue_s, load_s

    @rule(outcome=st.sampled_from(["unknown but ran", "unknown and lost", "rejected"]))
    def the_next_submit_goes_wrong(self, outcome: str) -> None:
        self.next_submit = outcome

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data(), state=st.sampled_from(["FAILED", "NODE_FAIL"]))
    def a_job_dies(self, data: st.DataObject, state: str) -> None:
        data.draw(st.sampled_from(self.live_jobs())).finish(state, self.now)

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data())
    def a_job_is_requeued(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.live_jobs()))
        if job.state == "RUNNING":
            job.finish("PENDING", self.now)
            job.start = job.end = None
            job.restarts += 1
            job.submitted, job.starts, job.draining = self.now, self.now + 60, False

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data(), by_s=st.sampled_from([-300.0, -60.0, 300.0]))
    def an_admin_changes_a_limit(self, data: st.DataObject, by_s: float) -> None:
        job = data.draw(st.sampled_from(self.live_jobs()))
        if job.end is not None:
            job.end = max(self.now + 1, job.end + by_s)

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data(), healthy=st.booleans(), reachable=st.booleans())
    def an_agent_changes_its_mind(self, data: st.DataObject, healthy: bool, reachable: bool) -> None:
        job = data.draw(st.sampled_from(self.live_jobs()))
        job.healthy, job.reachable = healthy, reachable

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data(), polls=st.integers(1, 5))
    def slurm_forgets_jobs_for_a_while(self, data: st.DataObject, polls: int) -> None:
        for job in data.draw(st.lists(st.sampled_from(self.live_jobs()), unique_by=id)):
            job.hidden_polls = polls
        self.disturbed_until = self.now + (polls + 3) * POLL_S + lifecycle.MESSAGE_TIMEOUT_S

    @rule(lasts_s=st.floats(1, TIMING.admission_margin_s))
    def requests_take(self, lasts_s: float) -> None:
        self.request_s = lasts_s

    @precondition(lambda self: self.service is not None)
    @rule(replicas=st.integers(0, 4))
    def an_operator_scales(self, replicas: int) -> None:
        assert self.service
        self.service = replace(self.service, replicas=replicas)

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def an_operator_drains_one(self, data: st.DataObject) -> None:
        self.start_drain(data.draw(st.sampled_from(self.ready())).id, DrainKind.OPERATOR)

    @precondition(lambda self: self.service is not None)
    @rule()
    def the_service_is_removed(self) -> None:
        self.service, self.removed_at = None, self.now

    # -- one turn of the engine, as the reconciler does it

    def live_jobs(self) -> list[ScriptedJob]:
        return [job for job in self.jobs.values() if job.live]

    def live(self) -> list[Instance]:
        return [i for i in self.records.values() if i.live]

    def ready(self) -> list[Instance]:
        return [i for i in self.live() if i.state is State.READY]

    def poll(self) -> None:
        self.now += POLL_S
        rows = {}
        for job in self.jobs.values():
            job.advance(self.now)
            if job.hidden_polls > 0:
                job.hidden_polls -= 1
            elif job.live or self.now - (job.end or self.now) < MIN_JOB_AGE_S:
                rows[job.name] = job.row()
        for record in self.live():
            job = next((j for j in self.jobs.values() if j.name == record.job_name), None)
            status = job.status(self.now) if job else None
            if status is not None:
                self.statuses[record.id] = status
            folded = lifecycle.fold_job(
                record,
                rows.get(record.job_name),
                taken_at=self.now,
                poll_s=POLL_S,
                alive=lifecycle.fresh(status, self.now),
            )
            if folded.generation != record.generation:
                self.statuses.pop(record.id, None)
                status = None
            self.records[record.id] = lifecycle.fold_status(
                folded, self.statuses.get(record.id), self.now, None
            )
        for record in [i for i in self.records.values() if i.ended]:
            row = rows.get(record.job_name)
            if row is not None and not row.ended:
                found = replace(lifecycle.revived(record, self.now), job_id=row.id)
                self.records[record.id] = lifecycle.fold_job(found, row, taken_at=self.now, poll_s=POLL_S)
        self.requests_come()
        self.carry_out()

    def requests_come(self) -> None:
        for record in self.ready():
            if record.end_time and self.now < timeline.admit_until(record.end_time, TIMING):
                self.jobs[record.job_id].streams.append(self.now + self.request_s)

    def carry_out(self) -> None:
        services = {"chat": self.service} if self.service else {}
        memory = decide.Memory(dict(self.records), dict(self.statuses), self.per_hour)
        self.leads = decide.leads(Desired(services, POLL_S), memory, self.now)
        plan = decide.plan(Desired(services, POLL_S), memory, self.now)
        absent = brakes.mass_absent(self.records.values(), self.now)
        ready_before = len(self.ready())
        drained_by_choice = False
        for action in plan.actions:
            match action:
                case Launch():
                    assert not absent, "promise 7: no resubmit in a freeze"
                    self.launch(action)
                case StartDrain():
                    drained_by_choice |= self.may_drain(action)
                    self.start_drain(action.instance, action.kind)
                case WithdrawDrain():
                    self.records[action.instance] = lifecycle.serving_again(
                        self.records[action.instance], self.now
                    )
                    if job := self.jobs.get(self.records[action.instance].job_id):
                        job.draining = False
                case Cancel():
                    assert not absent, "promise 7: no cancel in a freeze"
                    self.cancel(action.instance)
        if drained_by_choice and self.service:
            floor = min(self.service.min_available, self.service.replicas, ready_before)
            assert len(self.ready()) >= floor, "promise 10"
        self.never_more_jobs_than_wanted_and_due()
        self.replacements_are_on_their_way({r.rule for r in plan.waiting})
        self.nobody_admits_too_long()

    def lead_of(self, old: Instance) -> float:
        return lead.within(self.leads["chat"].seconds, TIMING, old.spec.time_limit_s)

    def launch(self, action: Launch) -> None:
        assert self.service
        if action.replaces:
            old = self.records[action.replaces]
            assert old.end_time is not None
            due = timeline.submit_by(old.end_time, TIMING, self.lead_of(old), POLL_S)
            assert self.now >= due, "promise 1: replaced before it is due"
        number = len(self.launches) + 1
        self.launches.append(self.now)
        record = Instance(
            f"k.hpc.chat.{number}",
            "chat",
            action.spec,
            action.revision,
            self.now,
            state_since=self.now,
            replaces=action.replaces,
            timing=TIMING,
        )
        outcome, self.next_submit = self.next_submit, "taken"
        if outcome in ("taken", "unknown but ran"):
            self.jobs[number] = ScriptedJob(
                number,
                record.job_name,
                self.now,
                self.now + self.queue_s,
                self.load_s,
                action.spec.time_limit_s,
            )
        if outcome == "taken":
            record = lifecycle.submitted(record, number, self.now)
        elif outcome == "rejected":
            record = lifecycle.end(record, "refused", self.now)
        self.records[record.id] = record

    def may_drain(self, action: StartDrain) -> bool:
        """Promise 11, and whether it was our choice: the end of admission is the timeline's."""
        old = self.records[action.instance]
        if action.kind is DrainKind.REMOVAL:
            return False
        if action.kind is not DrainKind.HANDOVER:
            return True
        assert old.end_time is not None
        if self.now >= timeline.admit_until(old.end_time, TIMING):
            return False
        heirs = [i for i in self.live() if i.replaces == old.id and i.drain is None]
        proven = [i for i in heirs if i.state is State.READY and self.now - (i.ready_since or self.now) >= 10]
        assert proven, "promise 11"
        return True

    def start_drain(self, name: str, kind: DrainKind) -> None:
        record = self.records[name]
        self.records[name] = lifecycle.draining(replace(record, drain=Drain(kind, self.now)), self.now)
        if job := self.jobs.get(record.job_id):
            job.draining = job.state == "RUNNING"

    def cancel(self, name: str) -> None:
        record = self.records[name]
        assert record.drain is not None, "drain comes before cancel, always"
        self.records[name] = replace(record, cancel_sent_at=self.now)
        job = self.jobs.get(record.job_id)
        if job is None or not job.live or job.hidden_polls:
            return
        if record.drain.kind is DrainKind.HANDOVER and job.end is not None:
            cut = self.now < timeline.last_cut(job.end, TIMING)
            assert not (cut and job.streams), "promise 12: a stream was cut before the last cut"
        job.finish("CANCELLED", self.now)

    # -- promises

    @invariant()
    def no_instance_has_two_replacements(self) -> None:
        slots = [i.replaces for i in self.live() if i.replaces and i.drain is None]
        assert len(slots) == len(set(slots)), "promise 1"

    def never_more_jobs_than_wanted_and_due(self) -> None:
        wanted = self.service.replicas if self.service else 0
        # Who is lost may be gone: it pushes nobody out, and is judged when it is found.
        serving = [i for i in self.live() if i.drain is None and i.state is not State.LOST]
        replaced = {i.replaces for i in serving if i.replaces} & {i.id for i in serving}
        assert len(serving) <= wanted + len(replaced), "promise 1"

    @invariant()
    def submits_are_bounded(self) -> None:
        assert sum(1 for at in self.launches if self.now - at < 3600) <= self.per_hour, "promise 16"

    @invariant()
    def a_removed_service_leaves_nothing(self) -> None:
        if self.removed_at is None:
            return
        patience_s = TIMING.drain_deadline_s + 3 * POLL_S + lifecycle.MESSAGE_TIMEOUT_S
        if self.now > max(self.removed_at, self.disturbed_until) + patience_s:
            assert not self.live_jobs(), "promise 20"

    def replacements_are_on_their_way(self, waiting: set[str]) -> None:
        """Promise 23: at each poll that finds one due it is there, or a brake says why not."""
        if self.service is None or waiting & {"crash-loop-back-off", "submits-per-hour", "mass-absence"}:
            return
        heirs = {i.replaces for i in self.records.values() if i.live or i.created_at == self.now}
        for old in self.ready():
            if old.end_time is None or old.replaces in {i.id for i in self.live() if i.drain is None}:
                continue
            due = timeline.submit_by(old.end_time, TIMING, self.lead_of(old), POLL_S)
            assert self.now < due or old.id in heirs, "promise 23"

    def nobody_admits_too_long(self) -> None:
        for record in self.ready():
            if record.end_time is not None and record.replaces not in {i.id for i in self.live()}:
                assert self.now < timeline.admit_until(record.end_time, TIMING), "promise 12: admits too long"

    def teardown(self) -> None:
        """Promise 22: once faults stop, the desired state comes about."""
        if not hasattr(self, "jobs"):
            return
        self.queue_s, self.load_s, self.next_submit = 0.0, 0.0, "taken"
        for job in self.live_jobs():
            job.healthy = job.reachable = True
            job.hidden_polls, job.load_s = 0, 0.0
        wanted = self.service.replicas if self.service else 0
        for _ in range(int((brakes.BACKOFF_MAX_S + 200) / POLL_S) + 5):
            self.poll()
            self.submits_are_bounded()
            if len(self.ready()) >= wanted:
                return
        assert len(self.launches) >= self.per_hour, "promise 22"


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
