"""The configuration file of the simulated site: the reference services, and the edits that people make to it.

Each version is a real TOML file through the real reader, so that what it refuses is refused here, too.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from saia_engine import config
from saia_engine.config import ConfigFaults
from saia_engine.edge.durations import spell
from saia_engine.model import Override, Service
from saia_engine.simulator.truth import Wish

Table = dict[str, Any]
SUBMITS_PER_HOUR = 120
LOAD_S = {"chat": 120.0, "code": 90.0, "embed": 25.0, "image": 60.0, "tiny": 10.0}
"""How long each service loads, in the middle."""


def reference() -> dict[str, Table]:
    """5 services with 8 instances."""

    def service(replicas: int, min_available: int, gpus: int, hours: float, lead_s: float) -> Table:
        return {
            "command": ["serve", "--port", "{port}"],
            "replicas": replicas,
            "min_available": min_available,
            "gpus": gpus,
            "time_limit": f"{round(hours * 60)}m",
            "lead_floor": f"{round(lead_s)}s",
            "min_ready": "10s",
            "drain_deadline": "5m",
            "admission_margin": "2m",
            "safety_margin": "30s",
            "partition": "gpu" if gpus else "cpu",
        }

    return {
        "chat": service(2, 1, 2, 2.0, 600),
        "code": service(2, 1, 1, 1.5, 600),
        "embed": service(2, 1, 1, 1.0, 400),
        "image": service(1, 0, 2, 2.5, 600),
        "tiny": service(1, 0, 0, 0.75, 300),
    }


class ConfigFile:
    """The file as it is written now, and what the reader last took of it."""

    def __init__(self, seed: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="saia-simulator-")
        self._path = Path(self._directory.name) / "engine.toml"
        self.tables = reference()
        self.services: Mapping[str, Service] = {}
        self.submits_per_hour = SUBMITS_PER_HOUR
        self._good = deepcopy(self.tables)
        self.take()

    def take(self) -> str:
        """Read what is written; the faults where it is refused, and then nothing changes."""
        self._path.write_text(_toml(self.tables), encoding="utf-8")
        try:
            read = config.load(self._path)
        except ConfigFaults as exc:
            return str(exc)
        self.services, self.submits_per_hour = read.services, read.submits_per_hour
        self._good = deepcopy(self.tables)
        return ""

    def put_back(self) -> None:
        """As it was before the bad edit."""
        self.tables = deepcopy(self._good)

    def close(self) -> None:
        self._directory.cleanup()


def edit(tables: dict[str, Table], chance: random.Random) -> str:
    """One change that a person may make, good or bad; returns what it is."""
    names = sorted(tables)
    name = chance.choice(names)
    table = tables[name]
    spare = reference()
    kind = chance.choice(
        ["replicas", "launch", "timing", "limit", "remove", "add", "min-available", "bad-sum", "bad-value"]
    )
    if kind == "replicas":
        table["replicas"] = chance.choice([1, 2, 2, 3])
        table["min_available"] = min(table["min_available"], table["replicas"] - 1)
    elif kind == "launch":
        table["command"] = ["serve", "--port", "{port}", f"--v{chance.randint(1, 99)}"]
    elif kind == "timing":
        table["drain_deadline"] = f"{chance.choice([180, 300, 420])}s"
        table["min_ready"] = f"{chance.choice([5, 10, 30])}s"
        table["lead_floor"] = f"{chance.choice([300, 400, 600, 900])}s"
    elif kind == "limit":
        table["time_limit"] = f"{chance.choice([45, 60, 90, 120, 150])}m"
    elif kind == "remove" and len(tables) > 3:
        del tables[name]
    elif kind == "add":
        for missing in sorted(spare.keys() - tables.keys()):
            tables[missing] = spare[missing]
    elif kind == "min-available":
        table["min_available"] = chance.randint(0, max(0, table["replicas"] - 1))
    elif kind == "bad-sum":
        table["time_limit"] = "10m"
    elif kind == "bad-value":
        table["replicas"] = -1
    return f"{kind} {name}"


def wishes(services: Mapping[str, Service], overrides: Mapping[str, Override]) -> dict[str, Wish]:
    """What is wanted now, in the oracle's words."""
    return {
        name: _wish(service, overrides[name].replicas if name in overrides else service.replicas)
        for name, service in services.items()
    }


def _wish(service: Service, replicas: int) -> Wish:
    timing = service.timing
    return Wish(
        name=service.name,
        replicas=replicas,
        min_available=service.min_available,
        time_limit_s=service.launch.time_limit_s,
        revision=service.launch.revision,
        max_surge=service.rolling.max_surge,
        max_unavailable=service.rolling.max_unavailable,
        lead_floor_s=timing.lead_floor_s,
        lead_cap_s=timing.lead_cap_s,
        min_ready_s=timing.min_ready_s,
        drain_deadline_s=timing.drain_deadline_s,
        admission_margin_s=timing.admission_margin_s,
        safety_margin_s=timing.safety_margin_s,
        startup_deadline_s=timing.startup_deadline_s,
        unready_deadline_s=timing.unready_deadline_s,
    )


def _toml(tables: dict[str, Table]) -> str:
    lines = [
        "[cluster]",
        'name = "hpc"',
        'installation = "k7f3"',
        'shared_dir = "/shared"',
        'state_dir = "/state"',
        'runtime_dir = "/run/saia"',
        'poll_interval = "15s"',
        f"submits_per_hour = {SUBMITS_PER_HOUR}",
    ]
    for name, table in sorted(tables.items()):
        lines.append(f"[services.{name}]")
        lines += [f"{key} = {_literal(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


__all__ = ["LOAD_S", "ConfigFile", "edit", "reference", "spell", "wishes"]
