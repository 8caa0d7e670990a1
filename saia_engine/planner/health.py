"""End what will not serve: never ready in time, unready for too long, or hanging; one at a time (promise 15)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from saia_engine.model import (
    Action,
    AgentStatus,
    DrainKind,
    Instance,
    Reason,
    StartDrain,
    State,
    short_id,
)
from saia_engine.planner.fleet import Fleet
from saia_engine.planner.lifecycle import fresh
from saia_engine.planner.moment import Moment

KILL_WINDOW_S = 300.0
"""At most one kill per service in so long."""
RETURN_S = 30.0
"""Agents that fell silent together are heard again one by one, within so long."""


def mass_silent(
    instances: Iterable[Instance], statuses: Mapping[str, AgentStatus], moment: Moment
) -> frozenset[str]:
    """Who served and fell silent, if two or more, and half of all, did: then it is the network, or we.

    Those who are just back count as silent, too: the others may be heard in a moment.
    """
    served = [i for i in instances if i.served and i.live and i.node and i.drain is None]
    silent = [i for i in served if i.state is State.UNREADY and not fresh(statuses.get(i.id), moment.now)]
    fell = len(silent) + (sum(1 for i in served if _just_back(i, moment)) if silent else 0)
    return frozenset(i.id for i in silent) if fell >= 2 and 2 * fell >= len(served) else frozenset()


def _just_back(instance: Instance, moment: Moment) -> bool:
    since = instance.ready_since
    return (
        instance.state is State.READY
        and since is not None
        and since != instance.first_ready_at
        and not moment.passed(since + RETURN_S)
    )


def end_unhealthy(fleet: Fleet, silent: frozenset[str]) -> Iterator[Action]:
    """Drain who is past its deadline; its slot is filled anew. `silent` are spared: see `mass_silent`."""
    killed_at = max(
        (
            i.drain.started_at
            for i in fleet.all
            if i.drain is not None and i.drain.kind is DrainKind.UNHEALTHY
        ),
        default=float("-inf"),
    )
    for instance in fleet.live:
        reason = _sick(fleet, instance)
        if reason is None:
            continue
        if instance.id in silent:
            fleet.waiting.append(
                Reason(
                    "mass-silence",
                    f"{short_id(instance.id)} is spared: half of all agents are silent at once",
                )
            )
        elif not fleet.reached(killed_at + KILL_WINDOW_S):
            fleet.waiting.append(
                Reason(
                    "one-kill-per-window",
                    f"{short_id(instance.id)}: {reason.text}; another of {fleet.name} was ended less than"
                    f" {KILL_WINDOW_S:.0f} s ago",
                    (("last", killed_at),),
                )
            )
        else:
            killed_at = fleet.now
            fleet.leaving.add(instance.id)
            yield StartDrain(instance.id, DrainKind.UNHEALTHY, reason)


def _sick(fleet: Fleet, instance: Instance) -> Reason | None:
    if instance.drain is not None or instance.id in fleet.leaving or instance.completing_since is not None:
        return None
    timing = fleet.timing(instance)
    status = fleet.statuses.get(instance.id)
    # It may have served while nobody listened: who does only now, gives it time to serve again.
    heard_for = fleet.listening.get(instance.id, fleet.now) + timing.unready_deadline_s
    if instance.state is State.STARTING and instance.started_at is not None and fleet.heard_out(instance):
        since = max(instance.started_at, instance.state_since)
        deadline = max(since + timing.startup_deadline_s, heard_for)
        if fleet.passed(deadline):
            return Reason(
                "startup-deadline",
                f"not ready within {timing.startup_deadline_s:.0f} s of its job's start",
                (("deadline", deadline),),
                (("wait longer", "startup_deadline is over"),),
            )
    if instance.state is State.UNREADY:
        if status is not None and fresh(status, fleet.now) and not status.alive:
            return Reason(
                "liveness",
                f"its liveness probe fails: {status.fault or 'no answer'}",
                (("failing_since", instance.state_since),),
                (("wait for it to recover", "the probe failed as often as it may"),),
            )
        deadline = max(instance.state_since + timing.unready_deadline_s, heard_for)
        if fleet.passed(deadline) and fleet.heard_out(instance):
            return Reason(
                "unready-deadline",
                f"unready for {fleet.now - instance.state_since:.0f} s",
                (("deadline", deadline),),
                (("wait for it to recover", "unready_deadline is over"),),
            )
    return None
