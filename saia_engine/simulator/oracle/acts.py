"""Each sbatch and scancel as it is called: who may act, on what knowledge, and on what (1-7, 14, 16, 18, 19, 21)."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace, standing, timeline
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import BAD, Ledger, service_of
from saia_engine.simulator.oracle.records import FAR_PAST, EngineSeen, JobSeen, Token

CRASHES_KEPT = 16
LEASES_LOOKED_AT = 4


@dataclass(slots=True)
class _End:
    at: float
    what: tuple[str, str]
    """Service and revision."""
    crashed: bool
    token: Token
    seen_at: float = float("inf")
    """When the first answer was asked for that may have shown it."""


class Acts:
    """Judges a call before the ledger has taken it."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._later = findings.later
        self._extra = self._filler = False
        self._crashes: dict[tuple[str, str], deque[float]] = {}
        """By service and revision: when each failure in a row was seen. A good revision need not wait for a bad one."""
        self._refused: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=8))
        """By service: when Slurm refused a launch."""
        self._ends: list[_End] = []
        """Those that no good answer has shown yet."""

    # -- submits

    def submit(self, call: truth.SubmitCalled) -> None:
        engine = self._actor(call.engine, f"submitted {call.name}")
        service = service_of(call.name)
        self._extra = self._filler = False
        if not service or call.name in self._ledger.tokens:
            self._report(
                3, f"{call.name} is no new token of ours: a launch cannot be told from another", call.name
            )
            return
        if engine is not None:
            self._informed(engine, f"submitted {call.name}")
            if service in engine.frozen_services:
                self._report(
                    7,
                    f"{engine.name} submitted {call.name} though half of our jobs are gone at once",
                    service,
                )
            self._room(call, engine, service)
            self._back_off(service, call.revision, engine.plan_from)
        self._rate(service)

    def _room(self, call: truth.SubmitCalled, engine: EngineSeen, service: str) -> None:
        ledger, since = self._ledger, engine.view_from
        taken = standing.occupying(ledger, service, since)
        wanted = max((w.replicas if w else 0) for w in ledger.wishes_since(service, since))
        for token in ledger.live.get(service, {}).values():
            # Once due, it stays so: its replacement may be under way.
            token.was_due = token.was_due or standing.can_be_due(ledger, token, since)
        due = [t for t in taken if t.was_due]
        surge = standing.rolling(ledger, service, [*taken, _of(call, service)], since)
        self._extra = len(taken) >= wanted
        known = len(ledger.live.get(service, ())) + len(ledger.unseen_ends.get(service, ()))
        # What was refused just before had a slot in the same plan.
        known += sum(at >= engine.plan_from for at in self._refused[service])
        # What its predecessor wrote down just before it ended, and never did, is in its records.
        intents_known = ledger.now - engine.started_at > grace.INTENT_S
        self._filler = intents_known and known < min(
            (w.replicas if w else 0) for w in ledger.wishes_since(service, since)
        )
        if len(taken) < wanted + len(due) + surge:
            return
        names = ", ".join(f"{t.instance} ({_stand(t)})" for t in taken) or "none"
        text = (
            f"{engine.name} submitted {call.name}: {wanted} wanted, {len(due)} due, surge {surge};"
            f" there were {names}"
        )
        blame, room = self._blame(taken), wanted + len(due) + surge

        def judge() -> None:
            """Whoever was ordered out by the same plan has heard of it by now, if its engine has not ended."""
            staying = [t for t in taken if not self._left_since(t, call.at)]
            if not self._runs(call.engine):  # a late twin, or the rollout's next, may have been
                staying = [t for t in staying if not t.late and t.revision in ("", call.revision)]
            if len(staying) >= room:
                self._report(blame, text, service)

        self._later(call.at + grace.HEARING_S, judge)

    def _left_since(self, token: Token, since: float) -> bool:
        agent = self._ledger.agents.get(token.instance)
        return token.cancelled_at >= since or (agent is not None and agent.drained_at >= since)

    def _blame(self, taken: list[Token]) -> int:
        """Which promise stands for a job too many."""
        open_ones = [t for t in taken if t.job is None or t.outcome == "unknown"]
        if any(not self._runs(t.engine) for t in open_ones):
            return 3  # its engine ended in the middle of it: the intent was to tell the next one
        return 4 if open_ones else 1

    def submitted(self, call: truth.SubmitCalled) -> None:
        """Called once the ledger has taken it."""
        token = self._ledger.tokens.get(call.name)
        if token is not None:
            token.extra, token.filler = self._extra, self._filler

    def accepted(self, event: truth.JobAccepted) -> None:
        """Promise 1: one job for each launch. Called once the ledger has taken it."""
        token = self._ledger.tokens.get(event.name)
        if token is not None and token.job is not None and event.engine and token.job.id != event.job_id:
            self._report(1, f"{event.name} is job {token.job.id} and now job {event.job_id}, too", event.name)

    def _runs(self, engine: str) -> bool:
        seen = self._ledger.engines.get(engine)
        return seen is not None and seen.running

    def _rate(self, service: str) -> None:
        """Promise 16: submits per hour, in all and per service."""
        ledger, now = self._ledger, self._ledger.now
        since = max(now - grace.HOUR_S + grace.HOUR_EDGE_S, ledger.remembered_from)
        recent = [name for at, name in ledger.submits if at > since] + [service]
        per_hour = ledger.bound_since(now - grace.HOUR_S)
        if len(recent) > per_hour:
            self._report(16, f"{len(recent)} submits within an hour, {per_hour} are allowed", "cluster")
        several = sum(1 for history in ledger.wishes.values() if history[-1][1] is not None) > 1
        own = recent.count(service)
        if several and own > max(1, per_hour // 2):
            self._report(
                16, f"{own} submits of {service} within an hour, half of {per_hour} are allowed", service
            )

    def _back_off(self, service: str, revision: str, plan_from: float) -> None:
        """Promise 16: after failures in a row, as every engine must have seen them, the next launch waits."""
        if any(self._given_up(token) for token in self._ledger.live.get(service, {}).values()):
            return  # its engine may have counted that as an end of any kind
        count, at = 0, FAR_PAST
        for seen_at in self._crashes.get((service, revision), ()):
            if seen_at > plan_from or self._ledger.now - seen_at > grace.HOUR_S:
                continue  # it came while the plan was carried out, or is older than an engine's memory
            if self._ledger.written_off_at.get(service, FAR_PAST) > seen_at - grace.BACKOFF_MAX_S:
                return  # how the engine counts what went without a word is its own affair
            count += 1 if seen_at - at >= grace.APART_S or count == 0 else 0
            at = seen_at
        wait_s = min(grace.BACKOFF_MAX_S, grace.BACKOFF_FIRST_S * 2.0 ** (count - 1)) if count else 0.0
        passed = self._ledger.now - at
        if passed < wait_s - grace.ROUNDING_S:
            self._report(
                16,
                f"{service} was submitted {passed:.0f} s after failure {count} in a row was seen;"
                f" it must wait {wait_s:.0f} s",
                service,
            )

    def _given_up(self, token: Token) -> bool:
        job = token.job
        if job is None or job.state != "COMPLETING":
            return False
        return self._ledger.now - job.state_since > grace.COMPLETING_S

    def refused(self, event: truth.SubmitRefused) -> None:
        token = self._ledger.tokens.get(event.name)
        heard = event.answered and self._runs(event.engine)
        if token is not None and heard:
            self._refused[token.service].append(event.at)
            self._failed((token.service, token.revision), event.at)

    def ended(self, event: truth.JobChanged) -> None:
        """Notes what is a crash without doubt, and what is none."""
        token = self._ledger.tokens.get(event.name)
        job = token.job if token else None
        if token is None or job is None or job.ended_at != event.at or job.id != event.job_id:
            return
        agent = self._ledger.agents.get(token.instance)
        served = agent is not None and agent.served
        by_itself = job.cause in ("service", "fault") and token.cancelled_at < token.called_at
        plain = not token.was_missing and token.found_at < token.called_at and not job.completed_late
        crashed = by_itself and plain and not served and not token.forgotten
        self._ends.append(_End(event.at, (token.service, token.revision), crashed, token))

    def answered(self, answer: truth.Answered) -> None:
        """What a good answer shows its engine knows; one good end forgives what was seen up to then."""
        if answer.quality in BAD:
            return
        for end in self._ends:
            if end.at <= answer.at:
                end.seen_at = min(end.seen_at, answer.began)
        if answer.quality != "good":
            return  # whoever exits may have left its word, which counts with any answer that lacks its job
        shown = [end for end in self._ends if end.at <= answer.began]
        self._ends = [end for end in self._ends if end.at > answer.began]
        for end in shown:
            self._failed(end.what, end.seen_at)
        for end in shown:
            if not end.crashed or self._never_shown(end.token):
                self._crashes.pop(end.what, None)

    def _never_shown(self, token: Token) -> bool:
        """Nobody has the answer to its submit, and Slurm has forgotten its job before an answer could show it."""
        answered = token.outcome == "taken" and self._runs(token.engine)
        return not token.shown and not answered and (token.job is None or not token.job.in_table)

    def _failed(self, what: tuple[str, str], seen_at: float) -> None:
        self._crashes.setdefault(what, deque(maxlen=CRASHES_KEPT)).append(seen_at)

    def stopped(self, event: truth.EngineEnded | truth.JournalRefused) -> None:
        """What it had just learned may be noted, or learned anew by the next one: it does not count."""
        just_now = event.at - grace.REACT_S
        for what, seen in self._crashes.items():
            self._crashes[what] = deque((at for at in seen if at < just_now), maxlen=CRASHES_KEPT)

    def configured(self, event: truth.Configured) -> None:
        """What changed may start afresh."""
        for what in list(self._crashes):
            if self._ledger.wishes[what[0]][-1][0] == event.at:
                del self._crashes[what]

    def engine_started(self, event: truth.EngineStarted) -> None:
        """Who has another journal, or none, has not got the count."""
        if self._ledger.remembered_from == event.at:
            self._crashes.clear()
            self._ends.clear()

    # -- cancels

    def cancel(self, call: truth.CancelCalled) -> None:
        ledger = self._ledger
        told = f"cancelled job {call.job_id} ({call.name})"
        engine = self._actor(call.engine, told)
        token = ledger.tokens.get(call.name)
        if not ledger.is_ours(call.name, call.user) or token is None:
            self._report(2, f"{call.engine} {told} of user {call.user}: not ours", call.name)
            return
        if engine is None:
            return
        self._informed(engine, told)
        if engine.frozen_at is not None:
            self._report(7, f"{engine.name} {told} though half of our jobs are gone at once", call.name)
        job = ledger.table.get(call.job_id)
        if self._right_job(engine, call, job) and job is not None:
            self._drained_before(engine, token, job)

    def _right_job(self, engine: EngineSeen, call: truth.CancelCalled, job: JobSeen | None) -> bool:
        since = engine.view_from
        told = f"{engine.name} cancelled job {call.job_id} as {call.name}"
        if job is None:
            token = self._ledger.tokens[call.name]
            left_at = token.job.left_table_at if token.job else float("-inf")
            if left_at < since and (token.job is None or token.job.id == call.job_id):
                self._report(2, f"{told}, which Slurm does not know", call.name)
            elif token.job is not None and token.job.id != call.job_id:
                self._report(2, f"{told}, whose job is {token.job.id}", call.name)
            return False
        if (job.name, job.user) != (call.name, call.user):
            if job.accepted_at < since:
                self._report(2, f"{told}, which is {job.name} of {job.user}", call.name)
            return False
        if not job.live and job.state != "COMPLETING" and (job.ended_at or 0.0) < since:
            self._report(
                2, f"{told}, which ended {self._ledger.now - (job.ended_at or 0.0):.0f} s ago", call.name
            )
            return False
        return True

    def _drained_before(self, engine: EngineSeen, token: Token, job: JobSeen) -> None:
        """Drain comes before cancel, always; of a requeued job the drain of this generation."""
        ledger, since = self._ledger, engine.view_from
        agent = ledger.agents.get(token.instance)
        if job is not token.job or job.started_at is None or job.started_at >= since:
            return  # a late twin, or one that had not started when the engine looked
        if job.restarted_at >= since or standing.deaf(ledger, token, since):
            return
        if agent is None or not agent.served or agent.draining or agent.withdrawn_at >= since:
            return  # it has heard of its drain, or never had anything to lose
        wish = ledger.last_wish(token.service)
        ends = [end for end in job.ends_since(since) if end is not None]
        if wish is not None and any(ledger.now >= timeline.last_cut(end, wish) for end in ends):
            return  # whoever comes so late may cut
        promise = 8 if job.restarts else 12
        self._report(
            promise,
            f"{engine.name} cancelled job {job.id} ({token.instance}, generation {job.restarts}) without a drain:"
            f" its agent is {agent.state} and heard of none",
            token.instance,
        )

    # -- who may act

    def _actor(self, name: str, told: str) -> EngineSeen | None:
        """Promises 18, 19 and 21."""
        engine, ledger = self._ledger.engines.get(name), self._ledger
        if engine is None:
            self._report(21, f"{name or 'nobody'} {told}, and is no engine", name)
            return None
        if not engine.running:
            self._report(18, f"{name} {told} after its end", name)
            return None
        if engine.refused_at is not None:
            self._report(19, f"{name} {told} after its journal had failed", name)
        newer = [e for e in ledger.running if e.turn > engine.turn and e.host == engine.host]
        if newer or ledger.last_acted > engine.turn:
            self._report(18, f"{name} {told} after a newer engine acts", name)
        for lease in ledger.leases[engine.turn + 1 :]:
            hidden_s = 0.0 if lease.host == engine.host else ledger.began.shared_delay_s
            if ledger.now > lease.at + hidden_s + grace.LEASE_GAP_S:
                self._report(
                    18, f"{name} {told}, {ledger.now - lease.at:.0f} s after its lease was taken", name
                )
        self._waited(engine, told)
        if ledger.now > engine.busy_until:
            engine.plan_from = ledger.now
        engine.busy_until = ledger.now + ledger.began.command_timeout_s + grace.NEXT_ACT_S
        ledger.last_acted = max(ledger.last_acted, engine.turn)
        return engine

    def _waited(self, engine: EngineSeen, told: str) -> None:
        """Who takes over waits until the other one must have seen it, and its longest act is over."""
        ledger = self._ledger
        before = None
        for lease in ledger.leases[-LEASES_LOOKED_AT:]:
            if lease.engine == engine.name and before is not None and before.host != engine.host:
                wait_s = ledger.began.shared_delay_s + ledger.began.command_timeout_s
                if ledger.now < lease.at + wait_s - grace.ROUNDING_S:
                    self._report(
                        18,
                        f"{engine.name} {told} {ledger.now - lease.at:.0f} s after it took over",
                        engine.name,
                    )
            before = lease

    def _informed(self, engine: EngineSeen, told: str) -> None:
        """Promises 5, 6 and 14: nothing follows from a bad answer."""
        if engine.quality in BAD or not engine.quality:
            promise = {"young": 5, "clock": 14}.get(engine.quality, 6)
            self._report(
                promise, f"{engine.name} {told} after a {engine.quality or 'missing'} answer", engine.name
            )


def _of(call: truth.SubmitCalled, service: str) -> Token:
    return Token(call.name, call.name.removeprefix("saia."), service, call.revision, call.at, call.engine)


def _stand(token: Token) -> str:
    if token.job is None:
        return f"submit {token.outcome}"
    return f"job {token.job.id} {token.job.state}" + (", forgotten by Slurm" if token.job.lost else "")
