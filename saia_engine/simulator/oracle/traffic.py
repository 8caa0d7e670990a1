"""What the gates are told, and what clients meet: promises 8, 9, 12, 13, 15 and 19."""

from __future__ import annotations

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import grace, standing, timeline
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import Ledger
from saia_engine.simulator.oracle.records import AgentSeen, EngineSeen, JobSeen, Token
from saia_engine.simulator.truth import ReadRoute

NO_END = 4e9
"""So late or later is a route's end of a job without one."""


class Traffic:
    """Judges tables and requests after the ledger has taken them."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._later = findings.later

    # -- tables

    def read(self, event: truth.RoutesRead) -> None:
        ledger = self._ledger
        engine = ledger.engine_of(event.host)
        if engine is None:
            return
        for route in event.routes:
            token, agent = ledger.by_instance.get(route.instance), ledger.agents.get(route.instance)
            if token is None or agent is None or token.job is None:
                self._report(
                    9, f"there is a route to {route.instance}, whose job has never run", route.instance
                )
                continue
            self._generation(engine, route, agent, token.job)
            if engine.acting:
                self._times(engine, route, token)
            if not route.draining and not agent.served and agent.generation == route.generation:
                self._report(
                    9, f"there is a route to {route.instance}, which has never been ready", route.instance
                )
            if not agent.ready and not route.draining:
                self._watch(route.instance)
        present = {route.instance for route in event.routes}
        for name, route in ledger.routes_before.items():
            if name not in present:
                self._vanished(engine, route)

    def _generation(self, engine: EngineSeen, route: ReadRoute, agent: AgentSeen, job: JobSeen) -> None:
        """Promises 8 and 9: the present generation and its secret."""
        known_from = engine.view_from_at(self._ledger.now - grace.ROUTES_S)
        if route.generation != job.restarts:
            if engine.acting and job.restarted_at < known_from and job.in_table:
                self._report(
                    8,
                    f"the route to {route.instance} is of generation {route.generation}, its job is in"
                    f" {job.restarts} for {self._ledger.now - job.restarted_at:.0f} s",
                    route.instance,
                )
        elif agent.generation == route.generation and agent.state != "gone" and not route.secret_valid:
            self._report(
                9, f"the route to {route.instance} has a secret that its agent never had", route.instance
            )

    def _times(self, engine: EngineSeen, route: ReadRoute, token: Token) -> None:
        """Promise 13: the end is Slurm's, as of the last poll; admission follows from it (promise 12)."""
        ledger, job = self._ledger, token.job
        if job is None or not job.live or job.started_at is None or token.missing_since is not None:
            return
        since = engine.view_from_at(ledger.now - grace.ROUTES_S)
        ends = [NO_END if end is None else end for end in job.ends_since(since)]
        if not any(_same(route.end, end) for end in ends):
            self._report(
                13,
                f"the route to {route.instance} ends at {route.end:.0f}, its job at {ends[0]:.0f}"
                f" since {ledger.now - job.ends[-1][0]:.0f} s",
                route.instance,
            )
        wishes = [w for w in ledger.wishes_since(token.service, since) if w is not None]
        latest = max((timeline.admit_until(route.end, w) for w in wishes), default=None)
        if latest is not None and route.admit_until > latest + grace.ROUNDING_S:
            self._report(
                12,
                f"{route.instance} admits {route.admit_until - latest:.0f} s longer than its end allows",
                route.instance,
            )

    def _vanished(self, engine: EngineSeen, route: ReadRoute) -> None:
        """A route of one that serves well is gone: after a failed journal (19), or after one failed probe (15)."""
        ledger = self._ledger
        token, agent = ledger.by_instance.get(route.instance), ledger.agents.get(route.instance)
        if token is None or token.job is None or agent is None or route.draining:
            return
        if agent.generation != route.generation or not token.job.live or agent.draining or not agent.ready:
            return
        since = engine.view_from
        if engine.refused_at is not None and route.instance in engine.kept:
            self._report(
                19,
                f"{engine.name} took {route.instance} from the routes after its journal had failed",
                token.service,
            )
            return
        settled = ledger.now - max(agent.left_ready_at, agent.reached_since, agent.began_at) > grace.UNROUTE_S
        undrained = (
            token.ordered_out_at < token.called_at and agent.withdrawn_at < ledger.now - grace.INFORMED_S
        )
        young = ledger.now - min(engine.able_from, ledger.now) < grace.UNROUTE_S + ledger.began.shared_delay_s
        if (
            settled
            and undrained
            and not young
            and token.missing_since is None
            and token.job.restarted_at < since
        ):
            self._soon_drained(token, agent)

    def _soon_drained(self, token: Token, agent: AgentSeen) -> None:
        """The table may be ahead of the agent's ear: it is asked again a little later."""
        left_at = self._ledger.now

        def judge() -> None:
            job = token.job
            excused = (
                agent.draining
                or agent.drained_at >= left_at
                or not agent.ready
                or agent.left_ready_at >= left_at
            )
            if not excused and job is not None and job.live:
                self._report(
                    15,
                    f"{token.instance} left the routes though it was ready, could be reached and was not drained",
                    token.service,
                )

        self._later(left_at + grace.HEARING_S, judge)

    # -- agents that do not serve

    def agent(self, event: truth.AgentChanged | truth.AgentReachable) -> None:
        agent = self._ledger.agents.get(event.instance)
        if agent is not None and not agent.ready:
            self._watch(event.instance)

    def _watch(self, instance: str) -> None:
        """Promise 9: who does not serve leaves the routes soon, where an engine acts."""
        self._later(self._ledger.now + grace.UNROUTE_S, lambda: self._still_routed(instance))

    def _still_routed(self, instance: str) -> None:
        ledger, agent = self._ledger, self._ledger.agents.get(instance)
        if agent is None or agent.ready or agent.left_ready_at > ledger.now - grace.UNROUTE_S:
            return
        for host, routes in ledger.routes.items():
            route = routes.get(instance)
            if route is None or route.draining:
                continue
            engine = ledger.engine_of(host)
            if engine is None or not engine.acting or not standing.may_act(ledger, engine):
                continue
            # It publishes once it has had an answer, and gives each agent its time after a start.
            able_from = max(
                min(engine.able_from, ledger.now), ledger.fault_over.get(("routes-refused", host), 0.0)
            )
            if ledger.now - able_from < grace.UNROUTE_S or ("routes-refused", host) in ledger.faults:
                self._watch(instance)
                continue
            self._report(
                9,
                f"the gates of {host} still have a route to {instance}, which has not served for"
                f" {ledger.now - max(agent.left_ready_at, agent.began_at):.0f} s",
                instance,
            )

    # -- requests

    def opened(self, event: truth.RequestOpened) -> None:
        """Promise 12: no new request after admit_until, though the engine may be down."""
        ledger = self._ledger
        token = ledger.by_instance.get(event.instance)
        wish = ledger.last_wish(token.service) if token else None
        if token is None or wish is None or token.job is None or token.job.lost:
            return
        told = [e for e in ledger.latest if e.host not in ledger.lost_hosts]
        since = max((e.view_from_at(ledger.now - grace.ROUTES_S) for e in told), default=0.0)
        ends = [NO_END if end is None else end for end in token.job.ends_since(since)]
        wishes = [w for w in ledger.wishes_since(token.service, since) if w is not None] or [wish]
        latest = max(timeline.admit_until(end, w) for end in ends for w in wishes)
        if event.at > latest + grace.GATE_CLOCK_S + grace.ROUNDING_S:
            self._report(
                12,
                f"{event.instance} took a request {event.at - latest:.0f} s after its admit_until",
                event.instance,
            )


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= grace.ROUNDING_S or (one >= NO_END and other >= NO_END)
