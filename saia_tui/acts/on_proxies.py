"""Acts on proxies: maintenance."""

from __future__ import annotations

from typing import Any

from saia_engine.client import Intent, Tables
from saia_tui.acts.act import FACTS, Act
from saia_tui.feed import Engine


def maintenance(tables: Tables, target: str, now: float, on: bool) -> Act | str:
    row = tables.proxies[target]
    if row.maintenance is on:
        return f"the maintenance of {target} is {_on(on)} already"
    effects = (
        ("proxy", target),
        ("maintenance", f"{_on(row.maintenance)} → {_on(on)}"),
        ("link", "connected" if row.connected else "away: it takes effect when it connects again"),
        ("open", f"{row.in_flight} requests in flight, which end whole"),
        ("effect", "new requests are answered 503" if on else "new requests are served again"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.maintenance(target, on, **intent)

    return Act(
        "Maintenance " + _on(on),
        "proxies",
        target,
        f"{_on(row.maintenance)} → {_on(on)}",
        effects,
        ("maintenance", target, _on(on)),
        lambda tables, now: maintenance(tables, target, now, on),
        send,
        FACTS["proxies"](row),
    )


def _on(on: bool) -> str:
    return "on" if on else "off"
