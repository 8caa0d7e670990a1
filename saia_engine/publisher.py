"""From records to `routes.json`: who may get traffic now, as the gates are told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from msgspec import structs

from saia_engine.edge.logs import get_logger
from saia_engine.front import Endpoint
from saia_engine.model import COMING, AgentStatus, Instance, ProxyLimits, Service, State
from saia_engine.planner import lifecycle, timeline
from saia_engine.planner.eta import QUEUED, eta
from saia_engine.planner.lead import Learned
from saia_engine.routes import Route, RoutesFault, RouteTable, ServiceEntry

NO_END = 4e9
"""In 2096: of a job that an admin freed of its limit."""

log = get_logger("publisher")


class TableFile(Protocol):
    """Where the table lies for the gates."""

    def load(self) -> RouteTable:
        """Raises RoutesFault."""
        ...

    def write(self, table: RouteTable) -> None:
        """Replaces it at once and durably. Raises OSError, RoutesFault."""
        ...


class Publisher:
    """Writes the table when its content changes, with the next generation."""

    def __init__(
        self,
        file: TableFile,
        *,
        installation: str,
        cluster: str,
        gate_socket: Path,
    ) -> None:
        self._file = file
        self.fault = ""
        try:
            # The last engine's table: its routes stand until our own probes have spoken.
            self.table = file.load()
        except RoutesFault:
            self.table = RouteTable(1, 0, 0.0, installation, cluster, str(gate_socket))
        self.table = structs.replace(
            self.table, installation=installation, cluster=cluster, gate_socket=str(gate_socket)
        )
        self._written: RouteTable | None = None
        self._standing = {r.instance: r for r in self.table.routes}
        """By instance: what was last published as a whole, by the last engine or by us."""
        self._made_of: dict[str, object] = {}
        """By instance: all that its standing route was made of."""

    def addresses(self) -> dict[str, str]:
        """By instance: where those are that were last given traffic."""
        return {name: route.host for name, route in self._standing.items()}

    def publish(
        self,
        *,
        services: Mapping[str, Service],
        proxies: Mapping[str, ProxyLimits],
        instances: Mapping[str, Instance],
        statuses: Mapping[str, AgentStatus],
        endpoints: Mapping[str, Endpoint],
        addresses: Mapping[str, str],
        now: float,
        learned: Mapping[str, Learned] = {},
    ) -> None:
        """Write what changed; a write that fails is kept in `fault` and tried again next time."""
        standing: dict[str, Route] = {}
        made_of: dict[str, object] = {}
        fit = (i for i in instances.values() if lifecycle.routable(i, statuses.get(i.id), now))
        for instance in sorted(fit, key=lambda i: i.id):
            name = instance.id
            service, endpoint = services.get(instance.service), endpoints.get(name)
            address, known = addresses.get(name, ""), self._standing.get(name)
            made_of[name] = (instance, service, endpoint, address)
            if known is None or made_of[name] != self._made_of.get(name):
                known = _route(instance, service, endpoint, address, known)
            if known is not None:
                standing[name] = known
        self._standing, self._made_of = standing, made_of
        ready = Counter(i.service for i in instances.values() if i.state is State.READY)
        coming: defaultdict[str, list[Instance]] = defaultdict(list)
        for instance in instances.values():
            if instance.state in COMING:
                coming[instance.service].append(instance)
        self._write(
            structs.replace(
                self.table,
                proxies=dict(proxies),
                services={
                    name: ServiceEntry(
                        models=service.models,
                        methods=service.methods,
                        paths=service.paths,
                        replicas=service.replicas,
                        ready=ready[name],
                        starting=len(coming[name]),
                        queued=sum(i.state in QUEUED for i in coming[name]),
                        eta=eta(coming[name], learned.get(name, Learned()), now),
                    )
                    for name, service in services.items()
                },
                routes=tuple(standing.values()),
            ),
            now,
        )

    def withdraw(
        self,
        *,
        services: Mapping[str, Service],
        instances: Mapping[str, Instance],
        statuses: Mapping[str, AgentStatus],
        listening: Mapping[str, float],
        now: float,
    ) -> None:
        """Until Slurm and the agents had their time, after a start or an adoption: what stands, less who can't serve.

        `listening` is since when an instance's agent has been asked.
        """
        routes = []
        for route in self._standing.values():
            instance = instances.get(route.instance)
            if instance is None or instance.generation < route.generation:
                routes.append(route)  # taken in soon, or gone: Slurm's answer tells
                continue
            if instance.generation > route.generation:
                continue
            status, since = statuses.get(route.instance), listening.get(route.instance)
            if lifecycle.unfit(instance, status, now, since):
                continue
            if (kept := _route(instance, services.get(instance.service), None, "", route)) is not None:
                routes.append(kept)
        if tuple(routes) != self.table.routes:
            self._write(structs.replace(self.table, routes=tuple(routes)), now)

    def _write(self, table: RouteTable, now: float) -> None:
        if table == self._written:
            return
        table = structs.replace(table, generation=self.table.generation + 1, written_at=now)
        try:
            self._file.write(table)
        except (OSError, RoutesFault) as exc:
            self.fault = f"the routes cannot be written: {exc}"
            log.error("routes_not_written", fault=self.fault)
            return
        self.fault = ""
        self.table = self._written = table


def _route(
    instance: Instance,
    service: Service | None,
    endpoint: Endpoint | None,
    address: str,
    known: Route | None,
) -> Route | None:
    end = NO_END if instance.end_time is None else instance.end_time
    timing = service.timing if service else instance.timing
    times = {
        "admit_until": timeline.admit_until(end, timing),
        "end": end,
        "draining": instance.state is State.DRAINING,
    }
    if endpoint is None or not address:
        if known is None or known.generation != instance.generation:
            return None
        return structs.replace(known, **times)
    return Route(
        instance=instance.id,
        service=instance.service,
        generation=instance.generation,
        host=address,
        port=endpoint.port,
        secret=endpoint.gate_secret,
        protocol=endpoint.protocol,
        methods=service.methods if service else (),
        paths=service.paths if service else (),
        **times,
    )
