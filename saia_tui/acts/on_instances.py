"""Acts on instances: drain, cancel, replace."""

from __future__ import annotations

from typing import Any

from saia_engine.client import Intent, Tables
from saia_engine.model import ENDED, State
from saia_engine.view import InstanceView
from saia_tui import moments
from saia_tui.acts.act import FACTS, Act
from saia_tui.acts.on_services import standing
from saia_tui.feed import Engine

NEVER_SERVED = (State.INTENDED, State.SUBMITTED, State.PENDING, State.STARTING)
Leaving = frozenset[str]
"""All that leave by the same word: none of them is counted upon."""


def drain(tables: Tables, target: str, now: float, leaving: Leaving = frozenset()) -> Act | str:
    row = tables.instances[target]
    if row.state in ENDED or row.state == State.DRAINING:
        return f"{target} is {row.state} already"
    effects = (
        *_whole(tables, row, now, "draining", leaving),
        ("streams", f"{_open(row)} open now, which may end until the drain deadline; then they are cut"),
        ("effect", "a replacement is launched; the job is cancelled once it is drained"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.drain(target, **intent)

    return Act(
        "Drain",
        "instances",
        target,
        f"{row.state} → draining, {_open(row)} open",
        effects,
        ("drain", target),
        lambda tables, now: drain(tables, target, now, leaving),
        send,
        FACTS["instances"](row),
        danger=_danger(tables, row, leaving),
        needs_slurm=True,
    )


def cancel(tables: Tables, target: str, now: float, leaving: Leaving = frozenset()) -> Act | str:
    row = tables.instances[target]
    if row.state in ENDED:
        return f"{target} is {row.state} already"
    effects = (
        *_whole(tables, row, now, "cancelled at once", leaving),
        ("streams", f"{_open(row)} open now: ALL ARE CUT"),
        ("effect", "its job is cancelled without a drain; a replacement is launched"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.cancel(target, **intent)

    return Act(
        "Cancel job",
        "instances",
        target,
        f"{row.state} → cancelled, {_open(row)} cut",
        effects,
        ("cancel", target),
        lambda tables, now: cancel(tables, target, now, leaving),
        send,
        FACTS["instances"](row),
        danger=_danger(tables, row, leaving),
        confirm=row.state not in NEVER_SERVED,
        needs_slurm=True,
    )


def replace(tables: Tables, target: str, now: float, leaving: Leaving = frozenset()) -> Act | str:
    row = tables.instances[target]
    if row.state in ENDED or row.state == State.DRAINING:
        return f"{target} is {row.state} already"
    if not row.node:
        return f"{target} does not run yet: drain it instead"
    effects = (
        ("instance", target),
        *_service(tables, row),
        ("state", f"{row.state} → handed over"),
        ("job", _job(row, now)),
        ("capacity", "stays: the new one is ready before this one drains"),
        ("streams", f"{_open(row)} open now, which may go on until the job's end"),
        ("effect", "one more job is submitted to Slurm; then a hand-over like any other"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.replace(target, **intent)

    return Act(
        "Replace",
        "instances",
        target,
        f"{row.state} → handed over",
        effects,
        ("replace", target),
        lambda tables, now: replace(tables, target, now, leaving),
        send,
        FACTS["instances"](row),
        needs_slurm=True,
    )


def _whole(
    tables: Tables, row: InstanceView, now: float, becomes: str, leaving: Leaving
) -> tuple[tuple[str, str], ...]:
    left = ready_beside(tables, row, leaving)
    ready = left + (row.state == State.READY)
    service = tables.services.get(row.service)
    least = f"; min_available is {service.min_available}" if service else ""
    return (
        ("instance", row.id),
        *_service(tables, row),
        ("state", f"{row.state} → {becomes} (generation {row.generation})"),
        ("job", _job(row, now)),
        ("capacity", f"{ready} ready now, {left} after{least}"),
    )


def _service(tables: Tables, row: InstanceView) -> tuple[tuple[str, str], ...]:
    service = tables.services.get(row.service)
    if service is None:
        return (("service", row.service),)
    return (
        ("service", f"{row.service}: {standing(service)}"),
        ("traffic", f"{service.requests_per_s:.1f} requests/s in all, {row.in_flight} in flight here"),
    )


def _job(row: InstanceView, now: float) -> str:
    left = moments.countdown(None if row.end is None else row.end - now)
    return f"{row.job_id or 'none'} on {row.node or 'no node yet'}, ends in {left or '?'}"


def _open(row: InstanceView) -> str:
    return "an unknown number" if row.open_connections is None else str(row.open_connections)


def ready_beside(tables: Tables, row: InstanceView, leaving: Leaving) -> int:
    """How many of its service stay ready without it and those that leave with it."""
    return sum(
        1
        for other in tables.instances.values()
        if other.service == row.service
        and other.state == State.READY
        and other.id != row.id
        and other.id not in leaving
    )


def _danger(tables: Tables, row: InstanceView, leaving: Leaving) -> str:
    """As the engine would ask about it."""
    service = tables.services.get(row.service)
    if service is None or row.state != State.READY:
        return ""
    left = ready_beside(tables, row, leaving)
    if left == 0:
        return f"no instance of {row.service} would be ready: new requests are refused until one is"
    if left < service.min_available:
        return (
            f"{left} of {row.service} would be ready, fewer than its min_available of {service.min_available}"
        )
    return ""
