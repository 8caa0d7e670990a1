"""One act on one target: what it changes, what it rests on, and its sending."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saia_engine.client import Intent, Tables
from saia_engine.model import short_id
from saia_tui.feed import Engine

STALE_POLLS = 3
"""What rests on Slurm's word is refused once that is older than so many polls."""

FACTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "services": lambda row: {"replicas": row.replicas, "revision": row.revision},
    "instances": lambda row: {"state": row.state, "generation": row.generation},
    "nodes": lambda row: {"excluded": row.excluded_until is not None},
    "proxies": lambda row: {"maintenance": row.maintenance},
    "keys": lambda row: {
        "revoked": row.revoked,
        "concurrency": row.ordered_concurrency,
        "per_minute": row.ordered_per_minute,
    },
}
"""By table: what fixes the version of a row, in the words of the API's `expect`."""


@dataclass(frozen=True, slots=True)
class Act:
    """Named by the target's id, and fixed to what was seen of it when the window opened."""

    title: str
    """What the button says too: `Scale`, `Drain`."""
    table: str
    """Empty: the target is no row."""
    target: str
    change: str
    """In a few words, for lists: `3 → 5`."""
    effects: tuple[tuple[str, str], ...]
    """What the window shows: names and what is true of them now, or would be."""
    command: tuple[str, ...]
    """The same on the command line."""
    again: Callable[[Tables, float], Act | str]
    """The same act, decided anew on what is true by then; or why there is nothing to do."""
    send: Callable[[Engine, Intent], Awaitable[Any]]
    """Raises ClientError."""
    seen: Mapping[str, Any] = field(default_factory=dict)
    danger: str = ""
    """Why the target's name must be typed; empty where it need not."""
    confirm: bool = False
    """The window tells what the engine would ask about."""
    needs_slurm: bool = False
    """It rests on what Slurm said of jobs or nodes."""

    @property
    def name(self) -> str:
        """The target as people call it."""
        return short_id(self.target)

    @property
    def words(self) -> tuple[str, ...]:
        """What may be typed for the target's name: the shortest first."""
        last = self.target.rpartition(".")[2] if self.table == "instances" else self.target
        return (last, self.name, self.target)

    def intent(self, reason: str, confirmed: bool = False) -> Intent:
        return Intent(confirm=confirmed or self.confirm or bool(self.danger), reason=reason, expect=self.seen)

    def command_line(self, reason: str) -> str:
        words = ["saia-engine", *self.command]
        if self.confirm or self.danger:
            words.append("--yes")
        if reason:
            words += ["--reason", reason]
        return shlex.join(words)

    def refusal(self, tables: Tables, now: float) -> str:
        """Why it must not be sent any more; empty if it may."""
        if fault := unfit(tables, now, self.needs_slurm):
            return fault
        if not self.table:
            return ""
        row = getattr(tables, self.table).get(self.target)
        if row is None:
            return f"{self.name} is gone"
        facts = FACTS[self.table](row)
        for name, seen in self.seen.items():
            if facts[name] != seen:
                return f"{self.name} changed meanwhile ({name} {seen} → {facts[name]}): look again"
        fresh = self.again(tables, now)
        if isinstance(fresh, str):
            return fresh
        if fresh.danger and not self.danger:
            return f"{self.name}: by now {fresh.danger}: look again"
        return ""


def unfit(tables: Tables, now: float, needs_slurm: bool) -> str:
    """Why no act may rest on this state; empty if it may."""
    engine = tables.engine
    if engine is None:
        return "the engine's state is not known yet"
    if not engine.acting:
        return f"the engine does not act: {engine.not_acting_because or 'it observes only'}"
    if not needs_slurm:
        return ""
    if engine.snapshot_at is None:
        return "Slurm has not answered yet"
    age = now - engine.snapshot_at
    if age > STALE_POLLS * engine.poll_interval_s:
        return f"Slurm's last good answer is {age:.0f} s old: what is shown may not be so any more"
    return ""
