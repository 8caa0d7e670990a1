"""The overview as plain text, or the whole state as JSON: for scripts, and for terminals that draw no screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from rich.text import Text

from saia_engine.client import Tables
from saia_engine.model import Severity
from saia_engine.view import API_VERSION, TABLES, NodeView, whole_row
from saia_tui.columns import GAP, Listing, Sight, fit
from saia_tui.feed import Link
from saia_tui.headline import status_line
from saia_tui.listings import ALARMS, EVENTS, INSTANCES, NODES, PROXIES, SERVICES
from saia_tui.listings.instances import is_live
from saia_tui.replay.standing import Standing
from saia_tui.widgets.segments import cell_segments

FORMAT: Final = 1
"""Of the JSON document: it grows when a field changes its meaning or goes, not when one is added."""
NARROWEST: Final = 60
MOST_EVENTS: Final = 10
MOST_NODES: Final = 40
_NEEDS_A_PAST: Final = frozenset({"RATE"})
"""Columns of what was seen over time, which one look does not have."""


def criticals(tables: Tables) -> int:
    """How many critical alarms hold."""
    return sum(alarm.severity == Severity.CRITICAL for alarm in tables.alarms.values())


def as_json(tables: Tables, then: float | None = None) -> str:
    """One document in ASCII; every field of every row is there. `then`: the past moment that it is of."""
    engine = {"engine": tables.engine} if tables.engine else {}
    rows: dict[str, Mapping[str, Any]] = {
        name: engine if name == "engine" else getattr(tables, name) for name in TABLES
    }
    document = {
        "format": FORMAT,
        "api_version": API_VERSION,
        "at": then if then is not None else tables.engine.now if tables.engine else None,
        "replayed": then is not None,
        "critical_alarms": criticals(tables),
        "tables": {
            name: {key: whole_row(row) for key, row in sorted(table.items())} for name, table in rows.items()
        },
    }
    return json.dumps(document, default=msgspec.to_builtins, indent=2)


def as_text(tables: Tables, width: int, then: float | None = None) -> str:
    """Alarms, services, living instances, proxies, GPU nodes and the newest events, `width` columns wide."""
    width = max(NARROWEST, width)
    now = then if then is not None else tables.engine.now if tables.engine else 0.0
    replay = None if then is None else Standing(then, then, speed=0)
    blocks = [[status_line(tables, Link(up=True), now, 0.0, width, replay=replay).plain.strip()]]
    for listing, where, most in (
        (ALARMS, _any, None),
        (SERVICES, _any, None),
        (INSTANCES, is_live, None),
        (PROXIES, _any, None),
        (NODES, _worth_a_line, MOST_NODES),
        (EVENTS, _any, MOST_EVENTS),
    ):
        rows = [row for row in getattr(tables, listing.table).values() if where(row)]
        blocks.append(_table(listing, rows, Sight(now), width, most))
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _table(listing: Listing, rows: list[Any], sight: Sight, width: int, most: int | None) -> list[str]:
    if not rows:
        return [f"{listing.title}  {listing.empty}"]
    columns = fit([column for column in listing.columns if column.name not in _NEEDS_A_PAST], width)
    ordered = sorted(rows, key=listing.order)
    lines = [
        _line([(Text(column.name, end=""), cells, column.right) for column, cells in columns]),
        *(
            _line([(column.cell(row, sight, cells), cells, column.right) for column, cells in columns])
            for row in ordered[:most]
        ),
    ]
    if most is not None and len(ordered) > most:
        lines.append(f"and {len(ordered) - most} more")
    return lines


def _line(cells: list[tuple[Text, int, bool]]) -> str:
    parts = ("".join(part.text for part in cell_segments(*cell)) for cell in cells)
    return (" " * GAP).join(parts).rstrip()


def _worth_a_line(row: NodeView) -> bool:
    return bool(row.gpus) or not row.usable


def _any(row: Any) -> bool:
    return True
