"""The configuration file of the simulated site: the reference services, and the edits that people make to it.

Each version is a real TOML file through the real reader, so that what it refuses is refused here, too.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saia_engine import config
from saia_engine.config import ConfigFaults
from saia_engine.model import QUARANTINE, LaunchSpec, Override, Service
from saia_engine.simulator.truth import Wish

Table = dict[str, Any]
SUBMITS_PER_HOUR = 120
BROKEN = "--broken"
LOAD_S = {"chat": 120.0, "code": 90.0, "embed": 25.0, "image": 60.0, "tiny": 10.0}
"""How long each service loads, in the middle."""


def reference() -> dict[str, Table]:
    """5 services with 8 instances."""

    def service(
        replicas: int, min_available: int, gpus: int, minutes: int, lead_s: int, **more: Any
    ) -> Table:
        return {
            "command": ["serve", "--port", "{port}"],
            "replicas": replicas,
            "min_available": min_available,
            "gpus": gpus,
            "time_limit": f"{minutes}m",
            "lead_floor": f"{lead_s}s",
            "min_ready": "10s",
            "drain_deadline": "5m",
            "admission_margin": "2m",
            "safety_margin": "30s",
            "startup_deadline": "20m",
            "unready_deadline": "3m",
            "healthy_deadline": "20m",
            "progress_deadline": "40m",
            "partition": "gpu" if gpus else "cpu",
            **more,
        }

    return {
        "chat": service(2, 1, 2, 120, 600, lead_cap="40m", liveness={"failures": 3}),
        "code": service(2, 2, 1, 90, 600, lead_cap="25m", time_min="60m"),
        "embed": service(2, 1, 1, 60, 400, lead_cap="15m", max_surge=0, max_unavailable=1),
        "image": service(1, 0, 2, 150, 600, lead_cap="30m"),
        "tiny": service(1, 0, 0, 45, 300, stagger=False),
    }


@dataclass(slots=True)
class Written:
    """What stands in the file."""

    tables: dict[str, Table]
    """By service."""
    submits_per_hour: int = SUBMITS_PER_HOUR


class ConfigFile:
    """The file as it is written now, and what the reader last took of it."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="saia-simulator-")
        self._path = Path(self._directory.name) / "engine.toml"
        self.written = Written(tables)
        self.services: Mapping[str, Service] = {}
        self.submits_per_hour = SUBMITS_PER_HOUR
        self.quarantine = QUARANTINE
        self._good = deepcopy(self.written)
        self.take()

    def take(self) -> str:
        """Read what is written; the faults where it is refused, and then nothing changes."""
        self._path.write_text(_toml(self.written), encoding="utf-8")
        try:
            read = config.load(self._path)
        except ConfigFaults as exc:
            return str(exc).replace(str(self._path), "engine.toml")  # its directory is another each time
        self.services, self.submits_per_hour = read.services, read.submits_per_hour
        self.quarantine = read.quarantine
        self._good = deepcopy(self.written)
        return ""

    def put_back(self) -> None:
        """As it was before the bad edit."""
        self.written = deepcopy(self._good)

    def close(self) -> None:
        self._directory.cleanup()


def edit(written: Written, chance: random.Random) -> str:
    """One change that a person may make, good or bad; returns what it is."""
    kind = chance.choice(sorted(_EDITS))
    name = chance.choice(sorted(written.tables))
    _EDITS[kind](written, name, chance)
    return f"{kind} {name}"


def _replicas(written: Written, name: str, chance: random.Random) -> None:
    table = written.tables[name]
    table["replicas"] = chance.choice([1, 2, 2, 3])
    table["min_available"] = min(table["min_available"], table["replicas"] - 1)


def _launch(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name]["command"] = ["serve", "--port", "{port}", f"--v{chance.randint(1, 99)}"]


def _broken_launch(written: Written, name: str, chance: random.Random) -> None:
    """The file is good, but what it asks to run is not: it ends at once, each time."""
    written.tables[name]["command"] = ["serve", "--port", "{port}", BROKEN]


def _timing(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name] |= {
        "drain_deadline": f"{chance.choice([180, 300, 420])}s",
        "min_ready": f"{chance.choice([5, 10, 30])}s",
        "lead_floor": f"{chance.choice([300, 400, 600, 900])}s",
    }


def _limit(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name]["time_limit"] = f"{chance.choice([45, 60, 90, 120, 150])}m"


def _remove(written: Written, name: str, chance: random.Random) -> None:
    if len(written.tables) > 3:
        del written.tables[name]


def _add(written: Written, name: str, chance: random.Random) -> None:
    for missing, table in reference().items():
        written.tables.setdefault(missing, table)


def _min_available(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name]["min_available"] = chance.randint(0, written.tables[name]["replicas"])


def _rolling(written: Written, name: str, chance: random.Random) -> None:
    surge, unavailable = chance.choice([(1, 0), (0, 1), (1, 1), (2, 0)])
    written.tables[name] |= {"max_surge": surge, "max_unavailable": unavailable}


def _bad_sum(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name]["time_limit"] = "10m"


def _bad_value(written: Written, name: str, chance: random.Random) -> None:
    written.tables[name]["replicas"] = -1


def _submits(written: Written, name: str, chance: random.Random) -> None:
    written.submits_per_hour = chance.choice([6, 12, 24])


_EDITS: dict[str, Callable[[Written, str, random.Random], None]] = {
    "add": _add,
    "bad-sum": _bad_sum,
    "bad-value": _bad_value,
    "broken-launch": _broken_launch,
    "launch": _launch,
    "limit": _limit,
    "min-available": _min_available,
    "remove": _remove,
    "replicas": _replicas,
    "rolling": _rolling,
    "submits": _submits,
    "timing": _timing,
}


def mend(written: Written) -> bool:
    """Ask for what works, and allow enough submits; whether anything had to change."""
    broken = [table for table in written.tables.values() if BROKEN in table["command"]]
    for table in broken:
        table["command"] = ["serve", "--port", "{port}"]
    scarce = written.submits_per_hour < SUBMITS_PER_HOUR
    written.submits_per_hour = SUBMITS_PER_HOUR
    return bool(broken) or scarce


def wishes(
    services: Mapping[str, Service],
    overrides: Mapping[str, Override],
    paused: Collection[str],
    pins: Mapping[str, tuple[str, str]],
    specs: Mapping[tuple[str, str], LaunchSpec],
) -> dict[str, Wish]:
    """What is wanted now, in the oracle's words. `specs` by service and revision, for what is pinned."""
    return {
        name: _wish(
            service,
            _wanted(service, overrides.get(name), name in paused),
            _to_run(service, pins.get(name), specs),
        )
        for name, service in services.items()
    }


def _wanted(service: Service, override: Override | None, paused: bool) -> int:
    if paused:
        return 0
    return service.replicas if override is None else override.replicas


def _to_run(
    service: Service, pin: tuple[str, str] | None, specs: Mapping[tuple[str, str], LaunchSpec]
) -> tuple[str, int]:
    """Revision and time limit of what is to run."""
    own = service.launch
    if pin is None or pin[1] != own.revision:
        return own.revision, own.time_limit_s
    spec = specs.get((service.name, pin[0]))
    return pin[0], spec.time_limit_s if spec else own.time_limit_s


def _wish(service: Service, replicas: int, launch: tuple[str, int]) -> Wish:
    timing = service.timing
    return Wish(
        name=service.name,
        replicas=replicas,
        min_available=service.min_available,
        time_limit_s=launch[1],
        revision=launch[0],
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
        liveness=service.launch.liveness is not None,
    )


def _toml(written: Written) -> str:
    lines = [
        "[cluster]",
        'name = "hpc"',
        'installation = "k7f3"',
        'shared_dir = "/shared"',
        'state_dir = "/state"',
        'runtime_dir = "/run/saia"',
        'poll_interval = "15s"',
        f"submits_per_hour = {written.submits_per_hour}",
    ]
    for name, table in sorted(written.tables.items()):
        lines.append(f"[services.{name}]")
        lines += [f"{key} = {_literal(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
