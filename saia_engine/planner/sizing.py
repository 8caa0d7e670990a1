"""As many filled slots as wanted: launch what is missing, drain what is too much, end what has drained."""

from __future__ import annotations

from collections.abc import Iterator

from saia_engine.model import (
    Action,
    Cancel,
    Drain,
    DrainKind,
    Instance,
    Reason,
    StartDrain,
    State,
    WithdrawDrain,
    short_id,
)
from saia_engine.planner import timeline
from saia_engine.planner.fleet import Fleet
from saia_engine.planner.lifecycle import fresh, never_told

CANCEL_AGAIN_S = 30.0
"""A cancel without effect is sent again after so long."""
TURN_AWAY_S = 2.0
"""Before a cancel at once its agent has so long to turn new requests away: none should begin only to be cut."""


def serve_again(fleet: Fleet) -> Iterator[Action]:
    """Withdraw a drain for a replacement that is not ready any more, and what no agent was ever told."""
    for old in fleet.live:
        if old.state is State.DRAINING and never_told(old, fleet.began_at):
            fleet.withdrawn.add(old.id)
            yield WithdrawDrain(
                old.id,
                Reason(
                    "never-told",
                    "an earlier engine wrote down that it drains, and its agent was never told",
                    refused=(("tell it now", "the reason may have gone: it is decided anew"),),
                ),
            )
    if fleet.service is None:
        return
    missing = fleet.missing()
    for old in fleet.live:
        if old.id in fleet.withdrawn or not _may_serve_again(fleet, old):
            continue
        heir = fleet.replacement.get(old.id)
        if heir is None:
            if missing <= 0:
                continue
            missing -= 1
        elif heir.state is State.READY:
            continue
        fleet.withdrawn.add(old.id)
        yield WithdrawDrain(
            old.id,
            Reason(
                "replacement-lost",
                "its replacement is not ready any more, and it may still admit requests",
                (("end", old.end_time or 0.0),),
                (("let it drain", "its slot would have nobody who is ready"),),
            ),
        )


def _may_serve_again(fleet: Fleet, instance: Instance) -> bool:
    return (
        instance.drain is not None
        and instance.drain.kind is DrainKind.HANDOVER
        and instance.cancel_sent_at is None
        and instance.state is State.DRAINING
        and instance.served
        and instance.end_time is not None
        and not fleet.reached(timeline.admit_until(instance.end_time, fleet.timing(instance)))
    )


# ---------------------------------------------------------------- ends

NEVER_STARTED = Reason("never-started", "its job has not started, so nothing is connected")


def _never_started(instance: Instance) -> bool:
    return instance.node == "" and instance.state is not State.LOST


def _give_up(fleet: Fleet, instance: Instance, kind: DrainKind, reason: Reason) -> Iterator[Action]:
    """Drain it; where nothing can be connected end it at once, before a launch of this plan makes one too many."""
    fleet.leaving.add(instance.id)
    yield StartDrain(instance.id, kind, reason)
    if _never_started(instance):
        yield Cancel(instance.id, NEVER_STARTED)


def end_drains(fleet: Fleet) -> Iterator[Action]:
    """Cancel what has drained, or has had its time."""
    for instance in fleet.live:
        if instance.drain is None or instance.id in fleet.withdrawn:
            continue
        sent_at = instance.cancel_sent_at
        if sent_at is not None and not fleet.reached(sent_at + CANCEL_AGAIN_S):
            continue
        reason = _drain_is_over(fleet, instance, instance.drain)
        if reason is not None:
            yield Cancel(instance.id, reason)


def _drain_is_over(fleet: Fleet, instance: Instance, drain: Drain) -> Reason | None:
    if _never_started(instance):
        return NEVER_STARTED
    status = fleet.statuses.get(instance.id)
    # Its agent knows of the time when another journal did.
    served = instance.served or (status is not None and status.served)
    if drain.kind is DrainKind.UNHEALTHY and not served:
        return Reason("never-served", "it was never ready, so no request was ever sent to it")
    known = status if status is not None and fresh(status, fleet.now) else None
    if (
        known is not None
        and known.seen_at > drain.started_at
        and known.draining
        and known.open_connections == 0
    ):
        return Reason("drained", "its agent reports no open connection")
    open_now = "unknown"
    if known is not None and known.open_connections is not None:
        open_now = str(known.open_connections)
    if drain.at_once and (drain.heard_at is not None or fleet.reached(drain.started_at + TURN_AWAY_S)):
        return Reason(
            "at-once",
            f"an operator wants it gone at once; open connections: {open_now}",
            (("open_connections", open_now),),
            (("wait until nothing is open", "the operator has confirmed that it is cut"),),
        )
    rule, deadline = drain_ends(fleet, instance, drain)
    if not fleet.reached(deadline):
        return None
    return Reason(
        rule,
        f"its time to drain is over; open connections: {open_now}",
        (("deadline", deadline), ("open_connections", open_now)),
        (("wait until nothing is open", "its job's end, or its drain_deadline, has come"),),
    )


def drain_ends(fleet: Fleet, instance: Instance, drain: Drain) -> tuple[str, float]:
    """Up to when open streams may run: the rule's name, and the time."""
    timing = fleet.timing(instance)
    last_cut = float("inf") if instance.end_time is None else timeline.last_cut(instance.end_time, timing)
    # Until its agent hears of it, it takes new requests, which have the same time.
    by_order = (drain.heard_at or drain.started_at) + timing.drain_deadline_s
    if drain.kind is DrainKind.HANDOVER or last_cut <= by_order:
        return "last-cut", last_cut
    return "drain-deadline", by_order


# ---------------------------------------------------------------- number


def resize(fleet: Fleet) -> Iterator[Action]:
    """As many filled slots as wanted, each with one replacement at most: launch, or drain the surplus."""
    for twin in fleet.twins:
        # Of one that Slurm has not shown it is open whether there is anything to spare.
        if twin.id in fleet.leaving or not twin.job_id or not fleet.can_spare(twin):
            continue
        reason = Reason("twin", f"{twin.replaces} has another replacement")
        yield from _give_up(fleet, twin, DrainKind.SURPLUS, reason)
    missing = fleet.missing()
    filled = fleet.wanted - missing
    if missing > 0:
        for _ in range(missing):
            yield fleet.launch(
                Reason(
                    "too-few",
                    f"{filled} of {fleet.wanted} replicas are there or on their way",
                    (("have", filled), ("wanted", fleet.wanted)),
                )
            )
        return
    yield from _shrink(fleet)


def _shrink(fleet: Fleet) -> Iterator[Action]:
    heads, surplus = fleet.surplus()
    kind = DrainKind.SURPLUS if fleet.service else DrainKind.REMOVAL
    text = (
        f"{len(heads)} replicas where {fleet.wanted} are wanted"
        if fleet.service
        else "the service was removed from the configuration"
    )
    why_spared = tuple(
        (f"drain {short_id(i.id)} instead", f"it is {i.state}, or ends later") for i in heads[surplus:][:3]
    )
    reason = Reason("too-many", text, (("have", len(heads)), ("wanted", fleet.wanted)), why_spared)
    for victim in heads[:surplus]:
        heir = fleet.heir(victim)
        leaving = [heir, victim] if heir else [victim]
        if all(fleet.can_spare(i) for i in leaving):
            for each in leaving:
                yield from _give_up(fleet, each, kind, reason)
