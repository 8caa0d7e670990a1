"""Replace what must leave, and drain it once its replacement has proven itself."""

from __future__ import annotations

from collections.abc import Iterator

from saia_engine.model import (
    COMING,
    Action,
    DrainKind,
    Instance,
    Reason,
    Reassign,
    StartDrain,
    State,
    short_id,
)
from saia_engine.planner import timeline
from saia_engine.planner.fleet import Fleet

BY_TIME = ("replace-before-end", "replace-before-maintenance")
"""Rules of a replacement that can't wait; the others can, until the instance has taken over."""


def reassign(fleet: Fleet) -> Iterator[Action]:
    """Who is one too many where it was meant to be, fills an empty slot, or takes over from another one that is due."""
    if fleet.service is None:
        return
    shown, surplus = fleet.surplus()
    twins = [i for i in fleet.twins if _is_of_use(fleet, i)]
    for heir in twins[: max(0, fleet.missing())]:
        fleet.reassign(heir)
        yield _reassigned(heir, "", "a slot is empty")
    spare = [*fleet.twins, *(fleet.heir(i) or i for i in shown[:surplus])]
    spare = [i for i in spare if _is_of_use(fleet, i)]
    for old in shown[surplus:] if spare else ():
        if fleet.heir(old) is not None or fleet.due(old) is None:
            continue
        able = (i for i in spare if fleet.can_take_over(i, old))
        best = max(able, key=fleet.spare_first, default=None)
        if best is not None:
            spare.remove(best)
            fleet.reassign(best, old)
            yield _reassigned(best, old.id, f"{short_id(old.id)} must be replaced")


def _is_of_use(fleet: Fleet, instance: Instance) -> bool:
    if instance.id in fleet.leaving or fleet.due(instance) is not None:
        return False
    return instance.state in COMING or instance.state is State.READY


def _reassigned(heir: Instance, replaces: str, why: str) -> Reassign:
    text = f"{short_id(heir.id)} is one too many, and {why}"
    refused = (("give it up and launch another", "it is there or on its way already"),)
    return Reassign(
        heir.id, replaces, Reason("reassign", text, (("replaced", heir.replaces or "nobody"),), refused)
    )


def hand_over(fleet: Fleet) -> Iterator[Action]:
    """One replacement for each that is due; a drain for each whose replacement is proven."""
    if fleet.service is None:
        return
    heads = fleet.heads()
    spare = max(0, len(heads) - fleet.wanted)
    for old in sorted(heads, key=fleet.spare_first)[spare:]:
        if old.node == "":
            continue
        due = fleet.due(old)
        heir = fleet.replacement.get(old.id)
        if heir is not None and heir.id in fleet.leaving:
            heir = None
        if heir is None and due is not None and old.state is not State.LOST:
            yield fleet.launch(due, replaces=old.id)
        if heir is not None and (too_short := _too_short(fleet, heir)) is not None:
            yield fleet.launch(too_short, replaces=heir.id)
        yield from _drain(fleet, old, _successor(fleet, heir), due)


def _too_short(fleet: Fleet, heir: Instance) -> Reason | None:
    """Why a replacement needs one itself though it has not taken over yet: its limit was cut, or it took too long."""
    if heir.id in fleet.replacement or heir.id in fleet.leaving or heir.state is State.LOST:
        return None
    leaves_by = fleet.outlook.leaves_by(heir)
    timing = fleet.timing(heir)
    if leaves_by is None or not fleet.reached(
        timeline.submit_by(leaves_by, timing, timing.lead_floor_s, fleet.poll_s)
    ):
        return None
    due = fleet.due(heir)
    return due if due is not None and due.rule in BY_TIME else None


def _successor(fleet: Fleet, heir: Instance | None) -> Instance | None:
    """Who takes over: the replacement, or where that is late the one that was launched for it."""
    if heir is None or fleet.proven(heir):
        return heir
    after = fleet.replacement.get(heir.id)
    return after if fleet.proven(after) else heir


def _drain(fleet: Fleet, old: Instance, heir: Instance | None, due: Reason | None) -> Iterator[Action]:
    timing = fleet.timing(old)
    over = fleet.admission_over(old)
    rolls = heir is not None and heir.revision != old.revision and due is None
    backward = rolls and (fleet.going_back or (heir is not None and heir.revision != fleet.revision))
    if heir is not None and fleet.proven(heir) and not backward and fleet.can_spare(old):
        fleet.leaving.add(old.id)
        yield StartDrain(
            old.id,
            DrainKind.ROLLOUT if rolls else DrainKind.HANDOVER,
            Reason(
                "replacement-ready",
                f"{short_id(heir.id)} has been ready for {fleet.now - (heir.ready_since or 0.0):.1f} s",
                (("min_ready", timing.min_ready_s), ("heir", heir.id)),
                (("wait longer", "its replacement has proven itself: two would hold GPUs for one slot"),),
            ),
        )
    elif over and old.end_time is not None:
        fleet.leaving.add(old.id)
        yield StartDrain(
            old.id,
            DrainKind.HANDOVER,
            Reason(
                "admission-over",
                "no new request may start before its end, replacement or not",
                (("admit_until", timeline.admit_until(old.end_time, timing)), ("end", old.end_time)),
                (("wait for its replacement", "a request taken now may not end before its job does"),),
            ),
        )
