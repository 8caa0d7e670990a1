"""When a service's next instance may be ready: by Slurm's forecast, else by what past starts took."""

from __future__ import annotations

import math
from collections.abc import Iterable

from saia_engine.model import Instance, State
from saia_engine.planner.lead import Learned, held

STEP_S = 10.0
"""Published as a multiple of this: forecasts move by seconds all the time, and each change is a file written."""
QUEUED = frozenset({State.INTENDED, State.SUBMITTED, State.PENDING})


def eta(coming: Iterable[Instance], learned: Learned, now: float) -> float | None:
    """Of the first of those that come; None where nothing is known, or where they are overdue.

    It is made of what does not change while they wait, so that it stands still.
    """
    moments = [at for instance in coming if (at := _ready_at(instance, learned)) is not None and at > now]
    return math.ceil(min(moments) / STEP_S) * STEP_S if moments else None


def _ready_at(instance: Instance, learned: Learned) -> float | None:
    """Without a known load: when it may start."""
    load_s = learned.load_s
    if instance.state is State.STARTING:
        return None if instance.started_at is None or load_s is None else instance.started_at + load_s
    if instance.forecast_at is not None:
        return instance.forecast_at + (load_s or 0.0)
    if learned.queue_s is None or instance.generation or instance.held or held(instance):
        return None
    return instance.created_at + learned.queue_s + (load_s or 0.0)
