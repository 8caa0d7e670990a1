"""The listing of nodes and their GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from saia_engine.model import Gpu
from saia_engine.view import NodeView
from saia_tui.cells import count, gpu_cells, gpu_marks, heat_cells, known, meter, text
from saia_tui.columns import Column, Listing, Sight
from saia_tui.listings.fields import mean_use, memory


def _node_state(row: NodeView, sight: Sight, width: int) -> Text:
    return text(("● " if row.usable else "✖ ") + row.state, "ok" if row.usable else "bad")


def _reason(row: NodeView, sight: Sight, width: int) -> Text:
    excluded = f"excluded: {row.excluded_because}" if row.excluded_until is not None else ""
    return text("; ".join(word for word in (row.reason, excluded) if word), "warn")


def _gpus(row: NodeView, sight: Sight, width: int) -> Text:
    """What each GPU is, and how busy ours are."""
    if not row.gpus:
        return text("no GPUs", "faint")
    return _heat(row, [gpu.utilisation_percent for gpu in row.live], width)


def _memory_heat(row: NodeView, sight: Sight, width: int) -> Text:
    if not row.live:
        return known(None)
    return _heat(row, [_memory_percent(gpu) for gpu in row.live], width)


def _heat(row: NodeView, percents: Sequence[float | None], width: int) -> Text:
    if row.gpus > width:
        return gpu_cells(row.gpus, row.gpus_ours, row.gpus_allocated, width, usable=row.usable)
    marks = gpu_marks(row.gpus, row.gpus_ours, row.gpus_allocated, usable=row.usable)
    return heat_cells(marks, percents, width)


def _memory_percent(gpu: Gpu) -> float | None:
    used, total = gpu.memory_used_mib, gpu.memory_total_mib
    return used / total * 100 if used is not None and total else None


NODES = Listing(
    table="nodes",
    title="NODES",
    columns=(
        Column("NODE", lambda row, s, w: text(row.name, "strong"), 10, lambda r: r.name, grow=1, limit=20),
        Column("STATE", _node_state, 13, lambda r: (r.usable, r.state), grow=1, limit=20),
        Column("GPUS", _gpus, 8, lambda r: r.gpus - r.gpus_allocated, grow=3, limit=32),
        Column(
            "USED",
            lambda row, s, w: text(f"{row.gpus_allocated}/{row.gpus}", "quiet") if row.gpus else known(None),
            5,
            lambda r: r.gpus_allocated,
            right=True,
        ),
        Column(
            "OURS",
            lambda row, s, w: count(row.gpus_ours, "ours"),
            4,
            lambda r: r.gpus_ours,
            drop=3,
            right=True,
        ),
        Column(
            "LIVE USE",
            lambda row, s, w: meter(mean_use(row), max(2, w - 5)),
            13,
            mean_use,
        ),
        Column("MEMORY", memory, 9, drop=4, right=True),
        Column("MEM HEAT", _memory_heat, 8, drop=6, grow=3, limit=32),
        Column("TYPE", lambda row, s, w: known(row.gpu_type, "quiet"), 6, lambda r: r.gpu_type, drop=2),
        Column(
            "CPUS",
            lambda row, s, w: text(f"{row.cpus_allocated}/{row.cpus}", "quiet"),
            7,
            lambda r: r.cpus_allocated,
            drop=5,
            right=True,
        ),
        Column("PARTITIONS", lambda row, s, w: text(",".join(row.partitions), "quiet"), 10, drop=6),
        Column("REASON", _reason, 20, lambda r: r.reason, grow=6),
    ),
    order=lambda row: (row.usable, row.gpus == 0, row.name),
    words=lambda row: f"{row.name} {row.state} {row.gpu_type} {row.reason} {' '.join(row.partitions)}",
    stale=lambda row, sight: sight.slurm_late,
    empty="Slurm shows no nodes: does sinfo, as the engine's user?",
)
