"""Rules that join several keys. Each yields what is wrong as (key, sentence, suggestion).

`bad` are the keys whose own value is already at fault: a rule that needs one of them says nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from saia_engine.config.tables import (
    ClusterTable,
    LocalTable,
    ProbeTable,
    ProxyTable,
    RecordTable,
    ServiceTable,
)
from saia_engine.edge import words
from saia_engine.edge.door import Wrong
from saia_engine.edge.durations import spell
from saia_engine.edge.faults import did_you_mean, nearest
from saia_engine.edge.sizes import show_mib
from saia_engine.model import Timing
from saia_engine.planner import timeline

SOCKET_PATH_BYTES = 100
"""A Unix socket's path must be shorter: the kernel has room for 107."""
PLACEHOLDERS = ("{port}", "{socket}", "{saia_python}")
_PLACEHOLDER = re.compile(r"\{[a-z_]{2,20}\}")


def timing(service: ServiceTable) -> Timing:
    return Timing(
        lead_floor_s=service.lead_floor,
        lead_cap_s=service.lead_cap,
        min_ready_s=service.min_ready,
        drain_deadline_s=service.drain_deadline,
        admission_margin_s=service.admission_margin,
        safety_margin_s=service.safety_margin,
        startup_deadline_s=service.startup_deadline,
        unready_deadline_s=service.unready_deadline,
    )


# ---------------------------------------------------------------- the record

LEAST_RECORD_MIB, MOST_RECORD_MIB = 16, 16 * 1024


def record(table: RecordTable, bad: frozenset[str]) -> Iterator[Wrong]:
    if "size" not in bad and not LEAST_RECORD_MIB <= table.size <= MOST_RECORD_MIB:
        yield (
            "size",
            f"must be from {show_mib(LEAST_RECORD_MIB)} to {show_mib(MOST_RECORD_MIB)}, not {show_mib(table.size)}",
            'keep = "0s" records nothing',
        )
    if not bad & {"keep", "step"} and 0 < table.keep < 10 * table.step:
        yield "keep", f"{spell(table.keep)} has no room for ten steps of {spell(table.step)}", ""


# ---------------------------------------------------------------- the cluster


def cluster(table: ClusterTable, bad: frozenset[str], operator_socket: str) -> Iterator[Wrong]:
    for key in ("name", "shared_dir", "state_dir", "runtime_dir"):
        if key not in bad and not getattr(table, key):
            yield key, "is required", ""
    first, last = table.port_range
    if first > last:
        yield "port_range", f"begins at {first}, after its end {last}", ""
    if not bad & {"rpc_floor", "poll_interval"} and table.rpc_floor > table.poll_interval:
        yield (
            "rpc_floor",
            f"{spell(table.rpc_floor)} is longer than poll_interval, {spell(table.poll_interval)}",
            "lower rpc_floor or raise poll_interval",
        )
    directories = {
        key: os.path.normpath(Path(value).expanduser())
        for key in ("shared_dir", "state_dir", "runtime_dir")
        if key not in bad and (value := getattr(table, key))
    }
    for key, directory in directories.items():
        twin = next((other for other in directories if directories[other] == directory), key)
        if twin != key:
            yield key, f"is the same directory as {twin}", "each needs its own: they differ in who may write"
    if table.runtime_dir and "runtime_dir" not in bad:
        length = len(os.fsencode(operator_socket))
        if length >= SOCKET_PATH_BYTES:
            yield (
                "runtime_dir",
                f"is too long: the path of its socket has {length} bytes, and must have fewer than"
                f" {SOCKET_PATH_BYTES}",
                "choose a short one, such as /run/saia",
            )


# ---------------------------------------------------------------- one service


def service(table: ServiceTable, bad: frozenset[str], poll_s: float | None) -> Iterator[Wrong]:
    """`poll_s` is None where the file's is at fault."""
    if not bad & {"command", "script"}:
        yield from _program(table)
    if not bad & {"command", "listen"}:
        yield from _placeholders(table)
    if not bad & {"gres", "gpus"} and table.gres and table.gpus:
        yield "gpus", "stands beside gres", 'gpus = 2 is short for gres = "gpu:2": keep one of the two'
    if not bad & {"min_available", "replicas"} and table.min_available > table.replicas:
        yield (
            "min_available",
            f"{table.min_available} is more than replicas, {table.replicas}: no instance could ever be replaced",
            "lower min_available or raise replicas",
        )
    if not bad & {"max_surge", "max_unavailable"} and not (table.max_surge or table.max_unavailable):
        yield "max_surge", "is 0, and so is max_unavailable: nothing could ever be rolled out", "use 1 of one"
    if not bad & {"time_min", "time_limit"} and table.time_min > table.time_limit:
        yield (
            "time_min",
            f"{spell(table.time_min)} is longer than time_limit, {spell(table.time_limit)}",
            "lower it, or leave it out",
        )
    if not bad & {"lead_cap", "lead_floor"} and 0 < table.lead_cap < table.lead_floor:
        yield (
            "lead_cap",
            f"{spell(table.lead_cap)} is shorter than lead_floor, {spell(table.lead_floor)}",
            "raise it, or leave it out",
        )
    for key, probe in (("readiness", table.readiness), ("liveness", table.liveness)):
        if probe is not None and key not in bad:
            yield from _probe(key, probe, bool(table.models) or "models" in bad)
    yield from _timeline(table, bad, poll_s)


def _probe(key: str, probe: ProbeTable, has_models: bool) -> Iterator[Wrong]:
    if probe.kind == "completion" and not (probe.model or has_models):
        yield f"{key}.model", "is required: the service has no models", "name whom to ask for a completion"
    elif probe.kind == "http" and probe.model:
        yield f"{key}.model", 'is only for kind = "completion"', "leave it out, or set the kind"


def _program(table: ServiceTable) -> Iterator[Wrong]:
    if table.command and table.script:
        yield "script", "stands beside command", "keep one of the two"
    elif not table.script and not table.command:
        yield "command", "is required", 'a list such as ["vllm", "serve", ...]; or give a script'
    elif table.command and not table.command[0].strip():
        yield "command[0]", "the program's name is empty", ""


def _placeholders(table: ServiceTable) -> Iterator[Wrong]:
    if not table.command:
        return
    used = {word for argument in table.command for word in _PLACEHOLDER.findall(argument)}
    misspelt = [word for word in sorted(used.difference(PLACEHOLDERS)) if nearest(word, PLACEHOLDERS)]
    for word in misspelt:
        yield "command", f"nothing fills in {word}", f"did you mean {nearest(word, PLACEHOLDERS)}?"
    if misspelt:
        return
    if table.listen == "socket" and "{port}" in used:
        yield "command", 'holds {port}, though listen = "socket"', 'use {socket}, or listen = "port"'
    elif table.listen == "socket" and "{socket}" not in used:
        yield "command", 'does not hold {socket}, though listen = "socket"', 'add it, or use listen = "port"'
    if table.listen == "port" and "{socket}" in used:
        yield "listen", 'is "port", though the command holds {socket}', 'use listen = "socket"'


def _timeline(table: ServiceTable, bad: frozenset[str], poll_s: float | None) -> Iterator[Wrong]:
    times = timing(table)
    if not bad & {"drain_deadline", "admission_margin"} and not timeline.drain_covers_admission(times):
        yield (
            "drain_deadline",
            f"{spell(times.drain_deadline_s)} is shorter than admission_margin,"
            f" {spell(times.admission_margin_s)}: a drain must leave a request its time",
            f"use {spell(times.admission_margin_s)} or longer",
        )
    needed = {"time_limit", "lead_floor", "min_ready", "drain_deadline", "safety_margin"}
    if bad & needed or poll_s is None:
        return
    shortest = timeline.shortest_time_limit(times, poll_s)
    if "time_min" not in bad and 0 < table.time_min <= shortest:
        yield (
            "time_min",
            f"{spell(table.time_min)} leaves no time to serve",
            f"use more than {spell(shortest)}",
        )
    if table.time_limit <= shortest:
        terms = timeline.shortest_terms(times, poll_s)
        total = " + ".join(f"{name} {spell(seconds)}" for name, seconds in terms)
        yield (
            "time_limit",
            f"{spell(table.time_limit)} can't work: it must be longer than {total} = {spell(shortest)}",
            f"raise time_limit above {spell(shortest)}, or lower the largest term",
        )


# ---------------------------------------------------------------- services together


def models(services: Mapping[str, ServiceTable]) -> Iterator[Wrong]:
    owner: dict[str, str] = {}
    for name, table in services.items():
        for index, model in enumerate(table.models):
            first = owner.setdefault(model, name)
            if first != name:
                yield (
                    f"{name}.models[{index}]",
                    f"{model} is already a model of service {first}",
                    "a model belongs to one service: raise its replicas, or choose another name",
                )
            elif model in table.models[:index]:
                yield f"{name}.models[{index}]", f"{model} is listed twice", ""


def ports(table: ClusterTable, services: Mapping[str, ServiceTable]) -> Iterator[Wrong]:
    """An instance and its replacement may meet on one node."""
    first, last = table.port_range
    needed = 2 * sum(service.replicas for service in services.values())
    if first <= last and last - first + 1 < needed:
        yield (
            "port_range",
            f"has room for {last - first + 1} ports, and all replicas with their replacements need {needed}",
            "widen it",
        )


def local_service(table: ServiceTable, bad: frozenset[str], nodes: LocalTable) -> Iterator[Wrong]:
    """Whether one instance fits on the declared nodes at all."""
    if "gres" not in bad and table.gres and not words.is_gpus(table.gres):
        yield "gres", "a local cluster has GPUs only", 'use gpus = 2, or gres = "gpu:2"'
    wants = (
        ("gpus" if table.gpus else "gres", table.gpu_count, nodes.gpus_per_node, "gpus_per_node"),
        ("cpus", table.cpus, nodes.cpus_per_node, "cpus_per_node"),
        ("nodes", table.nodes, nodes.nodes, "nodes"),
    )
    for key, wanted, there, name in wants:
        if key not in bad and wanted > there:
            yield key, f"asks for {wanted}, and local.{name} is {there}", f"lower it, or raise local.{name}"
    if "memory" not in bad and table.memory > nodes.memory_per_node:
        wanted, there = show_mib(table.memory), show_mib(nodes.memory_per_node)
        yield (
            "memory",
            f"asks for {wanted}, and local.memory_per_node is {there}",
            "lower it, or raise local.memory_per_node",
        )


def local_sum(services: Mapping[str, ServiceTable], nodes: LocalTable) -> Iterator[Wrong]:
    """Whether all replicas fit beside each other."""
    for word, there, wanted in (
        ("GPUs", nodes.nodes * nodes.gpus_per_node, {n: s.gpu_count for n, s in services.items()}),
        ("CPUs", nodes.nodes * nodes.cpus_per_node, {n: s.cpus for n, s in services.items()}),
    ):
        total = sum(services[name].replicas * services[name].nodes * each for name, each in wanted.items())
        if total > there:
            most = max(wanted, key=lambda name: services[name].replicas * services[name].nodes * wanted[name])
            yield (
                f"services.{most}.replicas",
                f"all replicas together need {total} {word}, and the local cluster has {there}",
                "lower replicas, or declare more in [local]",
            )


def proxy(table: ProxyTable, bad: frozenset[str], services: Mapping[str, object]) -> Iterator[Wrong]:
    if "services" in bad:
        return
    for index, name in enumerate(table.services):
        if name != "*" and name not in services:
            yield f"services[{index}]", f"there is no service {name}", did_you_mean(name, services)
