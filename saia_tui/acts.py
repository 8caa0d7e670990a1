"""What an operator can do to the cluster: each act with its fixed target, what it changes and its sending."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from saia_engine.client import Tables
from saia_engine.model import ENDED, State
from saia_engine.view import ServiceView
from saia_tui import moments
from saia_tui.feed import Engine


@dataclass(frozen=True, slots=True)
class Act:
    """One act on one row, named by its id when the window opened."""

    title: str
    """What the button says too: `Scale`, `Drain`."""
    table: str
    target: str
    effects: tuple[tuple[str, str], ...]
    """What the window shows: names and what is true of them now, or would be."""
    seen: object
    """What the decision rests on; the act is refused if it reads different by then."""
    read: Callable[[Any], object]
    """The same of the row as it is now."""
    send: Callable[[Engine, bool], Awaitable[Any]]
    """Of engine and `confirm`. Raises ClientError."""

    def refusal(self, tables: Tables) -> str:
        """Why it must not be sent any more; empty if it may."""
        row = getattr(tables, self.table).get(self.target)
        if row is None:
            return f"{self.target} is gone: nothing was sent"
        if (now := self.read(row)) != self.seen:
            return f"{self.target} changed meanwhile ({self.seen} → {now}): nothing was sent, look again"
        return ""


def scale(row: ServiceView, replicas: int) -> Act:
    effects = [
        ("service", row.name),
        ("desired", f"{row.replicas} → {replicas}"),
        ("now", _standing(row)),
        ("config file", str(row.configured_replicas)),
        ("effect", _scale_effect(row, replicas)),
    ]

    async def send(engine: Engine, confirm: bool) -> Any:
        return await engine.scale(row.name, replicas, confirm=confirm)

    return Act("Scale", "services", row.name, tuple(effects), row.replicas, lambda now: now.replicas, send)


def _standing(row: ServiceView) -> str:
    return f"{row.ready} ready, {row.starting} starting, {row.draining} draining"


def _scale_effect(row: ServiceView, replicas: int) -> str:
    if replicas > row.replicas:
        return f"{replicas - row.replicas} more to be submitted to Slurm"
    if replicas < row.replicas:
        return f"{row.replicas - replicas} to be drained, then their jobs cancelled"
    return "none: this is the present number"


def clear_override(row: ServiceView) -> Act:
    effects = (
        ("service", row.name),
        ("desired", f"{row.replicas} → {row.configured_replicas}, as the config file says"),
        ("override", f"by uid {row.override_by_uid}"),
        ("now", _standing(row)),
    )

    async def send(engine: Engine, confirm: bool) -> Any:
        return await engine.clear_override(row.name)

    return Act("Undo override", "services", row.name, effects, row.replicas, lambda now: now.replicas, send)


def drain(tables: Tables, target: str, now: float) -> Act | str:
    """The act, or why there is nothing to drain."""
    row = tables.instances[target]
    if row.state in ENDED or row.state == State.DRAINING:
        return f"{target} is {row.state} already"
    service = tables.services.get(row.service)
    left = None if row.end is None else row.end - now
    open_now = "unknown" if row.open_connections is None else str(row.open_connections)
    effects = (
        ("instance", target),
        ("service", f"{row.service}: {_standing(service)}" if service else row.service),
        ("state", f"{row.state} → draining"),
        (
            "job",
            f"{row.job_id or 'none'} on {row.node or 'no node yet'}, ends in {moments.countdown(left) or '?'}",
        ),
        ("open", f"{open_now} connections, which may end until the drain deadline"),
        ("effect", "a replacement is launched; the job is cancelled once it is drained"),
    )

    async def send(engine: Engine, confirm: bool) -> Any:
        return await engine.drain(target, confirm=confirm)

    return Act(
        "Drain", "instances", target, effects, (row.state, row.generation), _standing_of_instance, send
    )


def _standing_of_instance(row: Any) -> object:
    return (row.state, row.generation)


def maintenance(tables: Tables, target: str) -> Act:
    row = tables.proxies[target]
    on = not row.maintenance
    effects = (
        ("proxy", target),
        ("maintenance", f"{_on(row.maintenance)} → {_on(on)}"),
        ("link", "connected" if row.connected else "away: it takes effect when it connects again"),
        ("open", f"{row.in_flight} requests in flight, which end whole"),
        ("effect", "new requests are answered 503" if on else "new requests are served again"),
    )

    async def send(engine: Engine, confirm: bool) -> Any:
        return await engine.maintenance(target, on)

    return Act(
        "Maintenance " + _on(on),
        "proxies",
        target,
        effects,
        row.maintenance,
        lambda now: now.maintenance,
        send,
    )


def _on(on: bool) -> str:
    return "on" if on else "off"
