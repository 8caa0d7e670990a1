"""The listing of instances."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import ENDED, State, short_id
from saia_engine.view import InstanceView
from saia_tui.cells import join, known, meter, state_cell, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import FOREVER, mean_use, memory, rank, since, until

WORST_STATE = (
    State.LOST,
    State.UNREADY,
    State.FAILED,
    State.STARTING,
    State.PENDING,
    State.SUBMITTED,
    State.INTENDED,
    State.DRAINING,
    State.READY,
    State.STOPPED,
)
TROUBLE = (State.LOST, State.UNREADY)


def _instance_state(row: InstanceView, sight: Sight, width: int) -> Text:
    cell = state_cell(row.state)
    return join(cell, text(f" {row.drain_kind}", "quiet")) if row.drain_kind and width > 12 else cell


def _note(row: InstanceView, sight: Sight, width: int) -> Text:
    """The one thing to know beside the state: why it waits, how it ended, who is silent, whom it replaces."""
    if row.silent_since is not None:
        return join(text("agent silent for ", "warn"), since(row.silent_since, sight))
    if row.outcome:
        return text(row.outcome, "bad" if row.state == State.FAILED else "quiet")
    if row.reason:
        return text(row.reason, "quiet" if row.state == State.STARTING else "warn")
    return text(f"replaces {row.replaces.rpartition('.')[2]}", "quiet") if row.replaces else text("")


def _job(row: InstanceView, sight: Sight, width: int) -> Text:
    again = f"+{row.generation}" if row.generation else ""
    return known(f"{row.job_id}{again}" if row.job_id else None, "quiet")


def _gpu_use(row: InstanceView, sight: Sight, width: int) -> Text:
    return meter(mean_use(row), max(2, width - 5))


def _instance_order(row: InstanceView) -> tuple[object, ...]:
    """What is in trouble, then what ends next, then what ended last."""
    if row.state in ENDED:
        return (2, -row.since, row.id)
    return (0 if row.state in TROUBLE else 1, row.end or FOREVER, row.id)


def is_live(row: InstanceView) -> bool:
    return row.state not in ENDED


INSTANCES = Listing(
    table="instances",
    title="INSTANCES",
    columns=(
        Column(
            "INSTANCE",
            lambda row, s, w: text(short_id(row.id), "strong"),
            18,
            lambda r: r.id,
            grow=2,
            limit=30,
        ),
        Column("STATE", _instance_state, 11, lambda r: rank(r.state, WORST_STATE), grow=1, limit=20),
        Column(
            "ENDS IN",
            lambda row, s, w: until(row.end if is_live(row) else None, s),
            7,
            lambda r: r.end if is_live(r) else None,
            right=True,
        ),
        Column("NODE", lambda row, s, w: known(row.node), 10, lambda r: r.node, grow=1, limit=20),
        Column("JOB", _job, 8, lambda r: r.job_id, drop=1, right=True),
        Column(
            "OPEN",
            lambda row, s, w: known(row.open_connections),
            5,
            lambda r: r.open_connections,
            right=True,
        ),
        Column("GPU USE", _gpu_use, 11, mean_use, drop=2),
        Column("MEMORY", memory, 9, drop=5, right=True),
        Column("SINCE", lambda row, s, w: since(row.since, s), 7, lambda r: r.since, drop=3, right=True),
        Column(
            "ADMITS",
            lambda row, s, w: until(row.admit_until, s),
            7,
            lambda r: r.admit_until,
            drop=6,
            right=True,
        ),
        Column("REVISION", lambda row, s, w: known(row.revision, "quiet"), 12, lambda r: r.revision, drop=7),
        Column("NOTE", _note, 16, grow=5),
    ),
    order=_instance_order,
    words=lambda row: f"{row.id} {row.state} {row.node} {row.job_id} {row.reason} {row.outcome}",
    stale=lambda row, sight: row.silent_since is not None,
    empty="No instances: scale a service (s); saia-engine plan tells what a launch waits for.",
)
