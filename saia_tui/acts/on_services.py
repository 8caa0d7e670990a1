"""Acts on services: their number, a pause, a rollback."""

from __future__ import annotations

from typing import Any

from saia_engine.client import Intent, Tables
from saia_engine.view import ServiceView
from saia_tui import moments
from saia_tui.acts.act import FACTS, Act
from saia_tui.feed import Engine


def scale(tables: Tables, name: str, now: float, replicas: int) -> Act | str:
    row = tables.services[name]
    if row.paused_by_uid is not None:
        return f"{name} is paused: resume it first"
    effects = (
        *_whole(row, replicas, f"(config file: {row.configured_replicas})"),
        ("effect", _scale_effect(row, replicas)),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.scale(name, replicas, **intent)

    return Act(
        "Scale",
        "services",
        name,
        f"{row.replicas} → {replicas}",
        effects,
        ("scale", name, str(replicas)),
        lambda tables, now: scale(tables, name, now, replicas),
        send,
        FACTS["services"](row),
        danger=_scale_danger(row, replicas),
    )


def _whole(row: ServiceView, replicas: int, note: str = "") -> tuple[tuple[str, str], ...]:
    """What every act on a service's number shows."""
    return (
        ("service", row.name),
        ("desired", f"{row.replicas} → {replicas} {note}".rstrip()),
        ("now", standing(row)),
        ("capacity", _capacity(row, replicas)),
        ("traffic", f"{row.requests_per_s:.1f} requests/s, {row.in_flight} in flight"),
    )


def standing(row: ServiceView) -> str:
    return f"{row.ready} ready, {row.starting} starting, {row.draining} draining"


def _capacity(row: ServiceView, replicas: int) -> str:
    after = min(row.ready, replicas)
    later = f", {replicas} once all have started" if replicas > after else ""
    return f"{row.ready} ready now, {after} right after{later}; min_available is {row.min_available}"


def _scale_effect(row: ServiceView, replicas: int) -> str:
    if replicas > row.replicas:
        return f"{replicas - row.replicas} more to be submitted to Slurm"
    if replicas < row.replicas:
        fewer = row.replicas - replicas
        return f"{fewer} to be drained, then their jobs cancelled; streams still open at the drain deadline are cut"
    return "none: this is the present number"


def _scale_danger(row: ServiceView, replicas: int) -> str:
    if replicas == 0 and row.replicas > 0:
        return f"{row.name} would be stopped: all its requests are refused"
    if replicas < min(row.min_available, row.replicas):
        return f"{row.name} would have fewer replicas than its min_available of {row.min_available}"
    return ""


def clear_override(tables: Tables, name: str, now: float) -> Act | str:
    row = tables.services[name]
    if row.override_by_uid is None:
        return f"{name} has no override: the config file's number holds"
    if row.paused_by_uid is not None:
        return f"{name} is paused: resume it first"
    effects = (
        *_whole(row, row.configured_replicas, "as the config file says"),
        ("override", _whose(row.override_by_uid, row.override_at, row.override_because, now)),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.clear_override(name, **intent)

    return Act(
        "Undo override",
        "services",
        name,
        f"{row.replicas} → {row.configured_replicas}",
        effects,
        ("scale", name, "config"),
        lambda tables, now: clear_override(tables, name, now),
        send,
        FACTS["services"](row),
        danger=_scale_danger(row, row.configured_replicas),
    )


def _whose(uid: int, at: float | None, because: str, now: float) -> str:
    since = f", {moments.age(now - at)} ago" if at is not None else ""
    return f"by uid {uid}{since}" + (f": {because}" if because else "")


def pause(tables: Tables, name: str, now: float) -> Act | str:
    row = tables.services[name]
    if row.paused_by_uid is not None:
        return f"{name} is paused already"
    effects = (
        *_whole(row, 0, "until it is resumed"),
        ("effect", "all are drained, then cancelled; streams still open at the drain deadline are cut"),
        ("comes back", f"{row.replicas} replicas, when it is resumed"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.pause(name, **intent)

    return Act(
        "Pause",
        "services",
        name,
        f"{row.replicas} → 0 until resumed",
        effects,
        ("pause", name),
        lambda tables, now: pause(tables, name, now),
        send,
        FACTS["services"](row),
        danger=f"{name} would be stopped: all its requests are refused until it is resumed",
    )


def resume(tables: Tables, name: str, now: float) -> Act | str:
    row = tables.services[name]
    if row.paused_by_uid is None:
        return f"{name} is not paused"
    replicas = row.configured_replicas if row.override_replicas is None else row.override_replicas
    effects = (
        *_whole(row, replicas, "as before the pause"),
        ("paused", _whose(row.paused_by_uid, row.paused_at, row.paused_because, now)),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.resume(name, **intent)

    return Act(
        "Resume",
        "services",
        name,
        f"0 → {replicas}",
        effects,
        ("resume", name),
        lambda tables, now: resume(tables, name, now),
        send,
        FACTS["services"](row),
    )


def pause_or_resume(tables: Tables, names: list[str]) -> Any:
    """Pauses those that are not paused; where all are, it resumes them."""
    all_paused = all(tables.services[name].paused_by_uid is not None for name in names)
    return resume if all_paused else pause


def rollback(tables: Tables, name: str, now: float, revision: str, note: str = "") -> Act | str:
    """To that revision; empty: to the last good one. `note` is what became of it before."""
    row = tables.services[name]
    to = revision or "the last good one"
    effects = (
        ("service", name),
        ("revision", f"{row.revision or '?'} → {to}"),
        *((("known", note),) if note else ()),
        ("now", standing(row)),
        ("traffic", f"{row.requests_per_s:.1f} requests/s, {row.in_flight} in flight"),
        ("effect", "a rollout: its instances are replaced one after the other, as it is configured"),
        ("holds", "until unpin, or until the file asks for something new"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.rollback(name, revision, **intent)

    return Act(
        "Roll back",
        "services",
        name,
        f"{row.revision or '?'} → {to}",
        effects,
        ("rollback", name, *([revision] if revision else [])),
        lambda tables, now: rollback(tables, name, now, revision, note),
        send,
        FACTS["services"](row),
    )


def unpin(tables: Tables, name: str, now: float, to: str) -> Act | str:
    row = tables.services[name]
    if not row.pinned_to:
        return f"{name} is not rolled back"
    effects = (
        ("service", name),
        ("revision", f"{row.revision} → {to}, as the config file says"),
        ("now", standing(row)),
        ("traffic", f"{row.requests_per_s:.1f} requests/s, {row.in_flight} in flight"),
        ("effect", "a rollout: its instances are replaced one after the other, as it is configured"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.unpin(name, **intent)

    return Act(
        "End rollback",
        "services",
        name,
        f"{row.revision} → {to}",
        effects,
        ("unpin", name),
        lambda tables, now: unpin(tables, name, now, to),
        send,
        FACTS["services"](row),
    )
