"""Each drain that an agent hears, and each stream that is cut: promises 10, 11, 12 and 15."""

from __future__ import annotations

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace, standing, timeline
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.oracle.records import AgentSeen, EngineSeen, JobSeen, Token
from saia_engine.simulator.truth import Wish

SHRINKS_WITHIN_S = 600.0
"""Fewer were wanted so shortly ago: what drains now may be the surplus, held up by min_available or a freeze."""


class Drains:
    """Judges a drain after the ledger has taken it."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._confirmed: dict[str, float] = {}
        """By service: when an operator last took the consequences."""
        self._kills: dict[str, float] = {}
        """By service: when one was last ended for its health."""
        self._heirs: dict[str, str] = {}
        """By instance that took over: for whom."""

    def ordered(self, order: truth.OperatorOrdered) -> None:
        if order.confirmed:
            self._confirmed[order.service] = order.at

    def heard(self, event: truth.DrainHeard) -> None:
        ledger = self._ledger
        token, agent = ledger.by_instance.get(event.instance), ledger.agents.get(event.instance)
        if not event.draining:
            self._heirs = {heir: old for heir, old in self._heirs.items() if old != event.instance}
            return
        if token is None or agent is None or token.job is None or agent.generation != event.generation:
            return
        since = self._ordered_since(token)
        wish = ledger.last_wish(token.service)
        over = wish is None or self._admission_over(token.job, wish, since)
        token.by_order = self._by_order(token, agent, since)
        if wish is None:
            return
        if standing.silent(ledger, token, since):
            if not (over or token.by_order or agent.ready or self._taken_over(token, wish, since)):
                self._killed(token, agent, wish)
            token.by_order = True  # nobody counts on one that does not serve
        elif not over:
            self._hand_over(token, wish, since)
            self._floor(token, since)

    def _taken_over(self, token: Token, wish: Wish, since: float) -> bool:
        """Whether it may have been handed over, served or not, or was the first to go of too many."""
        others = [
            t for t in self._ledger.live.get(token.service, {}).values() if t is not token and self._stays(t)
        ]
        if len(others) >= min(
            w.replicas if w else 0 for w in self._ledger.wishes_since(token.service, since)
        ):
            return True
        return standing.can_leave(self._ledger, token, since) and bool(self._ready_heirs(token, wish, since))

    def _killed(self, token: Token, agent: AgentSeen, wish: Wish) -> None:
        """Promise 15: ended for its health, after its deadline, and one at a time."""
        ledger, service = self._ledger, token.service
        if standing.deaf(ledger, token, ledger.now - grace.INFORMED_S):
            return  # when it was ordered nobody out here can tell
        if any(t.revision != token.revision for t in ledger.live.get(service, {}).values()):
            return  # a rollout that failed takes what it began along
        ill_s = self._ill_s(token, agent)
        needs_s = (
            (0.0 if wish.liveness else wish.unready_deadline_s) if agent.served else wish.startup_deadline_s
        )
        if ill_s < needs_s - grace.HEARING_S:
            self._report(
                15,
                f"{token.instance} is ended after {ill_s:.0f} s without serving, it has {needs_s:.0f} s",
                service,
            )
        before = self._kills.get(service, float("-inf"))
        self._kills[service] = ledger.now
        if ledger.now - before < grace.KILL_WINDOW_S - grace.HEARING_S:
            self._report(
                15,
                f"{token.instance} is ended for its health {ledger.now - before:.0f} s after another of {service}",
                service,
            )

    def _ill_s(self, token: Token, agent: AgentSeen) -> float:
        if agent.served:
            return self._ledger.now - agent.left_ready_at
        started_at = token.job.started_at if token.job else None
        return self._ledger.now - (agent.began_at if started_at is None else started_at)

    def _ordered_since(self, token: Token) -> float:
        """What was so before this and still is, the engine knew when it gave the order."""
        ledger = self._ledger
        engines: list[EngineSeen] = ledger.running or list(ledger.latest)
        if token.ordered_out_at > token.called_at and any(
            ledger.now - e.able_from < grace.HEARING_S for e in ledger.running
        ):
            # An operator's word to the engine before, which nobody could pass on until now.
            engines = [*engines, *[e for e in ledger.latest if e.answers and not e.running][-1:]]
        known = min((e.view_from for e in engines), default=ledger.now)
        agent = ledger.agents[token.instance]
        since = min(known, ledger.now - grace.HEARING_S)
        if agent.began_at + ledger.began.shared_delay_s + grace.HEARING_S >= ledger.now:
            return min(since, agent.began_at)
        # It may have been ordered while it could not hear.
        return min(since, agent.cut_off_at) if agent.reached_since >= since else since

    def _admission_over(self, job: JobSeen, wish: Wish, since: float) -> bool:
        now = self._ledger.now
        return any(
            end is not None and now >= timeline.admit_until(end, wish) - grace.ROUNDING_S
            for end in job.ends_since(since)
        )

    def _by_order(self, token: Token, agent: AgentSeen, since: float) -> bool:
        """Whether it may be no hand-over: an operator's will, a removal, a surplus or a rollout."""
        ledger = self._ledger
        if token.ordered_out_at > token.called_at:
            return True
        wishes = ledger.wishes_since(token.service, since)
        if any(w is None for w in wishes):
            return True
        if token.revision and token.revision not in self._wanted_revisions(token.service):
            return True
        fewest = min(w.replicas for w in wishes if w is not None)
        others = [t for t in ledger.live.get(token.service, {}).values() if t is not token and self._stays(t)]
        from_, until = ledger.blind
        lately = ledger.now - SHRINKS_WITHIN_S
        shrunk = ledger.wished_more_since(
            token.service, min(since, lately, from_ if until > lately else since)
        )
        if shrunk and len(others) >= fewest:
            return True
        if len(others) >= fewest and any(t.late for t in (*others, token)):
            wish = ledger.last_wish(token.service)
            proven_s = wish.min_ready_s if wish else 0.0
            unproven = agent.ready_since is None or since < agent.ready_since + proven_s
            return unproven or bool(standing.ready_others(ledger, token, proven_s, since))
        staying_ones = (*others, token)
        extras = sum(
            1
            for t in staying_ones
            if t.extra and t.instance not in self._heirs and any(_precedes(o, t) for o in staying_ones)
        )
        # Each takes over from another one that is still there.
        staying = len(others) + 1
        return staying > fewest + min(extras, staying // 2)

    def _wanted_revisions(self, service: str) -> set[str]:
        """What a rollout, forward or back, may be bringing in; empty where that is not clear."""
        history, last = self._ledger.wishes[service], self._ledger.last_submit.get(service)
        wish = history[-1][1]
        if wish is None:
            return set()
        asked_at = history[-1][0]
        for began, older in reversed(history):
            if older is None or older.revision != wish.revision:
                break
            asked_at = began
        return {wish.revision} if last is None or asked_at >= last.called_at else {last.revision}

    def _stays(self, token: Token) -> bool:
        """It may fill a slot in the engine's eyes."""
        agent = self._ledger.agents.get(token.instance)
        return agent is None or not agent.draining

    def _hand_over(self, token: Token, wish: Wish, since: float) -> None:
        """Promise 11: its replacement has been ready for min_ready."""
        if token.by_order:
            return
        ready = self._ready_heirs(token, wish, since)
        if ready:
            heir = min(ready, key=lambda t: (not t.extra, t.called_at))
            self._heirs[heir.instance] = token.instance
            token.drained_for = heir
            return
        end = token.job.end if token.job else None
        left = (
            ""
            if end is None
            else f", {timeline.admit_until(end, wish) - self._ledger.now:.0f} s before admit_until"
        )
        self._report(
            11,
            f"{token.instance} drains{left}, and nobody newer has been ready for {wish.min_ready_s:.0f} s",
            token.service,
        )

    def _ready_heirs(self, token: Token, wish: Wish, since: float) -> list[Token]:
        """Who may have taken over from it: newer, proven, and nobody else's replacement."""
        return [
            t
            for t in standing.ready_others(self._ledger, token, wish.min_ready_s, since)
            if t.called_at > token.called_at and not t.filler and t.instance not in self._heirs
        ]

    def _floor(self, token: Token, since: float) -> None:
        """Promise 10: enough others are routable."""
        ledger = self._ledger
        ready_since = ledger.agents[token.instance].ready_since
        if token.missing_since is not None or ready_since is None or ready_since > since:
            return  # to its engine it is lost already, or is not ready yet
        wishes = ledger.wishes_since(token.service, since)
        floor = min(min(w.min_available, w.replicas) if w else 0 for w in wishes)
        if floor == 0 or self._confirmed.get(token.service, float("-inf")) >= token.called_at:
            return
        left = len(standing.ready_others(ledger, token, 0.0, since))
        if left < floor:
            self._report(
                10,
                f"{token.instance} drains and leaves {left} ready, min_available is {floor}",
                token.service,
            )

    def cut(self, event: truth.RequestEnded) -> None:
        """Promise 12: no stream is cut by us before its time."""
        stream = self._ledger.ended_stream
        if stream is None or event.how != "cut" or event.cause != "engine":
            return
        ledger = self._ledger
        token, agent = ledger.by_instance.get(stream.instance), ledger.agents.get(stream.instance)
        wish = ledger.last_wish(token.service) if token else None
        if token is None or token.job is None or wish is None or agent is None or token.cut_asked:
            return
        since = min((e.view_from for e in ledger.running), default=ledger.now)
        if standing.deaf(ledger, token, agent.drained_at - grace.HEARING_S):
            return  # when it was ordered to drain nobody out here can tell
        ends = [
            end
            for end in token.job.ends_since(min(since, token.cancelled_at - grace.ROUTES_S))
            if end is not None
        ]
        at = min([timeline.last_cut(end, wish) for end in ends], default=float("inf"))
        if token.by_order and agent.draining:
            at = min(at, agent.drained_at - grace.HEARING_S + self._shortest_drain(token.service, since))
        if ledger.now < at - grace.ROUNDING_S:
            self._report(
                12,
                f"a stream of {stream.instance} was cut {at - ledger.now:.0f} s before its time"
                f" ({'by order' if token.by_order else 'in a hand-over'})",
                token.service,
            )

    def _shortest_drain(self, service: str, since: float) -> float:
        wishes = [w for w in self._ledger.wishes_since(service, since) if w is not None]
        return min((w.drain_deadline_s for w in wishes), default=0.0)


def _precedes(old: Token, heir: Token) -> bool:
    """Whether one may be the other's replacement: it ran then, and has not been requeued since."""
    started_at = old.job.started_at if old.job else None
    return old is not heir and started_at is not None and started_at < heir.called_at
