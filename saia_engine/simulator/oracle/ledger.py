"""What has truly happened so far: jobs, tokens, agents, engines, routes, streams and wishes. It judges nothing."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace
from saia_engine.simulator.oracle.records import (
    FAR_PAST,
    LIVE_STATES,
    AgentSeen,
    EngineSeen,
    JobSeen,
    Stream,
    Token,
)
from saia_engine.simulator.truth import Event, ReadRoute, Wish

UNREAD = frozenset({"failed", "truncated", "late", "clock"})
"""Answers of which an engine learns nothing."""
BAD = UNREAD | {"young"}
"""Answers that show that they must not be believed."""
LIES = frozenset({"empty", "stale"})
"""Answers that look good and are not."""
BLIND_S = 60.0
"""With no good answer for longer, whoever was to act has not."""
ENDS_KEPT = 12
WISHES_KEPT = 24

_TOKEN = re.compile(r"saia\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")


def service_of(name: str) -> str:
    """Of a token, its service; empty for any other name."""
    found = _TOKEN.fullmatch(name)
    return found[3] if found else ""


class Ledger:
    """Fed with every event in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.began = truth.Began(0.0, 0, "", "", "", 15.0, 30.0, 10.0, 60.0, 300.0)
        self.wishes: dict[str, list[tuple[float, Wish | None]]] = {}
        """By service, oldest first; None: not wanted."""
        self.bounds: list[tuple[float, int]] = []
        """submits_per_hour, with the time from which on."""
        self.table: dict[int, JobSeen] = {}
        self.tokens: dict[str, Token] = {}
        self.by_instance: dict[str, Token] = {}
        self.last_submit: dict[str, Token] = {}
        self.live: dict[str, dict[str, Token]] = {}
        """By service: tokens that may still take a slot."""
        self.written_off_at: dict[str, float] = {}
        """By service: when one of its launches last went, or seemed to go, without a word."""
        self.unseen_ends: dict[str, list[Token]] = {}
        """By service: launches that are over, which no answer has shown or proven yet."""
        self.agents: dict[str, AgentSeen] = {}
        self.engines: dict[str, EngineSeen] = {}
        self.running: list[EngineSeen] = []
        self.latest: deque[EngineSeen] = deque(maxlen=4)
        """Who started last."""
        self.last_acted = -1
        """The turn of the newest engine that has acted."""
        self.leases: list[truth.LeaseWritten] = []
        self.lost_hosts: set[str] = set()
        """The gates of the other hosts serve, by what an engine there last wrote."""
        self.routes: dict[str, dict[str, ReadRoute]] = {}
        """By host and instance: what its gates know."""
        self.routes_before: dict[str, ReadRoute] = {}
        """Of the host whose table came last: the one before."""
        self.streams: dict[int, Stream] = {}
        self.ended_stream: Stream | None = None
        """The one whose end is being told."""
        self.unusable: dict[str, float] = {}
        self.excluded: set[str] = set()
        """Nodes that an operator wants no new job on; it may have come to its end since."""
        self.usable_since: dict[str, float] = {}
        self.failed_on: dict[str, float] = {}
        """By node: when a job of ours last failed there."""
        self.windows: dict[str, truth.ReservationMade] = {}
        self._windows_before: deque[tuple[float, truth.ReservationMade]] = deque(maxlen=8)
        """Changed or gone at that time."""
        self.submits: deque[tuple[float, str]] = deque()
        """When a launch of which service was submitted, in the last hour."""
        self.acted_on = ""
        """The host whose engine started last."""
        self.remembered_from = FAR_PAST
        """Of what was submitted before, the acting engine's journal has nothing."""
        self.seen_at = FAR_PAST
        """When an engine was last given a good answer."""
        self.blind = FAR_PAST, FAR_PAST
        """The last time that none was, for longer than a moment."""
        self.controller_up = True
        self.controller_up_at = 0.0
        self.disturbed_at = 0.0
        """The last moment at which something kept an engine from doing its work."""
        self.jumped_at = FAR_PAST
        """When a clock was last set wrong or right, or an engine started by a wrong one."""
        self.faults: dict[tuple[str, str], float] = {}
        self.fault_over: dict[tuple[str, str], float] = {}
        """When the last one of its kind there was over."""
        self._take: dict[type, Callable[..., None]] = {
            truth.Began: self._on_began,
            truth.Configured: self._on_configured,
            truth.OperatorOrdered: self._on_operator_ordered,
            truth.SubmitCalled: self._on_submit_called,
            truth.SubmitRefused: self._on_submit_refused,
            truth.JobAccepted: self._on_job_accepted,
            truth.JobChanged: self._on_job_changed,
            truth.JobForgotten: self._on_job_forgotten,
            truth.CancelCalled: self._on_cancel_called,
            truth.NodeChanged: self._on_node_changed,
            truth.ReservationMade: self._on_reservation_made,
            truth.ControllerDown: self._on_controller_down,
            truth.ControllerUp: self._on_controller_up,
            truth.Answered: self._on_answered,
            truth.EngineStarted: self._on_engine_started,
            truth.LeaseWritten: self._on_lease_written,
            truth.JournalRefused: self._on_journal_refused,
            truth.EngineEnded: self._on_engine_ended,
            truth.AlarmsShown: self._on_alarms_shown,
            truth.AgentChanged: self._on_agent_changed,
            truth.AgentReachable: self._on_agent_reachable,
            truth.DrainHeard: self._on_drain_heard,
            truth.RoutesRead: self._on_routes_read,
            truth.RequestOpened: self._on_request_opened,
            truth.RequestEnded: self._on_request_ended,
            truth.FaultBegan: self._on_fault_began,
            truth.FaultEnded: self._on_fault_ended,
        }

    def apply(self, event: Event) -> None:
        self.now = event.at
        take = self._take.get(type(event))
        if take is not None:
            take(event)

    # -- questions

    def is_ours(self, name: str, user: str) -> bool:
        found = _TOKEN.fullmatch(name)
        began = self.began
        return (
            found is not None
            and user == began.user
            and found[1] == began.installation
            and found[2] == began.cluster
        )

    def wish(self, service: str) -> Wish | None:
        history = self.wishes.get(service)
        return history[-1][1] if history else None

    def wishes_since(self, service: str, since: float) -> list[Wish | None]:
        """All that was wanted of it at some moment since then; the newest first."""
        found: list[Wish | None] = []
        for began, wish in reversed(self.wishes.get(service, ())):
            found.append(wish)
            if began <= since:
                return found
        found.append(None)
        return found

    def last_wish(self, service: str) -> Wish | None:
        """The present one, or of a removed service the last."""
        for _, wish in reversed(self.wishes.get(service, ())):
            if wish is not None:
                return wish
        return None

    def wished_more_since(self, service: str, since: float) -> bool:
        """Whether fewer are wanted than at some moment since then."""
        counts = [w.replicas if w else 0 for w in self.wishes_since(service, since)]
        return max(counts) > counts[0]

    def bound_since(self, since: float) -> int:
        found = 0
        for began, per_hour in reversed(self.bounds):
            found = max(found, per_hour)
            if began <= since:
                break
        return found

    def engine_of(self, host: str) -> EngineSeen | None:
        """The engine that runs there."""
        return next((e for e in self.running if e.host == host), None)

    def acting(self) -> list[EngineSeen]:
        return [e for e in self.running if e.acting]

    # -- wishes

    def _on_began(self, event: truth.Began) -> None:
        self.began = event
        self.disturbed_at = event.at

    def _on_configured(self, event: truth.Configured) -> None:
        for name in self.wishes.keys() | event.services.keys():
            history = self.wishes.setdefault(name, [])
            wish = event.services.get(name)
            if not history or history[-1][1] != wish:
                history.append((event.at, wish))
                if wish is None:
                    for token in self.live.get(name, {}).values():
                        token.removed_at = event.at
                del history[:-WISHES_KEPT]
                self.disturbed_at = event.at
        if not self.bounds or self.bounds[-1][1] != event.submits_per_hour:
            self.bounds.append((event.at, event.submits_per_hour))
            self.disturbed_at = event.at

    def _on_operator_ordered(self, event: truth.OperatorOrdered) -> None:
        self.disturbed_at = event.at
        token = self.by_instance.get(event.instance)
        if token is not None:
            if event.verb == "replace":
                token.replace_asked = True
            else:
                token.ordered_out_at = event.at
                token.cut_asked = token.cut_asked or event.verb == "cancel"
        if event.verb == "exclude":
            self.excluded.add(event.instance)
        elif event.verb == "include":
            self.excluded.discard(event.instance)
            self.usable_since[event.instance] = event.at

    # -- Slurm

    def _on_submit_called(self, event: truth.SubmitCalled) -> None:
        service = service_of(event.name)
        if not service:
            return
        while self.submits and self.submits[0][0] < event.at - grace.HOUR_S - grace.HOUR_EDGE_S:
            self.submits.popleft()
        self.submits.append((event.at, service))
        token = Token(
            event.name, event.name.removeprefix("saia."), service, event.revision, event.at, event.engine
        )
        engine = self.engines.get(event.engine)
        if engine is not None:
            token.known_on.add(engine.host)
        self.tokens[event.name] = self.by_instance[token.instance] = self.last_submit[service] = token
        self.live.setdefault(token.service, {})[event.name] = token

    def _on_submit_refused(self, event: truth.SubmitRefused) -> None:
        token = self.tokens.get(event.name)
        if token is not None:
            self._act_done(event)
            token.settled_at = event.at
            token.outcome = "refused" if event.answered else "unknown"
            if event.answered:
                self._retire(token)

    def _on_job_accepted(self, event: truth.JobAccepted) -> None:
        job = JobSeen(
            event.job_id,
            event.name,
            event.user,
            event.submit_time,
            event.at,
            event.engine,
            state_since=event.at,
        )
        job.ends.append((event.at, None))
        self.table[event.job_id] = job
        token = self.tokens.get(event.name)
        self._act_done(event)
        if token is not None and (token.job is None or not token.job.live):
            token.job = job
            token.outcome = "taken" if event.answered else "unknown"
            token.settled_at = event.at
            # One that was given up stays so until an answer shows it.
            token.late = token.written_off or event.at > token.called_at + grace.LATE_S
            self.live.setdefault(token.service, {})[token.name] = token

    def _act_done(self, event: truth.JobAccepted | truth.SubmitRefused) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None and event.answered:
            engine.busy_until = event.at + grace.NEXT_ACT_S

    def _on_job_changed(self, event: truth.JobChanged) -> None:
        job = self.table.get(event.job_id)
        if job is None or job.name != event.name:
            job = JobSeen(event.job_id, event.name, event.user, event.submit_time, event.at, "")
            self.table[event.job_id] = job
        if not job.in_table:
            job.in_table, job.lost = True, False
        if event.state != job.state:
            if job.state == "COMPLETING":
                job.completed_late = event.at - job.state_since > grace.COMPLETING_S
            job.state, job.state_since = event.state, event.at
        if event.restarts != job.restarts:
            job.restarts, job.restarted_at = event.restarts, event.at
            job.started_at = None
        job.submit_time, job.node, job.cause = event.submit_time, event.node, event.cause
        job.last_node = event.node or job.last_node
        running = event.state in LIVE_STATES and event.start is not None and event.state != "PENDING"
        if running and job.started_at is None:
            job.started_at = event.at
        elif event.state == "PENDING":
            job.started_at = None
        end = event.end if running else None
        if end != job.end or not job.ends:
            job.end = end
            job.ends.append((event.at, end))
            del job.ends[:-ENDS_KEPT]
        if not job.live and job.ended_at is None and event.state != "COMPLETING":
            job.ended_at = event.at
            self._note_end(job)
        elif job.live:
            job.ended_at = None
            self._restore(job)

    def _note_end(self, job: JobSeen) -> None:
        token = self.tokens.get(job.name)
        if token is None or token.job is not job:
            return
        self._blame_node(token, job)
        self._retire(token)

    def _blame_node(self, token: Token, job: JobSeen) -> None:
        """Any end but that of one which served and drained may count against its node."""
        agent = self.agents.get(token.instance)
        well = agent is not None and agent.drained_well and job.cause == "engine"
        if job.last_node and not well:
            self.failed_on[job.last_node] = self.now

    def _on_job_forgotten(self, event: truth.JobForgotten) -> None:
        job = self.table.pop(event.job_id, None)
        if job is None:
            return
        job.lost = event.lost and job.state in LIVE_STATES
        job.in_table, job.left_table_at = False, event.at
        token = self.tokens.get(job.name)
        if token is None or token.job is not job:
            return
        self._blame_node(token, job)
        if job.lost:
            self.written_off_at[token.service] = self.now
        agent = self.agents.get(token.instance)
        if not job.lost or agent is None or agent.state == "gone":
            self._retire(token)

    def _restore(self, job: JobSeen) -> None:
        """A requeue brings an ended job back."""
        token = self.tokens.get(job.name)
        if token is not None and token.job is job:
            self.live.setdefault(token.service, {})[token.name] = token
            unseen = self.unseen_ends.get(token.service, [])
            if token in unseen:
                unseen.remove(token)

    def _retire(self, token: Token) -> None:
        was_live = self.live.get(token.service, {}).pop(token.name, None) is not None
        if was_live and token.outcome != "refused":
            token.missing_since = None
            self.unseen_ends.setdefault(token.service, []).append(token)

    def _on_cancel_called(self, event: truth.CancelCalled) -> None:
        token = self.tokens.get(event.name)
        if token is not None:
            token.cancelled_at = event.at

    def _on_node_changed(self, event: truth.NodeChanged) -> None:
        if event.usable:
            if self.unusable.pop(event.node, None) is not None:
                self.usable_since[event.node] = event.at
        else:
            self.unusable.setdefault(event.node, event.at)

    def windows_since(self, since: float) -> Iterator[truth.ReservationMade]:
        """Those of now, and those that an engine may believe in which has not asked since then."""
        yield from self.windows.values()
        yield from (window for gone_at, window in self._windows_before if gone_at >= since)

    def _on_reservation_made(self, event: truth.ReservationMade) -> None:
        if event.name in self.windows:
            self._windows_before.append((event.at, self.windows[event.name]))
        self.windows[event.name] = event
        self.disturbed_at = event.at

    def _on_controller_down(self, event: truth.ControllerDown) -> None:
        self.controller_up = False
        self.disturbed_at = event.at

    def _on_controller_up(self, event: truth.ControllerUp) -> None:
        self.controller_up, self.controller_up_at = True, event.at
        self.disturbed_at = event.at
        if event.lost_state:
            self._windows_before.extend((event.at, window) for window in self.windows.values())
            self.windows.clear()

    def _on_answered(self, event: truth.Answered) -> None:
        engine = self.engines.get(event.engine)
        if engine is None:
            return
        engine.quality = event.quality
        if event.quality not in UNREAD and engine.boot_at != self.controller_up_at:
            # It does not believe a controller whose restart it has seen until that has settled.
            seen_before, engine.boot_at = engine.boot_at != FAR_PAST, self.controller_up_at
            if seen_before:
                engine.doubts_until = event.at + self.began.message_timeout_s + self.began.poll_s
        engine.believes = engine.believes or (bool(engine.answers) and not engine.doubts)
        if event.quality == "good":
            if not engine.believes:
                engine.able_from = event.at
            if event.began >= engine.doubts_until:
                engine.answers.append((event.began, event.at))
            engine.stale_from = None
            if event.at - self.seen_at > BLIND_S:
                self.blind = self.seen_at, event.at
            self.seen_at = event.at
        else:
            self.disturbed_at = event.at
            if event.quality == "stale":
                engine.stale_from = event.began - grace.STALE_REACH_S
        if event.quality == "good":
            self._show_ends(event)
        if event.quality not in BAD:
            self._compare(event, engine, lies=event.quality in LIES)

    def _compare(self, answer: truth.Answered, engine: EngineSeen, lies: bool) -> None:
        """What a believable answer lacks, as far as it may."""
        patience = self.began.message_timeout_s + self.began.poll_s
        for tokens in list(self.live.values()):
            for token in list(tokens.values()):
                if token.called_at > answer.began:
                    continue
                job = token.job
                if not lies and job is not None and job.in_table and job.accepted_at <= answer.began:
                    if token.forgotten or token.missing_since is not None:
                        token.found_at = self.now
                    token.shown, token.missing_since, token.written_off = True, None, False
                    token.forgotten = False
                    token.known_on.add(engine.host)
                    if job.started_at is not None and token.start_shown[0] != job.started_at:
                        token.start_shown = job.started_at, answer.at
                    token.shown_running = job.started_at is not None and job.started_at <= answer.began
                    continue
                if token.missing_since is None:
                    token.missing_since, token.was_missing = answer.began, True
                if self._speaks(token):
                    continue
                if self._has_left_word(token) or answer.began - token.missing_since >= patience - 0.5:
                    if not token.written_off:
                        self.written_off_at[token.service] = self.now
                    token.written_off = True

    def _show_ends(self, answer: truth.Answered) -> None:
        """A good answer shows an end while Slurm remembers it, and proves it by a second absence."""
        patience = self.began.message_timeout_s + self.began.poll_s
        for service, tokens in self.unseen_ends.items():
            left = []
            for token in tokens:
                job = token.job
                if job is not None and job.in_table and job.ended_at is not None:
                    if job.ended_at > answer.began:
                        left.append(token)
                elif token.missing_since is None:
                    token.missing_since = answer.began
                    left.append(token)
                elif answer.began - token.missing_since < patience - 0.5:
                    left.append(token)
            self.unseen_ends[service] = left

    def _speaks(self, token: Token) -> bool:
        """Its agent's word certainly outweighs Slurm's silence."""
        agent = self.agents.get(token.instance)
        if agent is None or token.job is None or not token.shown_running:
            return False
        heard = (
            agent.reachable and agent.state != "gone" and self.now - agent.reached_since > grace.AGENT_WORD_S
        )
        return heard and self.now - agent.began_at > self.began.shared_delay_s + grace.AGENT_WORD_S

    def _has_left_word(self, token: Token) -> bool:
        agent = self.agents.get(token.instance)
        return agent is not None and agent.state == "gone"

    # -- engines

    def _on_engine_started(self, event: truth.EngineStarted) -> None:
        turn = max((i for i, lease in enumerate(self.leases) if lease.engine == event.engine), default=-1)
        engine = EngineSeen(event.engine, event.host, turn, event.at, event.journal)
        self.engines[event.engine] = engine
        self.lost_hosts.discard(event.host)
        self.running.append(engine)
        self.latest.append(engine)
        self.disturbed_at = event.at
        if any("clock" in kind and subject == event.host for kind, subject in self.faults):
            self.jumped_at = event.at
        kept = event.journal == "kept"
        if not kept or (self.acted_on and self.acted_on != event.host):
            self.remembered_from = event.at
        self.acted_on = event.host
        for tokens in self.live.values():
            for token in tokens.values():
                if not kept:
                    token.known_on.discard(event.host)
                token.forgotten = event.host not in token.known_on
                token.shown = token.shown and not token.forgotten

    def _on_lease_written(self, event: truth.LeaseWritten) -> None:
        self.leases.append(event)
        for engine in self.running:
            if engine.superseded_at is None:
                engine.superseded_at = event.at
        self.disturbed_at = event.at

    def _on_journal_refused(self, event: truth.JournalRefused) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None and engine.refused_at is None:
            engine.refused_at = event.at
            engine.kept = frozenset(self.routes.get(engine.host, ()))
        self.disturbed_at = event.at

    def _on_engine_ended(self, event: truth.EngineEnded) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None:
            engine.running, engine.ended_at = False, event.at
            if event.how == "host-lost":
                self.lost_hosts.add(engine.host)
            self.running.remove(engine)
        self.disturbed_at = event.at

    def _on_alarms_shown(self, event: truth.AlarmsShown) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None:
            if engine.doubts and not engine.believes:
                engine.able_from = event.at
            engine.alarms = frozenset(event.alarms)

    # -- agents and routes

    def _on_agent_changed(self, event: truth.AgentChanged) -> None:
        agent = self.agents.get(event.instance)
        if agent is None or agent.generation != event.generation:
            agent = AgentSeen(event.instance, event.generation, event.service, event.job_id, event.at)
            self.agents[event.instance] = agent
        was_ready = agent.ready
        agent.state, agent.since = event.state, event.at
        self._note_readiness(agent, was_ready)
        token = self.by_instance.get(event.instance)
        if event.state == "gone" and token is not None and token.job is not None and token.job.lost:
            self.written_off_at[token.service] = self.now
            self._retire(token)  # Slurm has forgotten it, and now it is gone

    def _on_agent_reachable(self, event: truth.AgentReachable) -> None:
        agent = self.agents.get(event.instance)
        if agent is None or agent.generation != event.generation or agent.reachable == event.reachable:
            return
        was_ready = agent.ready
        agent.reachable, agent.reached_since = event.reachable, event.at
        if not event.reachable:
            agent.cut_off_at = event.at
        self._note_readiness(agent, was_ready)

    def _note_readiness(self, agent: AgentSeen, was_ready: bool) -> None:
        if agent.ready and not was_ready:
            if agent.ready_since is None or self.now - agent.left_ready_at > grace.FLAP_S:
                agent.ready_since = self.now
            agent.served = True
        elif was_ready and not agent.ready:
            agent.left_ready_at = self.now
            agent.was_ready_s = self.now - (agent.ready_since or self.now)

    def _on_drain_heard(self, event: truth.DrainHeard) -> None:
        agent = self.agents.get(event.instance)
        if agent is None or agent.generation != event.generation:
            return
        agent.draining = event.draining
        if event.draining:
            agent.drained_at, agent.drained_well = event.at, agent.ready
        else:
            agent.withdrawn_at = event.at
            token = self.by_instance.get(event.instance)
            if token is not None:
                token.drained_for, token.by_order = None, False

    def _on_routes_read(self, event: truth.RoutesRead) -> None:
        self.routes_before = self.routes.get(event.host, {})
        self.routes[event.host] = {route.instance: route for route in event.routes}

    # -- clients

    def _on_request_opened(self, event: truth.RequestOpened) -> None:
        self.streams[event.stream] = Stream(event.instance, event.generation, event.at)

    def _on_request_ended(self, event: truth.RequestEnded) -> None:
        self.ended_stream = self.streams.pop(event.stream, None)

    # -- faults

    def _on_fault_began(self, event: truth.FaultBegan) -> None:
        self.faults[event.kind, event.subject] = event.at
        if "clock" in event.kind:
            self.jumped_at = event.at

    def _on_fault_ended(self, event: truth.FaultEnded) -> None:
        self.faults.pop((event.kind, event.subject), None)
        self.fault_over[event.kind, event.subject] = event.at
        if "clock" in event.kind:
            self.jumped_at = event.at
