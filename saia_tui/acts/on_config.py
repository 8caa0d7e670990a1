"""The act on the configuration: take in the changed file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from saia_engine.client import Intent
from saia_tui.acts.act import Act
from saia_tui.feed import Engine

WORD = "apply"
"""The name that is typed for it."""


def apply(preview: Mapping[str, Any]) -> Act | str:
    """`preview` is the engine's answer to `config_diff`."""
    if preview["faults"]:
        return "\n".join(fault_lines(preview))
    if not preview["changed"]:
        return f"{preview['file']} says what is in force already"
    removed = [row["service"] for row in preview["services"] if row["change"] == "removed"]

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.apply_config(**intent)

    act = Act(
        "Apply config",
        "",
        WORD,
        str(preview["file"]),
        tuple(_effects(preview)),
        ("apply",),
        lambda tables, now: act,
        send,
        {"digest": preview["digest"]},
        danger=f"all instances of {', '.join(removed)} would end: the file has them no more"
        if removed
        else "",
    )
    return act


def fault_lines(preview: Mapping[str, Any]) -> list[str]:
    lines = []
    for fault in preview["faults"]:
        where = f"{fault['file']}: {fault['key']}" if fault["key"] else fault["file"]
        advice = f"; {fault['suggestion']}" if fault["suggestion"] else ""
        lines.append(f"{where}: {fault['text']}{advice}")
    return lines


def _effects(preview: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "file", str(preview["file"])
    for row in preview["services"]:
        yield "service", f"{row['service']}: {row['change']}"
        for field in row["fields"]:
            yield "", _change(field)
        for means in row["means"]:
            yield "", f"⇒ {means}"
    for row in preview["proxies"]:
        yield "proxy", f"{row['proxy']}: {row['change']}"
        for field in row["fields"]:
            yield "", _change(field)
    for row in preview["settings"]:
        note = "  (after a restart of the engine)" if row["needs_restart"] else ""
        yield "setting", f"{_change(row)}{note}"


def _change(field: Mapping[str, Any]) -> str:
    return f"{field['field']}: {field['before'] or '–'} → {field['after'] or '–'}"
