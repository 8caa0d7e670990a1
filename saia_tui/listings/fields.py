"""Cells and orders that several listings share."""

from __future__ import annotations

from rich.text import Text

from saia_engine.model import Severity
from saia_engine.view import AlarmView, EventView, InstanceView, NodeView
from saia_tui import moments
from saia_tui.cells import known, state_cell, text
from saia_tui.columns import Sight

URGENT_S = 120.0
SOON_S = 600.0
FOREVER = float("inf")
WORST_SEVERITY = (Severity.CRITICAL, Severity.WARNING, Severity.INFO)


def rank(word: str, order: tuple[str, ...]) -> int:
    return order.index(word) if word in order else -1


def until(at: float | None, sight: Sight) -> Text:
    if at is None:
        return known(None)
    left = sight.distance(at)
    style = "warn" if left < URGENT_S else "" if left < SOON_S else "quiet"
    return text(moments.countdown(left), style)


def since(at: float | None, sight: Sight) -> Text:
    return known(moments.age(None if not at else max(0.0, -sight.distance(at))), "quiet")


def mean_use(row: InstanceView | NodeView) -> float | None:
    """Mean utilisation (percent) over the GPUs that report one."""
    gpus = row.gpus if isinstance(row, InstanceView) else row.live
    values = [gpu.utilisation_percent for gpu in gpus if gpu.utilisation_percent is not None]
    return sum(values) / len(values) if values else None


def memory(row: InstanceView | NodeView, sight: Sight, width: int) -> Text:
    gpus = row.gpus if isinstance(row, InstanceView) else row.live
    used = [gpu.memory_used_mib for gpu in gpus if gpu.memory_used_mib is not None]
    total = [gpu.memory_total_mib for gpu in gpus if gpu.memory_total_mib is not None]
    if not used or not total:
        return known(None)
    return text(f"{sum(used) / 1024:.0f}/{sum(total) / 1024:.0f}G", "quiet")


def severity(row: AlarmView | EventView, sight: Sight, width: int) -> Text:
    return state_cell(row.severity)
