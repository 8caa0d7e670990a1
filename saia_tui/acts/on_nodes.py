"""Acts on nodes: no new job of ours there, and again."""

from __future__ import annotations

from typing import Any

from saia_engine.client import Intent, Tables
from saia_engine.model import ENDED
from saia_tui import moments
from saia_tui.acts.act import FACTS, Act
from saia_tui.feed import Engine


def exclude(tables: Tables, name: str, now: float, hours: float) -> Act | str:
    row = tables.nodes[name]
    if row.excluded_until is not None:
        return f"{name} is excluded already: clear that first"
    others = sum(1 for n in tables.nodes.values() if n.usable and n.excluded_until is None and n.name != name)
    effects = (
        ("node", f"{name}, {row.state}"),
        ("new jobs", f"allowed → none of ours for {hours:g} h"),
        ("here now", _here(tables, name)),
        ("left", f"{others} other usable nodes"),
        (
            "effect",
            "instances there are handed over to new ones elsewhere; no stream is cut before their end",
        ),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.exclude(name, hours * 3600.0, **intent)

    return Act(
        "Exclude",
        "nodes",
        name,
        f"no new jobs for {hours:g} h",
        effects,
        ("exclude", name, "--for", f"{round(hours * 60)}m"),
        lambda tables, now: exclude(tables, name, now, hours),
        send,
        FACTS["nodes"](row),
        danger="" if others else f"without {name} there is no node left that could take a new job",
        needs_slurm=True,
    )


def include(tables: Tables, name: str, now: float) -> Act | str:
    row = tables.nodes[name]
    if row.excluded_until is None:
        return f"{name} is not excluded"
    effects = (
        ("node", f"{name}, {row.state}"),
        ("new jobs", f"none for {moments.countdown(row.excluded_until - now)} more → allowed"),
        ("excluded", row.excluded_because),
        ("here now", _here(tables, name)),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.include(name, **intent)

    return Act(
        "Clear exclusion",
        "nodes",
        name,
        "new jobs again",
        effects,
        ("include", name),
        lambda tables, now: include(tables, name, now),
        send,
        FACTS["nodes"](row),
        needs_slurm=True,
    )


def _here(tables: Tables, name: str) -> str:
    here = [i for i in tables.instances.values() if i.node == name and i.state not in ENDED]
    served = ", ".join(sorted({i.service for i in here}))
    return f"{len(here)} instances of ours ({served})" if here else "no instance of ours"
