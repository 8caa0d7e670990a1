"""What can be reached now: the routes of all upstreams merged, and what we learn of them between two updates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from saia_engine.wire.messages import DRAINING, LIMIT, Routes, ServiceState
from saia_proxy.balancer import Target, choose
from saia_proxy.congestion import FORGOTTEN_S, Way
from saia_proxy.health import TOLERANCE, Condition, Tolerance, Use

REST_S = 1.0
"""A target that refused gets no other request for this long, where there is a better one."""
LOOK_AGAIN_S = 0.1
"""None at all for this long: whatever is the matter, it needs a moment."""
DEMAND_S = 5.0
"""How long a request that was refused is told of as demand: a few of the tunnels' reports."""
PATHS_KNOWN = 32
"""Of which an offer remembers what it allows there. Clients choose paths, so they must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model or a service by its name, who serves it, and where."""

    name: str
    services: tuple[ServiceState, ...] = ()
    targets: tuple[Target, ...] = ()
    _allowing: dict[tuple[str, str], Offer] = field(default_factory=dict, compare=False, repr=False)

    @property
    def service(self) -> str:
        """The first one's name, under which its waiting requests count."""
        return self.services[0].name if self.services else ""

    @property
    def ready(self) -> int:
        """Instances that take requests now; one that two upstreams reach counts once."""
        return len({target.instance for target in self.targets if not target.draining})

    @property
    def queued(self) -> int:
        """Instances that wait in the cluster's queue."""
        return sum(service.queued for service in self.services)

    @property
    def starting(self) -> int:
        """Instances whose jobs run, but that are not ready yet."""
        return sum(max(0, service.starting - service.queued) for service in self.services)

    @property
    def eta(self) -> float | None:
        """When the next instance may be ready, where somebody knows (s since the epoch)."""
        return min((service.eta for service in self.services if service.eta is not None), default=None)

    @property
    def state(self) -> str:
        if self.ready:
            return "ready"
        return "starting" if self.starting else "queued" if self.queued else "stopped"

    @property
    def out_of_reach(self) -> bool:
        """The cluster has some that are ready, but there is no way to them now."""
        return not self.targets and any(service.ready for service in self.services)

    @property
    def replicas(self) -> int:
        return sum(service.replicas for service in self.services)

    def allowing(self, method: str, path: str) -> Offer:
        """The part of it whose services allow this method and path."""
        known = self._allowing.get((method, path))
        if known is None:
            if len(self._allowing) >= PATHS_KNOWN:
                self._allowing.clear()
            known = self._allowing[method, path] = self._part(method, path)
        return known

    def _part(self, method: str, path: str) -> Offer:
        allowed = tuple(s for s in self.services if method in s.methods and _allows(s.paths, path))
        if len(allowed) == len(self.services):
            return self
        names = {service.name for service in allowed}
        return Offer(self.name, allowed, tuple(t for t in self.targets if t.service in names))

    def methods(self, path: str) -> tuple[str, ...]:
        """What its services allow on this path."""
        found = {method for s in self.services if _allows(s.paths, path) for method in s.methods}
        return tuple(sorted(found))


class RoutingTable:
    """One owner of routes and of requests in flight; only touched from the event loop.

    `most_at` bounds the requests at one instance of a service; 0: no bound.
    `clock` is the wall's, which routes go by; `steady` the one that runs on whatever is done to that.
    """

    def __init__(
        self,
        upstreams: tuple[str, ...],
        tolerance: Tolerance = TOLERANCE,
        *,
        most_at: Callable[[str], int] = lambda service: 0,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = upstreams
        self._tolerance = tolerance
        self._most_at = most_at
        self._clock = clock
        self._steady = steady
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of the routes."""
        self._routes: dict[str, Routes] = {}
        self._connected: set[str] = set()
        self._draining: set[str] = set()
        self._resting: dict[Target, float] = {}
        self.ways = {upstream: Way() for upstream in upstreams}
        self._limits_until = 0.0
        self._missed: dict[str, float] = {}
        """When a request for a service was last refused unserved."""
        self._conditions: dict[str, Condition] = {}
        """By instance; of those that are in the routes, or have requests under way."""
        self.models: dict[str, Offer] = {}
        self.services: dict[str, Offer] = {}
        self.queued: Counter[str] = Counter()
        self._bounds: dict[str, int] = {}
        """By service, of those that have one."""

    @property
    def connected(self) -> int:
        """Upstreams whose routes hold now."""
        return len(self._connected)

    @property
    def complete(self) -> bool:
        """Every upstream has told its routes at least once: what is not among its offers does not exist."""
        return len(self._routes) == len(self._upstreams)

    def update(self, upstream: str, routes: Routes) -> None:
        self._routes[upstream] = routes
        self._connected.add(upstream)
        # What instances told us is older than these routes; who still drains will say so again.
        told = {instance.id for instance in routes.instances}
        self._draining -= told
        self._rebuild()

    def lost(self, upstream: str) -> None:
        """Its services stay known, so that clients are told to come back; its instances are out of reach."""
        self._connected.discard(upstream)
        self._rebuild()

    @property
    def in_flight(self) -> int:
        """Requests under way, in all."""
        return sum(condition.in_flight for condition in self._conditions.values())

    def choose(self, offer: Offer, affinity: bytes = b"") -> Target | None:
        """Where the next request for this offer should go; None where nobody may take one now."""
        steady = self._steady()
        if self._resting:
            self._resting = {target: until for target, until in self._resting.items() if until > steady}

        def doubtful(target: Target) -> bool:
            condition = self._conditions.get(target.instance)
            bad = condition is not None and condition.doubtful(steady, self._tolerance)
            return bad or (bool(self._resting) and target in self._resting)

        return choose(
            offer.targets,
            now=self._clock(),
            in_flight=self._in_flight_at,
            doubtful=doubtful,
            draining=self._draining,
            tried=self._shut(offer, steady),
            affinity=affinity,
        )

    def serves(self, offer: Offer) -> bool:
        """There are instances for it, though they may be busy."""
        return any(not (target.draining or target.instance in self._draining) for target in offer.targets)

    def _shut(self, offer: Offer, steady: float) -> set[Target]:
        """Those that get nothing now, because of their bound or of what was just refused."""
        bounds = self._bounds
        if not (bounds or self._resting or steady < self._limits_until):
            return set()
        closed = {name for name, way in self.ways.items() if not way.open(steady)}
        too_soon = steady + REST_S - LOOK_AGAIN_S

        def full(target: Target) -> bool:
            most = bounds.get(target.service, 0)
            return most > 0 and self._in_flight_at(target.instance) >= most

        return {
            target
            for target in offer.targets
            if full(target) or target.upstream in closed or self._resting.get(target, 0.0) > too_soon
        }

    def _in_flight_at(self, instance: str) -> int:
        condition = self._conditions.get(instance)
        return condition.in_flight if condition is not None else 0

    def not_taken(self, target: Target, code: str) -> None:
        """The target refused a request with this reset code."""
        if code == DRAINING:
            self._draining.add(target.instance)
        elif code == LIMIT:
            self.ways[target.upstream].limited(self._steady())
            self._limits_until = self._steady() + FORGOTTEN_S
        else:
            self._resting[target] = self._steady() + REST_S

    def use(self, target: Target) -> Use:
        """Counts a request as under way there; what comes of it is said to the `Use`."""
        condition = self._conditions.setdefault(target.instance, Condition())
        return Use(condition, self._steady, self._tolerance)

    @contextmanager
    def waiting(self, offer: Offer) -> Iterator[None]:
        """Counts a request as queued for the first service of the offer."""
        name = offer.service
        self.queued[name] += 1
        try:
            yield
        finally:
            self.queued[name] -= 1
            if not self.queued[name]:
                del self.queued[name]

    def missed(self, offer: Offer) -> None:
        """A request for it was refused, because nothing could take it."""
        self._missed[offer.service] = self._steady()

    def demand(self) -> dict[str, int]:
        """Requests that nothing could take yet, by service: those that wait, or one for those just refused."""
        steady = self._steady()
        self._missed = {name: at for name, at in self._missed.items() if steady - at < DEMAND_S}
        return dict.fromkeys(self._missed, 1) | self.queued

    def _rebuild(self) -> None:
        models: dict[str, list[ServiceState]] = {}
        services: dict[str, list[ServiceState]] = {}
        at_model: dict[str, list[Target]] = {}
        at_service: dict[str, list[Target]] = {}
        for service in self._told():
            services.setdefault(service.name, []).append(service)
            for model in service.models:
                models.setdefault(model, []).append(service)
        for upstream, routes in self._routes.items():
            names = {service.name: service.models for service in routes.services}
            for instance in routes.instances if upstream in self._connected else ():
                target = Target(
                    upstream, instance.id, instance.service, instance.admit_until, instance.draining
                )
                at_service.setdefault(instance.service, []).append(target)
                for model in names.get(instance.service, ()):
                    at_model.setdefault(model, []).append(target)
        self._bounds = {name: most for name in services if (most := self._most_at(name))}
        self.models = _offers(models, at_model)
        self.services = _offers(services, at_service)
        routed = {instance.id for routes in self._routes.values() for instance in routes.instances}
        self._conditions = {
            name: condition
            for name, condition in self._conditions.items()
            if condition.in_flight or name in routed
        }
        self.on_change()

    def _told(self) -> list[ServiceState]:
        """What all upstreams say of their services: of those that several gates of one site tell, the newest word."""
        best: dict[tuple[str, str], tuple[tuple[bool, int], ServiceState]] = {}
        for upstream, routes in self._routes.items():
            rank = (upstream in self._connected, routes.generation)
            for service in routes.services:
                whose = routes.site or f"only {upstream}", service.name
                if whose not in best or best[whose][0] < rank:
                    best[whose] = rank, service
        return [service for _, service in best.values()]


def _offers(services: dict[str, list[ServiceState]], targets: dict[str, list[Target]]) -> dict[str, Offer]:
    return {
        name: Offer(name, tuple(services[name]), tuple(targets.get(name, ()))) for name in sorted(services)
    }


def _allows(paths: list[str], path: str) -> bool:
    return any(path.startswith(allowed) if allowed.endswith("/") else path == allowed for allowed in paths)
