"""The listing of Slurm's jobs, ours and others'."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import short_id
from saia_engine.view import JobView
from saia_tui import moments
from saia_tui.cells import count, known, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import since, until


def _job_state(row: JobView, sight: Sight, width: int) -> Text:
    style = {"RUNNING": "ok", "PENDING": "quiet", "FAILED": "bad", "NODE_FAIL": "bad"}.get(row.state, "busy")
    return text(row.state.lower(), style)


def _where(row: JobView, sight: Sight, width: int) -> Text:
    return text(row.nodes) if row.nodes else text(f"({row.reason})" if row.reason else "", "warn")


JOBS = Listing(
    table="jobs",
    title="JOBS",
    columns=(
        Column("JOB", lambda row, s, w: text(row.id), 8, lambda r: r.id, right=True),
        Column(
            "",
            lambda row, s, w: text("■", "ours") if row.instance else text(" "),
            1,
            lambda r: not r.instance,
        ),
        Column(
            "NAME",
            lambda row, s, w: text(
                short_id(row.instance) if row.instance else row.name, "ours" if row.instance else ""
            ),
            16,
            lambda r: r.name,
            grow=4,
            limit=48,
        ),
        Column("USER", lambda row, s, w: text(row.user, "quiet"), 8, lambda r: r.user, grow=1, limit=14),
        Column("STATE", _job_state, 10, lambda r: r.state),
        Column(
            "ENDS IN",
            lambda row, s, w: until(row.end_time, s),
            7,
            lambda r: r.end_time,
            right=True,
        ),
        Column("NODES (REASON)", _where, 14, lambda r: r.nodes or r.reason, grow=3, limit=40),
        Column("GPUS", lambda row, s, w: count(row.gpus), 4, lambda r: r.gpus, drop=2, right=True),
        Column("PARTITION", lambda row, s, w: text(row.partition, "quiet"), 9, lambda r: r.partition, drop=3),
        Column(
            "STARTED",
            lambda row, s, w: since(row.start_time, s),
            7,
            lambda r: r.start_time,
            drop=4,
            right=True,
        ),
        Column(
            "SUBMITTED",
            lambda row, s, w: since(row.submit_time, s),
            9,
            lambda r: r.submit_time,
            drop=5,
            right=True,
        ),
        Column(
            "LIMIT",
            lambda row, s, w: known(moments.age(row.time_limit_s), "quiet"),
            7,
            lambda r: r.time_limit_s,
            drop=6,
            right=True,
        ),
    ),
    order=lambda row: (not row.instance, row.state != "RUNNING", -row.id),
    words=lambda row: f"{row.id} {row.name} {row.user} {row.state} {row.partition} {row.nodes} {row.reason}",
    stale=lambda row, sight: sight.slurm_late,
    empty="Slurm shows no jobs: what is submitted is here after the next poll.",
)
