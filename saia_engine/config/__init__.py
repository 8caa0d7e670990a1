"""The engine's configuration file: TOML, checked once at the door, frozen values inside.

`load` raises ConfigFaults with every fault of the file at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saia_engine.config import checks
from saia_engine.config.tables import (
    ClusterTable,
    FileTable,
    LocalTable,
    ProbeTable,
    ProxyTable,
    RecordTable,
    ServiceTable,
)
from saia_engine.edge import durations, sizes
from saia_engine.edge.door import Door, Opened
from saia_engine.edge.faults import ConfigFaults, Fault, read_toml
from saia_engine.edge.text import clean
from saia_engine.model import Desired, LaunchSpec, ProbeSpec, ProxyLimits, Quarantine, Rolling, Service
from saia_engine.planner import timeline

__all__ = ["Config", "ConfigFaults", "Fault", "LocalNodes", "Paths", "check_lines", "load"]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything lies. `shared_dir` is seen by all nodes; the other two are this host's."""

    shared_dir: Path
    state_dir: Path
    runtime_dir: Path
    """0711: each socket lies in a directory of its own group below it."""

    @property
    def instances_dir(self) -> Path:
        return self.shared_dir / "instances"

    @property
    def state_db(self) -> Path:
        return self.state_dir / "state.db"

    @property
    def revisions_dir(self) -> Path:
        """0700: whole launch specs, with the values of their environments."""
        return self.state_dir / "revisions"

    @property
    def record_dir(self) -> Path:
        """0700: what the screens showed."""
        return self.state_dir / "record"

    @property
    def gate_dir(self) -> Path:
        """0750, the gate's group: all that the gate may read of `state_dir`."""
        return self.state_dir / "gate"

    @property
    def routes(self) -> Path:
        return self.gate_dir / "routes.json"

    @property
    def operator_socket(self) -> Path:
        """Its directory is 0750, the operators' group."""
        return self.runtime_dir / "operator" / "operator.sock"

    @property
    def gate_socket(self) -> Path:
        """Its directory is 0750, the gate's group."""
        return self.runtime_dir / "gate" / "gate.sock"


@dataclass(frozen=True, slots=True)
class LocalNodes:
    """The declared nodes of a cluster of kind `local`, all alike."""

    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    memory_per_node_mib: int


@dataclass(frozen=True, slots=True)
class Recording:
    """How much of its state the engine keeps for replays."""

    keep_s: float
    """0: nothing."""
    step_s: float
    most_mib: int


@dataclass(frozen=True, slots=True)
class Config:
    """One valid configuration file. Durations are seconds."""

    file: Path
    name: str
    """The cluster's."""
    kind: str
    """`slurm` or `local`."""
    installation: str
    """Empty: made at the first start and kept in `shared_dir`."""
    paths: Paths
    poll_interval_s: float
    rpc_floor_s: float
    command_timeout_s: float
    port_range: tuple[int, int]
    """First and last port of the agents' fronts."""
    agent_python: str
    slurm_bin: Path | None
    slurm_conf: Path | None
    operators_group: str
    gate_group: str
    submits_per_hour: int
    quarantine: Quarantine
    local: LocalNodes
    record: Recording
    services: Mapping[str, Service] = field(repr=False)
    """Their environments hold secrets: show them as `LaunchSpec.redacted` does."""
    proxies: Mapping[str, ProxyLimits]

    @property
    def desired(self) -> Desired:
        """What the file alone wants, without operators' overrides."""
        return Desired(self.services, self.poll_interval_s)


def load(path: Path | str) -> Config:
    """The file as a Config; relative paths in it start at its directory. Raises ConfigFaults."""
    door = Door(path)
    top, top_bad = door.open(FileTable, read_toml(Path(path)))
    cluster, cluster_bad = door.open(ClusterTable, top.cluster, "cluster")
    if "cluster" in top_bad:
        cluster_bad = frozenset(ClusterTable.model_fields)
    if "rpc_floor" not in top.cluster and "poll_interval" not in cluster_bad:
        cluster = cluster.model_copy(update={"rpc_floor": min(cluster.rpc_floor, cluster.poll_interval)})
    paths = Paths(*(door.path(path) for path in (cluster.shared_dir, cluster.state_dir, cluster.runtime_dir)))
    door.add(checks.cluster(cluster, cluster_bad, str(paths.operator_socket)), "cluster")
    nodes, local_bad = door.open(LocalTable, top.local, "local")
    record, record_bad = door.open(RecordTable, top.record, "record")
    door.add(checks.record(record, record_bad), "record")

    services = _services(door, top, None if "poll_interval" in cluster_bad else cluster.poll_interval)
    sound = {name: table for name, (table, _) in services.items()}
    door.add(checks.models(sound), "services")
    if "port_range" not in cluster_bad:
        door.add(checks.ports(cluster, sound), "cluster")
    if cluster.kind == "local" and not local_bad and "kind" not in cluster_bad:
        for name, (table, bad) in services.items():
            door.add(checks.local_service(table, bad, nodes), "services", name)
        door.add(checks.local_sum(sound, nodes))
    proxies = {}
    for name, data in top.proxies.items():
        proxies[name], bad = door.named(ProxyTable, data, "proxies", name)
        door.add(checks.proxy(proxies[name], bad, top.services), "proxies", name)
    if door.faults:
        raise ConfigFaults(door.faults)
    return Config(
        file=door.directory / Path(path).name,
        name=cluster.name,
        kind=cluster.kind,
        installation=cluster.installation,
        paths=paths,
        poll_interval_s=cluster.poll_interval,
        rpc_floor_s=cluster.rpc_floor,
        command_timeout_s=cluster.command_timeout,
        port_range=(cluster.port_range[0], cluster.port_range[1]),
        agent_python=cluster.agent_python,
        slurm_bin=door.path(cluster.slurm_bin) if cluster.slurm_bin else None,
        slurm_conf=door.path(cluster.slurm_conf) if cluster.slurm_conf else None,
        operators_group=cluster.operators_group,
        gate_group=cluster.gate_group,
        submits_per_hour=cluster.submits_per_hour,
        quarantine=Quarantine(cluster.quarantine_failures, cluster.quarantine_time),
        local=LocalNodes(nodes.nodes, nodes.gpus_per_node, nodes.cpus_per_node, nodes.memory_per_node),
        record=Recording(record.keep, record.step, record.size),
        services={name: _service(name, table) for name, table in sound.items()},
        proxies={name: _proxy(table) for name, table in proxies.items()},
    )


# ---------------------------------------------------------------- tables to values


def _services(door: Door, top: FileTable, poll_s: float | None) -> dict[str, Opened[ServiceTable]]:
    _, bad_defaults = door.open(ServiceTable, top.defaults, "defaults")
    defaults = {key: value for key, value in top.defaults.items() if key not in bad_defaults}
    opened = {}
    for name, own in top.services.items():
        data = _merged(defaults, own) if isinstance(own, dict) else own
        table, bad = door.named(ServiceTable, data, "services", name)
        bad |= bad_defaults.difference(own if isinstance(own, dict) else ())
        opened[name] = table, bad
        door.add(checks.service(table, bad, poll_s), "services", name)
    return opened


_EITHER = {"command": "script", "script": "command", "gres": "gpus", "gpus": "gres"}
_JOINED = ("environment", "readiness", "liveness")
COMPLETION_PATH = "/v1/chat/completions"


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Own keys win; tables within join; a default gives way to the key that excludes it."""
    merged = {key: value for key, value in defaults.items() if _EITHER.get(key) not in own} | dict(own)
    for key in _JOINED:
        if isinstance(own.get(key), dict) and key in defaults:
            merged[key] = defaults[key] | own[key]
    return merged


def _probe(probe: ProbeTable, table: ServiceTable) -> ProbeSpec:
    completes = probe.kind == "completion"
    return ProbeSpec(
        kind=probe.kind,
        path=probe.path or (COMPLETION_PATH if completes else table.readiness_path),
        model=(probe.model or table.models[0]) if completes else "",
        interval_s=probe.interval,
        timeout_s=probe.timeout,
        failures=probe.failures,
    )


def _service(name: str, table: ServiceTable) -> Service:
    readiness = _probe(table.readiness, table) if table.readiness else None
    # As short as it can be told, so that the revision does not depend on how the file tells it.
    readiness_path = readiness.path if readiness and readiness.kind == "http" else table.readiness_path
    if readiness == ProbeSpec(path=readiness_path):
        readiness = None
    launch = LaunchSpec(
        command=tuple(word.replace("{saia_python}", sys.executable) for word in table.command),
        script=table.script,
        listen=table.listen,
        environment=tuple(sorted(table.environment.items())),
        readiness_path=readiness_path,
        nodes=table.nodes,
        gres=f"gpu:{table.gpus}" if table.gpus else table.gres,
        cpus=table.cpus,
        memory_mib=table.memory,
        time_limit_s=int(table.time_limit),
        partition=table.partition,
        account=table.account,
        qos=table.qos,
        constraint=table.constraint,
        reservation=table.reservation,
        exclude=table.exclude,
        sbatch_options=tuple(table.sbatch_options),
        time_min_s=int(table.time_min),
        readiness=readiness,
        liveness=_probe(table.liveness, table) if table.liveness else None,
    )
    return Service(
        name=name,
        launch=launch,
        timing=checks.timing(table),
        rolling=Rolling(
            max_surge=table.max_surge,
            max_unavailable=table.max_unavailable,
            healthy_deadline_s=table.healthy_deadline,
            progress_deadline_s=table.progress_deadline,
            auto_revert=table.auto_revert,
        ),
        stagger=table.stagger,
        replicas=table.replicas,
        min_available=table.min_available,
        models=tuple(table.models),
        methods=tuple(table.methods),
        paths=tuple(table.paths),
    )


def _proxy(table: ProxyTable) -> ProxyLimits:
    return ProxyLimits(
        services=tuple(table.services),
        relays=table.relays,
        streams=table.streams,
        opens_per_second=table.opens_per_second,
        memory_mib=table.memory,
    )


# ---------------------------------------------------------------- for people


def check_lines(config: Config) -> list[str]:
    """What `check` prints of a valid file: one line a fact, no value of an environment."""
    first, last = config.port_range
    lines = [
        f"cluster {config.name} ({config.kind}): polled every {durations.show(config.poll_interval_s)},"
        f" at most {config.submits_per_hour} submits an hour, agents on ports {first}-{last}",
        f"  shared {config.paths.shared_dir}, state {config.paths.state_dir}, sockets {config.paths.runtime_dir}",
    ]
    if config.kind == "local":
        nodes = config.local
        lines.append(
            f"  {_count(nodes.nodes, 'node')} on this machine, with {_count(nodes.gpus_per_node, 'GPU')},"
            f" {_count(nodes.cpus_per_node, 'CPU')}, {sizes.show_mib(nodes.memory_per_node_mib)}"
        )
    lines.append(_record_line(config.record))
    for service in config.services.values():
        lines += _service_lines(service, config.poll_interval_s)
    if not config.services:
        lines.append("no services: the engine would end all that it runs")
    lines += _submits_warning(config)
    for name, proxy in config.proxies.items():
        reach = "all services" if "*" in proxy.services else ", ".join(proxy.services)
        lines.append(
            f"proxy {name}: {reach}; {_count(proxy.relays, 'relay')} with {_count(proxy.streams, 'stream')},"
            f" {_count(proxy.opens_per_second, 'open')} a second, {sizes.show_mib(proxy.memory_mib)} each"
        )
    return [clean(line) for line in lines]


def _record_line(record: Recording) -> str:
    if not record.keep_s:
        return "record: none is kept, so no past moment can be shown"
    return (
        f"record: the state each {durations.spell(record.step_s)}, kept for {durations.spell(record.keep_s)},"
        f" {sizes.show_mib(record.most_mib)} at most"
    )


def _submits_warning(config: Config) -> list[str]:
    """Replacements alone may need more submits than are allowed: then services would run dry."""
    needed = sum(
        service.replicas
        * 3600.0
        / max(
            1.0,
            service.launch.time_limit_s
            - timeline.shortest_time_limit(service.timing, config.poll_interval_s),
        )
        for service in config.services.values()
    )
    if needed <= config.submits_per_hour / 2:
        return []
    return [
        f"warning: replacing all instances in time takes about {needed:.0f} submits an hour, and submits_per_hour is"
        f" {config.submits_per_hour}: raise it to {2 * needed:.0f} or more, or lengthen the time limits"
    ]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _probe_words(probe: ProbeSpec) -> str:
    asked = f"a completion of {probe.model} at {probe.path}" if probe.model else f"GET {probe.path}"
    return (
        f"{asked} answers within {durations.spell(probe.timeout_s)}; asked every"
        f" {durations.spell(probe.interval_s)}, {probe.failures} failures in a row count"
    )


def _service_lines(service: Service, poll_s: float) -> list[str]:
    launch, timing = service.launch, service.timing
    memory = f", {sizes.show_mib(launch.memory_mib)}" if launch.memory_mib else ""
    program = Path(launch.command[0]).name if launch.command else "a script"
    lines = [
        f"service {service.name}: {_count(service.replicas, 'replica')} of {program}, each on"
        f" {_count(launch.nodes, 'node')} with {launch.gres or 'no GPU'}, {_count(launch.cpus, 'CPU')}{memory};"
        f" saia's own acts leave {service.min_available} or more ready",
        f"  models {', '.join(service.models) or 'none'}; {' '.join(service.methods)} on {' '.join(service.paths)}",
    ]
    if launch.environment:
        lines.append(f"  environment {', '.join(name for name, _ in launch.environment)} (values not shown)")

    for word, probe in (("ready", launch.readiness), ("alive", launch.liveness)):
        if probe is not None:
            lines.append(f"  {word} while {_probe_words(probe)}")

    def before(moment: float) -> str:
        return durations.spell(-moment)

    lines.append(
        f"  time limit {durations.spell(launch.time_limit_s)}; before its end:"
        f" replacement submitted {before(timeline.submit_by(0.0, timing, timing.lead_floor_s, poll_s))}"
        f" (lead {durations.spell(timing.lead_floor_s)}),"
        f" drain {before(timeline.drain_by(0.0, timing))},"
        f" last new request {before(timeline.admit_until(0.0, timing))},"
        f" last cut {before(timeline.last_cut(0.0, timing))}"
    )
    return lines
