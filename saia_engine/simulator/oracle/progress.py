"""What must come about in time: promises 1 (a surplus goes), 20, 22, 23 and 24.

Judged at each good answer, when the engine has no excuse: a condition must have held, undisturbed, for longer than
an engine needs to end it.
"""

from __future__ import annotations

from collections.abc import Iterator

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace, standing, timeline
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.oracle.records import FAR_PAST, EngineSeen, Token
from saia_engine.simulator.truth import Wish

POLLS = 5
"""Promise 22 allows so many."""


class Progress:
    """Judges after the ledger has taken the event."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._later = findings.later
        self._held: dict[tuple[str, str], float] = {}
        """By condition and service: since when it holds."""
        self._failed_at: dict[str, float] = {}
        """By service: when an engine last learned of a failure."""
        self._unseen: set[str] = set()
        """Services with an end that no good answer has shown yet."""
        self._quiet_from: float | None = None
        self._room: truth.RoomPromised | None = None
        self._reached: set[str] = set()
        self._braked_at = FAR_PAST

    # -- what excuses

    def refused(self, event: truth.SubmitRefused) -> None:
        token = self._ledger.tokens.get(event.name)
        if token is not None:
            self._failed_at[token.service] = event.at

    def job(self, event: truth.JobChanged) -> None:
        token = self._ledger.tokens.get(event.name)
        if token is not None and token.job is not None and token.job.ended_at == event.at:
            self._failed_at[token.service] = event.at
            self._unseen.add(token.service)

    def stopped(self, event: truth.EngineEnded | truth.JournalRefused) -> None:
        """What it had just learned it may not have written down: the next one learns it anew."""
        just_now = event.at - grace.REACT_S
        self._unseen.update(service for service, at in self._failed_at.items() if at >= just_now)

    def _braked(self, service: str) -> bool:
        """A back-off may run, or the hourly bound may be reached."""
        now = self._ledger.now
        failed_at = max(
            self._failed_at.get(service, FAR_PAST), self._ledger.written_off_at.get(service, FAR_PAST)
        )
        if now - failed_at < grace.BACKOFF_MAX_S + 2 * self._ledger.began.poll_s:
            return True
        recent = [name for at, name in self._ledger.submits if now - at < grace.HOUR_S + grace.REACT_S]
        per_hour = min((bound for _, bound in self._ledger.bounds[-3:]), default=0)
        # Whoever ended within the hour may have left an intent that counts and was never carried out.
        unseen = 1 + sum(1 for e in self._ledger.engines.values() if now - e.ended_at < grace.HOUR_S)
        return len(recent) >= per_hour - unseen or recent.count(service) >= max(1, per_hour // 2) - unseen

    # -- at each good answer

    def answered(self, answer: truth.Answered) -> None:
        ledger = self._ledger
        if answer.quality != "good":
            return
        engine = ledger.engines.get(answer.engine)
        if (
            engine is None or engine.refused_at is None
        ):  # what a full journal does not keep, the next one learns
            self._failed_at.update(dict.fromkeys(self._unseen, ledger.now))
            self._unseen.clear()
        if engine is None or standing.hindered(ledger):
            ledger.disturbed_at = max(ledger.disturbed_at, ledger.now if engine else 0.0)
            return
        for service, tokens in ledger.live.items():
            wish = ledger.wish(service)
            alive = list(tokens.values())
            self._supply(service, wish, alive)
            self._surplus(service, wish, alive)
            self._removed(service, wish, alive)
            for token in alive:
                self._stuck(engine, token)
        for service in ledger.wishes.keys() - ledger.live.keys():
            self._supply(service, ledger.wish(service), [])

    def _holds(self, condition: str, service: str, holds: bool, patience_s: float) -> bool:
        """Whether it has held, undisturbed, for longer than that."""
        key, ledger = (condition, service), self._ledger
        if not holds:
            self._held.pop(key, None)
            return False
        since = self._held.setdefault(key, ledger.now)
        return ledger.now - max(since, ledger.disturbed_at) > patience_s + standing.catch_up_s(ledger)

    def _supply(self, service: str, wish: Wish | None, tokens: list[Token]) -> None:
        """Promises 22 and 23: each wanted slot is taken by one whose replacement is not overdue."""
        filling = [t for t in tokens if self._may_fill(t)]
        fresh = [t for t in filling if not self._overdue(t, wish)]
        short = wish is not None and len(fresh) < wish.replicas and not self._braked(service)
        if self._holds("short", service, short, 0.0) and wish is not None:
            overdue = [t for t in filling if t not in fresh]
            promise = 23 if overdue else 22
            told = ", ".join(self._told(t) for t in overdue)
            self._report(
                promise,
                f"{service} wants {wish.replicas}, has {len(fresh)} and nothing is submitted"
                + (f"; overdue to be replaced: {told}" if told else ""),
                service,
            )

    def _told(self, token: Token) -> str:
        end = token.job.end if token.job else None
        return (
            f"{token.instance} ends in {end - self._ledger.now:.0f} s" if end is not None else token.instance
        )

    def _may_fill(self, token: Token) -> bool:
        if token.written_off and token.job is None:
            return False
        agent = self._ledger.agents.get(token.instance)
        return agent is None or not agent.draining or agent.state == "gone"

    def _overdue(self, token: Token, wish: Wish | None) -> bool:
        job = token.job
        if wish is None or job is None or job.started_at is None or job.end is None:
            return False
        end = standing.foreseen_end(self._ledger, job, job.end, self._ledger.now)
        return end is not None and self._ledger.now > timeline.latest_submit(
            end, wish, self._ledger.began.poll_s
        )

    def _surplus(self, service: str, wish: Wish | None, tokens: list[Token]) -> None:
        """Promise 1, the other way round: what is too much is drained or cancelled."""
        ledger = self._ledger
        if wish is None:
            return
        since = ledger.now
        staying = [
            t for t in tokens if t.job is not None and t.job.live and not standing.leaving(ledger, t, since)
        ]
        due = sum(
            1
            for t in staying
            if t.was_due or standing.can_be_due(ledger, t, since - standing.catch_up_s(ledger))
        )
        # One that was launched under a larger max_surge goes its way.
        since = min(ledger.disturbed_at, max((t.called_at for t in staying), default=since))
        surge = standing.rolling(ledger, service, staying, since)
        over = len(staying) > wish.replicas + due + surge
        if self._holds("surplus", service, over, wish.min_ready_s):
            names = ", ".join(t.instance for t in staying)
            self._report(1, f"{service} wants {wish.replicas}, and keeps {len(staying)}: {names}", service)

    def _removed(self, service: str, wish: Wish | None, tokens: list[Token]) -> None:
        """Promise 20: nothing is left of a removed service."""
        ledger, last = self._ledger, self._ledger.last_wish(service)
        left = [
            t
            for t in tokens
            if t.job is not None
            and t.job.live
            and ledger.now - t.cancelled_at > grace.CANCEL_AGAIN_S + grace.KILLED_S
        ]
        patience_s = (last.drain_deadline_s if last else 0.0) + grace.KILLED_S + grace.CANCEL_AGAIN_S
        if self._holds("removed", service, wish is None and bool(left), patience_s):
            names = ", ".join(t.instance for t in left)
            self._report(20, f"{service} is not wanted any more, and has {names}", service)

    # -- promise 24

    def _stuck(self, engine: EngineSeen, token: Token) -> None:
        """A state that lasts too long raises an alarm, or is ended."""
        ledger, job, wish = self._ledger, token.job, self._ledger.last_wish(token.service)
        if job is None or wish is None or not job.live or token.missing_since is not None:
            return
        if token.cancelled_at > token.called_at or job.started_at is None:
            return
        # Whoever has just begun to look may see it start.
        seen_at = max(job.started_at, token.found_at, token.start_shown[1], min(engine.able_from, ledger.now))
        for what, deadline in self._deadlines(token, wish, seen_at):
            patient_until = max(deadline, ledger.disturbed_at) + grace.ALARM_S + standing.catch_up_s(ledger)
            if ledger.now > patient_until and not any(
                subject == token.instance for _, subject in engine.alarms
            ):
                self._report(
                    24,
                    f"{token.instance} {what}, {ledger.now - deadline:.0f} s over its deadline, and no alarm says so",
                    token.instance,
                )

    def _deadlines(self, token: Token, wish: Wish, started_at: float) -> Iterator[tuple[str, float]]:
        agent = self._ledger.agents.get(token.instance)
        if agent is None or agent.generation != (token.job.restarts if token.job else 0):
            yield "has no agent", started_at + (wish.startup_deadline_s or grace.STARTUP_S)
        elif agent.draining:
            end = token.job.end if token.job else None
            if max(token.ordered_out_at, token.removed_at) > token.called_at:
                yield "drains", agent.drained_at + wish.drain_deadline_s
            elif end is not None:
                yield "drains", timeline.last_cut(end, wish)
        elif not agent.served:
            yield "starts", started_at + (wish.startup_deadline_s or grace.STARTUP_S)
        elif not agent.ready:
            allowed_s = wish.unready_deadline_s or grace.UNREADY_S
            seen_ready_s = min(agent.was_ready_s, agent.left_ready_at - started_at)
            unproven = seen_ready_s < grace.UNPROVEN_S
            if token.found_at > agent.began_at or unproven:  # to its engine it seems to start
                allowed_s = max(allowed_s, wish.startup_deadline_s or grace.STARTUP_S)
            yield "does not serve", max(agent.left_ready_at, started_at) + allowed_s

    # -- promise 22, once all faults have stopped

    def faults_stopped(self, event: truth.FaultsStopped) -> None:
        self._quiet_from = event.at
        self._reached.clear()
        self._arm()

    def room(self, event: truth.RoomPromised) -> None:
        self._room = event
        self._arm()

    def fault(self, event: truth.FaultBegan) -> None:
        self._quiet_from = None

    def _arm(self) -> None:
        if self._quiet_from is not None and self._room is not None:
            self._later(self._deadline(), self._judge)
            self._look()

    def _deadline(self) -> float:
        assert self._quiet_from is not None and self._room is not None
        began = self._ledger.began
        quiet = max(self._quiet_from, self._room.at, self._braked_at)
        return quiet + (
            POLLS * began.poll_s
            + grace.BACKOFF_MAX_S
            + self._room.queue_s
            + self._room.load_s
            + 2 * began.command_timeout_s
            + grace.UNROUTE_S
        )

    def look_at(self, event: truth.Event) -> None:
        """Something changed at agents or gates."""
        if self._quiet_from is not None:
            self._look()

    def _look(self) -> None:
        """Notes which services have what they want."""
        ledger = self._ledger
        for service, history in ledger.wishes.items():
            wish = history[-1][1]
            if service not in self._reached and (wish is None or self._serving(service) >= wish.replicas):
                self._reached.add(service)

    def _serving(self, service: str) -> int:
        """How many are ready, do not drain, and stand in the routes of a host whose engine runs."""
        ledger, count = self._ledger, 0
        for token in ledger.live.get(service, {}).values():
            agent = ledger.agents.get(token.instance)
            if agent is None or not agent.ready or agent.draining:
                continue
            routed = any(
                token.instance in routes and ledger.engine_of(host) is not None
                for host, routes in ledger.routes.items()
            )
            count += 1 if routed else 0
        return count

    def _judge(self) -> None:
        ledger = self._ledger
        if self._quiet_from is None or self._room is None:
            return
        if standing.maybe_frozen(ledger) or any(self._bound_reached(s) for s in ledger.wishes):
            self._braked_at = ledger.now
        if ledger.now < self._deadline():
            self._later(self._deadline(), self._judge)
            return
        waits_until = max((self._ill_until(service) for service in self._missing()), default=FAR_PAST)
        if ledger.now < waits_until:
            self._later(waits_until, self._judge)
            return
        for service in self._missing():
            wish = ledger.wish(service)
            if wish is not None:
                self._report(
                    22,
                    f"{service} wants {wish.replicas} and has {self._serving(service)} ready,"
                    f" {ledger.now - self._quiet_from:.0f} s after the last fault",
                    service,
                )
        self._quiet_from = None

    def _missing(self) -> list[str]:
        return [s for s in self._ledger.wishes if self._ledger.wish(s) is not None and s not in self._reached]

    def _ill_until(self, service: str) -> float:
        """Who was ill before all faults stopped is given up, and replaced, after its own deadline."""
        assert self._quiet_from is not None and self._room is not None
        ledger, until = self._ledger, FAR_PAST
        for token in ledger.live.get(service, {}).values():
            agent, wish = ledger.agents.get(token.instance), ledger.last_wish(service)
            started_at = token.job.started_at if token.job else None
            if started_at is None or wish is None or started_at > self._quiet_from or (agent and agent.ready):
                continue
            given_up_at = max(started_at, token.found_at) + (wish.startup_deadline_s or grace.STARTUP_S)
            until = max(until, given_up_at + grace.KILL_WINDOW_S)
        return until + standing.catch_up_s(ledger) + self._room.queue_s + self._room.load_s

    def _bound_reached(self, service: str) -> bool:
        now = self._ledger.now
        recent = [name for at, name in self._ledger.submits if now - at < grace.HOUR_S + grace.REACT_S]
        per_hour = self._ledger.bound_since(now)
        return len(recent) >= per_hour or recent.count(service) >= max(1, per_hour // 2)
