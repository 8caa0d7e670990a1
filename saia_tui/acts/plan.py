"""What one word of the operator does: one act, or the same act on several targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from saia_engine.client import Tables
from saia_tui.acts.act import Act

Decide = Callable[[Tables, str, float], Act | str]
"""The act on a target, or why there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """At least one act. What is not in it is never touched."""

    acts: tuple[Act, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    """Chosen targets with nothing to do, and why."""
    asked: str = ""
    """What the engine itself asks about."""

    @property
    def title(self) -> str:
        title = self.acts[0].title
        return title if len(self.acts) == 1 else f"{title}: {len(self.acts)} {self.acts[0].table}"

    @property
    def dangers(self) -> tuple[str, ...]:
        known = [act.danger for act in self.acts if act.danger]
        return tuple(dict.fromkeys([*([self.asked] if self.asked else []), *known]))

    @property
    def words(self) -> tuple[str, ...]:
        """What may be typed where there is a danger: the name, or how many there are."""
        return self.acts[0].words if len(self.acts) == 1 else (str(len(self.acts)),)

    def told(self) -> str:
        """In a line."""
        first = self.acts[0]
        return f"{first.title} {first.name}" if len(self.acts) == 1 else self.title


def plan(decide: Decide, tables: Tables, targets: Iterable[str], now: float) -> Plan | str:
    """The same act on each target, or why there is nothing to do for any."""
    acts: list[Act] = []
    skipped: list[tuple[str, str]] = []
    for target in targets:
        found = decide(tables, target, now)
        if isinstance(found, str):
            skipped.append((target, found))
        else:
            acts.append(found)
    if not acts:
        return "; ".join(why for _, why in skipped[:3]) or "nothing is chosen"
    return Plan(tuple(acts), tuple(skipped))
