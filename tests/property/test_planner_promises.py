"""plan and lifecycle against a tiny scripted Slurm in virtual time: the engine's promises after every step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saia_engine.model import (
    AgentStatus,
    Cancel,
    Desired,
    Drain,
    DrainKind,
    Exclude,
    Exclusion,
    Instance,
    Job,
    Launch,
    LaunchSpec,
    Node,
    Partition,
    Reassign,
    Revert,
    Revision,
    Rolling,
    Service,
    Settle,
    Snapshot,
    StartDrain,
    State,
    Timing,
    WithdrawDrain,
)
from saia_engine.planner import brakes, decide, lead, lifecycle, timeline
from saia_engine.planner.health import KILL_WINDOW_S
from saia_engine.planner.moment import Moment

POLL_S = 15.0
TIMING = Timing(
    lead_floor_s=60,
    min_ready_s=10,
    drain_deadline_s=60,
    admission_margin_s=30,
    safety_margin_s=10,
    startup_deadline_s=120,
    unready_deadline_s=60,
)
LIMIT_S = 600
USER = "svc"
MIN_JOB_AGE_S = 300.0
NODES = ("gpu01", "gpu02", "gpu03", "gpu04")
BAD = ("crashes", "never ready", "hangs")
"""Commands of revisions that no rollout may keep."""
JUDGED_WITHIN_S = 3 * (KILL_WINDOW_S + TIMING.drain_deadline_s + brakes.BACKOFF_MAX_S)
"""Three attempts, one kill per window, with all that slows them: so long a bad revision may last."""


@dataclass
class ScriptedJob:
    """A job, and the agent and service in it."""

    id: int
    name: str
    submitted: float
    starts: float
    load_s: float
    limit_s: float = LIMIT_S
    command: str = "serve"
    exclude: str = ""
    node: str = ""
    """Where it runs, or would if it started now; empty while there is none for it."""
    held: bool = False
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
        if self.command == "crashes" and self.state == "RUNNING":
            self.finish("FAILED", now)
        if self.state == "PENDING" and now >= self.starts and self.node and not self.held:
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
            nodes=(self.node,) if self.start else (),
            reason="JobHeldUser" if self.held else "",
        )

    def status(self, now: float) -> AgentStatus | None:
        if self.state != "RUNNING" or self.start is None or not self.reachable:
            return None
        ready = self.healthy and now >= self.start + self.load_s and self.command != "never ready"
        hangs = self.command == "hangs" and now >= self.start + self.load_s + 2 * POLL_S
        return AgentStatus(now, ready, self.draining, len(self.streams), verified=ready, alive=not hangs)


class Planner(RuleBasedStateMachine):
    @initialize(
        replicas=st.integers(1, 3),
        min_available=st.integers(0, 2),
        per_hour=st.sampled_from([8, 60]),
        bounds=st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 0)]),
    )
    def configure(self, replicas: int, min_available: int, per_hour: int, bounds: tuple[int, int]) -> None:
        self.per_hour = per_hour
        self.request_s = 20.0
        self.now = 1_000_000.0
        self.service: Service | None = Service(
            "chat",
            LaunchSpec(command=("serve",), time_limit_s=LIMIT_S),
            TIMING,
            replicas,
            min(replicas, min_available),
            rolling=Rolling(*bounds, healthy_deadline_s=200, progress_deadline_s=1200),
        )
        self.revisions: list[Revision] = []
        self.nodes = dict.fromkeys(NODES, "mixed")
        self.exclusions: dict[str, Exclusion] = {}
        self.kills: list[float] = []
        self.rolled: set[str] = set()
        """Instances that were launched for a rollout alone."""
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

    @precondition(lambda self: self.service is not None)
    @rule(command=st.sampled_from(["serve", "serve better", *BAD]))
    def the_file_asks_for_another_revision(self, command: str) -> None:
        self.ask_for(command)

    @rule(node=st.sampled_from(NODES), state=st.sampled_from(["mixed", "draining"]))
    def an_admin_drains_a_node_or_resumes_it(self, node: str, state: str) -> None:
        self.nodes[node] = state

    @rule(node=st.sampled_from(NODES), lasts_s=st.sampled_from([0.0, 300.0, 3000.0]))
    def an_operator_excludes_a_node_or_takes_it_back(self, node: str, lasts_s: float) -> None:
        self.exclusions[node] = Exclusion(node, self.now + lasts_s, "by hand", self.now, 0)

    @precondition(lambda self: self.live_jobs())
    @rule(data=st.data(), held=st.booleans())
    def somebody_holds_a_job_or_releases_it(self, data: st.DataObject, held: bool) -> None:
        job = data.draw(st.sampled_from(self.live_jobs()))
        job.held = held and job.state == "PENDING"

    @precondition(lambda self: self.ready())
    @rule(data=st.data())
    def an_operator_has_one_replaced(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.ready()))
        self.records[one.id] = replace(one, replace_asked=True)

    # -- what is asked for, as the wishes keep it

    def ask_for(self, command: str) -> None:
        assert self.service
        spec = LaunchSpec(command=(command,), time_limit_s=LIMIT_S)
        self.service = replace(self.service, launch=spec)

    def note_revision(self) -> None:
        if self.service is None or (self.revisions and self.revisions[-1].revision == self.wanted()):
            return
        before = next((r for r in self.revisions if r.revision == self.wanted()), None)
        self.revisions = [r for r in self.revisions if r is not before]
        good_at = before.good_at if before else None
        self.revisions.append(Revision("chat", self.wanted(), self.service.launch, self.now, good_at=good_at))

    def wanted(self) -> str:
        assert self.service
        return self.service.launch.revision

    def change_revision(self, revision: str, **fields) -> None:
        self.revisions = [replace(r, **fields) if r.revision == revision else r for r in self.revisions]

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
            self.place(job)
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

    def place(self, job: ScriptedJob) -> None:
        if job.state == "PENDING":
            out = {*job.exclude.split(","), *(name for name in NODES if self.nodes[name] != "mixed")}
            free = [name for name in NODES if name not in out]
            job.node = free[job.id % len(free)] if free else ""

    def requests_come(self) -> None:
        for record in self.ready():
            if record.end_time and self.now < timeline.admit_until(record.end_time, TIMING):
                self.jobs[record.job_id].streams.append(self.now + self.request_s)

    def carry_out(self) -> None:
        services = {"chat": self.service} if self.service else {}
        self.note_revision()
        nodes = tuple(Node(name, state, partitions=("gpu",)) for name, state in self.nodes.items())
        memory = decide.Memory(
            dict(self.records),
            dict(self.statuses),
            self.per_hour,
            Snapshot(self.now, (), nodes, partitions=(Partition("gpu", nodes=NODES, default=True),)),
            revisions={"chat": tuple(self.revisions)},
            exclusions=dict(self.exclusions),
            listening={i.id: i.created_at for i in self.live()},
        )
        self.leads = decide.leads(Desired(services, POLL_S), memory, Moment(self.now))
        plan = decide.plan(Desired(services, POLL_S), memory, self.now)
        absent = brakes.mass_absent(self.records.values())
        ready_before = len(self.ready())
        drained_by_choice = went_first = False
        reverted_to = ""
        for action in plan.actions:
            match action:
                case Launch():
                    assert not absent, "promise 7: no resubmit in a freeze"
                    self.launch(action)
                case StartDrain():
                    drained_by_choice |= self.may_drain(action)
                    if action.kind is DrainKind.UNHEALTHY:
                        self.kills.append(self.now)
                    went_first |= action.reason.rule == "rollout" and self.serves_alone(action.instance)
                    self.start_drain(action.instance, action.kind)
                case Exclude():
                    self.exclusions[action.node] = Exclusion(action.node, action.until, "", self.now)
                case Settle():
                    self.change_revision(action.revision, good_at=self.now, failed_at=None)
                case Revert():
                    self.change_revision(action.revision, failed_at=self.now)
                    if action.to:
                        reverted_to = action.to
                case Reassign():
                    record = self.records[action.instance]
                    self.records[action.instance] = replace(record, replaces=action.replaces)
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
        if went_first and self.service:
            floor = self.service.replicas - self.service.rolling.max_unavailable
            assert len(self.ready()) >= floor, "a rollout makes more unavailable than it may"
        if reverted_to and self.service:
            good = next(r for r in self.revisions if r.revision == reverted_to)
            self.service = replace(self.service, launch=good.spec)
        self.never_more_jobs_than_wanted_and_due()
        self.replacements_are_on_their_way({r.rule for r in plan.waiting})
        self.nobody_admits_too_long()

    def lead_of(self, old: Instance) -> float:
        return lead.within(self.leads["chat"].seconds, TIMING, old.spec.time_limit_s, POLL_S)

    def launch(self, action: Launch) -> None:
        assert self.service
        if action.reason.rule == "replace-before-end":
            old = self.records[action.replaces]
            assert old.end_time is not None
            due = timeline.submit_by(old.end_time, TIMING, self.lead_of(old), POLL_S)
            assert self.now >= due, "promise 1: replaced before it is due"
        number = len(self.launches) + 1
        self.launches.append(self.now)
        if action.reason.rule == "rollout":
            self.rolled.add(f"k.hpc.chat.{number}")
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
                action.spec.command[0],
                action.spec.exclude,
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
            return old.state is State.READY
        assert old.end_time is not None
        if self.now >= timeline.admit_until(old.end_time, TIMING):
            return False
        heirs = [i for i in self.live() if i.replaces == old.id and i.drain is None]
        proven = [i for i in heirs if i.state is State.READY and self.now - (i.ready_since or self.now) >= 10]
        assert proven, "promise 11"
        return True

    def must_leave(self, old: Instance) -> bool:
        """By its end, its node, an operator's word or a requeue: then its replacement is due by itself."""
        if old.end_time is None or old.replace_asked or not old.node:
            return True
        exclusion = self.exclusions.get(old.node)
        if self.nodes[old.node] != "mixed" or (exclusion is not None and exclusion.until > self.now):
            return True
        return self.now >= timeline.submit_by(old.end_time, TIMING, self.lead_of(old), POLL_S)

    def serves_alone(self, name: str) -> bool:
        """Ready, and no replacement that only a rollout asked for."""
        record = self.records[name]
        replaced = self.records.get(record.replaces)
        return record.state is State.READY and (
            replaced is None or replaced.drain is not None or replaced.ended
        )

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
        held = {i.id for i in self.live() if i.drain is None}
        replaced = {i.replaces for i in serving if i.replaces} & held
        assert len(serving) <= wanted + len(replaced), "promise 1"
        if self.service:
            names = {i.id for i in serving}
            surging = [i for i in serving if i.id in self.rolled and i.replaces in names]
            surging = [i for i in surging if not self.must_leave(self.records[i.replaces])]
            assert len(surging) <= self.service.rolling.max_surge, "promise 1: more than max_surge"

    @invariant()
    def at_most_one_is_ended_per_window(self) -> None:
        assert all(later - sooner >= KILL_WINDOW_S for sooner, later in pairwise(self.kills)), "promise 15"

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
        if self.service is None or waiting & {
            "crash-loop-back-off",
            "submits-per-hour",
            "mass-absence",
            "going-back",
        }:
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
            job.hidden_polls, job.load_s, job.held = 0, 0.0, False
        self.nodes = dict.fromkeys(NODES, "mixed")
        for job in self.live_jobs():
            job.exclude = ""
        self.exclusions.clear()
        self.a_bad_revision_is_found_out()
        if self.service and self.service.launch.command[0] in BAD:
            return
        wanted = self.service.replicas if self.service else 0
        for _ in range(int((brakes.BACKOFF_MAX_S + 200) / POLL_S) + 5):
            self.poll()
            self.submits_are_bounded()
            if len(self.ready()) >= wanted:
                break
        else:
            assert self.out_of_submits(), "promise 22"
            return
        self.a_rollout_ends()
        self.then_it_is_quiet()

    def out_of_submits(self) -> bool:
        """Half of the bound: what one service of several may use, and more than calm times need."""
        return sum(1 for at in self.launches if self.now - at < 3600) >= self.per_hour

    def a_bad_revision_is_found_out(self) -> None:
        """It has failed in bounded time, and where a good one is known, that one is asked for."""
        if self.service is None or not self.service.replicas or self.service.launch.command[0] not in BAD:
            return
        bad = self.wanted()
        for _ in range(int(JUDGED_WITHIN_S / POLL_S)):
            self.poll()
            record = next(r for r in self.revisions if r.revision == bad)
            if self.wanted() != bad or record.failed_at is not None or record.good_at is not None:
                return
            if self.out_of_submits():
                return
        raise AssertionError(f"{self.service.launch.command[0]}: not found out within {JUDGED_WITHIN_S} s")

    def a_rollout_ends(self) -> None:
        if self.service is None or not self.service.replicas:
            return
        for _ in range(int((LIMIT_S + brakes.BACKOFF_MAX_S) * self.service.replicas / POLL_S)):
            if self.revisions and self.revisions[-1].good_at is not None:
                running = {i.revision for i in self.ready()}
                if running == {self.wanted()} and not [i for i in self.live() if i.drain]:
                    return
            self.poll()
        assert self.out_of_submits(), "a rollout of a good revision has no end"

    def then_it_is_quiet(self) -> None:
        """No more launches than ends of time limits explain."""
        before, wanted = len(self.launches), self.service.replicas if self.service else 0
        for _ in range(int(LIMIT_S / POLL_S)):
            self.poll()
        assert len(self.launches) - before <= 3 * wanted, "it flaps"


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestPlanner.pytestmark = [pytest.mark.timeout(900)]  # whole lives, poll by poll
