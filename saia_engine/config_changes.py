"""A changed configuration file: what it would change, and its taking in, by SIGHUP or by an operator's word."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from saia_engine import config as configuration
from saia_engine.config import Config, ConfigFaults
from saia_engine.model import ProxyLimits, Service
from saia_engine.reconciler import Reconciler

FIXED = (
    "name", "kind", "installation", "paths", "poll_interval_s", "rpc_floor_s", "command_timeout_s", "port_range",
    "agent_python", "slurm_bin", "slurm_conf", "operators_group", "gate_group", "local",
)  # fmt: skip
"""What counts after a restart only."""
AT_ONCE = ("submits_per_hour", "quarantine")
ALARM = ("config-bad", "config")
HIDDEN = "(not shown)"
LONGEST_VALUE = 120


class ConfigChanges:
    """Knows what is in force of the file. `on_proxies` is told the proxies of each file that was taken in."""

    def __init__(
        self,
        config: Config,
        reconciler: Reconciler,
        on_proxies: Callable[[Mapping[str, ProxyLimits]], None],
    ) -> None:
        self._begun_with = config
        self._in_force = config
        self._reconciler = reconciler
        self._on_proxies = on_proxies

    def read(self) -> Config:
        """The file as it is now. Raises ConfigFaults."""
        return configuration.load(self._begun_with.file)

    def preview(self) -> dict[str, Any]:
        """What the file would change; where it is bad its `faults`, and nothing else."""
        try:
            return self.preview_of(self.read())
        except ConfigFaults as exc:
            faults = [
                {"file": f.file, "key": f.key, "text": f.text, "suggestion": f.suggestion} for f in exc.faults
            ]
            return {"file": str(self._begun_with.file), "faults": faults, "changed": False}

    def preview_of(self, fresh: Config) -> dict[str, Any]:
        """`services` and `proxies` that are new, changed or removed, and other `settings`, each with its fields."""
        before = self._in_force
        services = list(self._services(before.services, fresh.services))
        proxies = [_change("proxy", *pair) for pair in _pairs(before.proxies, fresh.proxies)]
        settings = list(self._settings(fresh))
        return {
            "file": str(fresh.file),
            "digest": digest(fresh),
            "changed": bool(services or proxies or settings),
            "services": services,
            "proxies": proxies,
            "settings": settings,
            "faults": [],
        }

    def take(self, fresh: Config, uid: int | None = None, why: str = "") -> None:
        """From now on this holds. Raises JournalError."""
        told = _summary(self.preview_of(fresh))
        self.calm()
        self._on_proxies(fresh.proxies)
        self._reconciler.configure(fresh.services, fresh.submits_per_hour, fresh.quarantine)
        self._in_force = fresh
        pending = self._pending(fresh)
        note = f"; a restart is needed for a change of {', '.join(pending)}" if pending else ""
        self._reconciler.record("config-reloaded", "config", f"{told}{note} ({fresh.file})", uid, why)

    def calm(self) -> None:
        """The file is good again."""
        self._reconciler.alarms.calm(*ALARM)

    def reload(self) -> None:
        """Take in the file; a bad one changes nothing and raises an alarm. Raises JournalError."""
        try:
            fresh = self.read()
        except ConfigFaults as exc:
            self._reconciler.alarms.worry(*ALARM, str(exc).replace("\n", "; "))
            return
        self.take(fresh)

    def _pending(self, fresh: Config) -> list[str]:
        return [name for name in FIXED if getattr(fresh, name) != getattr(self._begun_with, name)]

    def _settings(self, fresh: Config) -> Iterator[dict[str, Any]]:
        for name in (*AT_ONCE, *FIXED):
            before, after = getattr(self._in_force, name), getattr(fresh, name)
            if before != after:
                change = {"field": name, "before": _shown(before), "after": _shown(after)}
                yield change | {"needs_restart": name in FIXED}

    def _services(
        self, before: Mapping[str, Service], after: Mapping[str, Service]
    ) -> Iterator[dict[str, Any]]:
        for name, old, new in _pairs(before, after):
            yield _change("service", name, old, new) | {"means": list(self._means(name, old, new))}

    def _means(self, name: str, old: Service | None, new: Service | None) -> Iterator[str]:
        live = sum(1 for i in self._reconciler.instances.values() if i.service == name and i.live)
        if new is None:
            yield f"it ends: {_count(live)} drained, then cancelled, and its requests are refused"
            return
        wishes = self._reconciler.wishes
        wanted = wishes.unpaused(new)
        if name in wishes.pauses:
            yield f"it is paused: when it is resumed, it has {_replicas(wanted)}"
        elif old is None:
            yield f"{_count(wanted)} launched"
        elif old.replicas != new.replicas and name in wishes.overrides:
            yield f"its number stays {wanted}: an operator's override holds"
        elif old.replicas != new.replicas:
            yield f"{_replicas(wishes.unpaused(old))} become {wanted}"
        if old is None:
            return
        if old.launch.revision != new.launch.revision:
            revision = new.launch.revision
            if name in wishes.pins:
                yield f"its rollback to {wishes.pins[name].revision} ends"
            yield f"rollout of {revision}: {_count(live)} replaced, {new.rolling.max_surge} more at once at most"
        if any(getattr(old, field) != getattr(new, field) for field in ("models", "methods", "paths")):
            yield "what clients may ask of it changes at once"
        if old.timing != new.timing:
            yield "its durations count at once, also for instances that run"


def digest(config: Config) -> str:
    """Names what a file says: equal where nothing that counts differs."""
    return hashlib.sha256(f"{config}{sorted(config.services.items())}".encode()).hexdigest()[:16]


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield name, old, new


def _change(kind: str, name: str, old: Any, new: Any) -> dict[str, Any]:
    what = "new" if old is None else "removed" if new is None else "changed"
    differ = list(_differences(old, new)) if old is not None and new is not None else []
    return {kind: name, "change": what, "fields": differ}


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[dict[str, str]]:
    for field in fields(old):
        before: Any = getattr(old, field.name)
        after: Any = getattr(new, field.name)
        name = f"{prefix}{field.name}"
        if before == after:
            continue
        if field.name == "environment":
            yield from _variables(name, dict(before), dict(after))
        elif is_dataclass(before) and type(before) is type(after):
            yield from _differences(before, after, f"{name}.")
        else:
            yield {"field": name, "before": _shown(before), "after": _shown(after)}


def _variables(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Their values may be secret."""
    for variable, old, new in _pairs(before, after):
        hidden = ("" if value is None else HIDDEN for value in (old, new))
        yield dict(zip(("field", "before", "after"), (f"{name}.{variable}", *hidden), strict=True))


def _shown(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _count(number: int) -> str:
    return f"{number} instance is" if number == 1 else f"{number} instances are"


def _replicas(number: int) -> str:
    return f"{number} replica" if number == 1 else f"{number} replicas"


def _summary(preview: Mapping[str, Any]) -> str:
    told = [f"{row['service']} {row['change']}" for row in preview["services"]]
    told += [f"proxy {row['proxy']} {row['change']}" for row in preview["proxies"]]
    told += [row["field"] for row in preview["settings"] if not row["needs_restart"]]
    return ", ".join(told) or "nothing that counts at once changed"
