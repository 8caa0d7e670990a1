"""Acts on proxies' API keys: revoking, restoring, limits."""

from __future__ import annotations

from typing import Any

from saia_engine.client import Intent, Tables
from saia_engine.view import KeyView
from saia_tui.acts.act import FACTS, Act
from saia_tui.feed import Engine
from saia_tui.listings.keys import limits

Limits = dict[str, int | None]
"""`concurrency` and `per_minute`; None is what the proxy's configuration says, 0 no limit."""


def revocation(tables: Tables, target: str, now: float, revoke: bool) -> Act | str:
    """Revokes a key, or restores one that was revoked."""
    row = tables.keys[target]
    if row.revoked is revoke:
        return f"{row.name} is {_word(revoke)} already"
    change = f"{_word(row.revoked)} → {_word(revoke)}"
    effects = (
        *_who(row),
        ("state", change),
        ("open", f"{row.said_in_flight} requests under way, which end whole"),
        ("effect", "its new requests are answered 401" if revoke else "its requests are served again"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        order = engine.revoke_key if revoke else engine.restore_key
        return await order(row.proxy, row.name, **_told(intent))

    return Act(
        "Revoke key" if revoke else "Restore key",
        "keys",
        target,
        change,
        effects,
        ("key", row.proxy, row.name, "revoke" if revoke else "restore"),
        lambda tables, now: revocation(tables, target, now, revoke),
        send,
        FACTS["keys"](row),
    )


def limiting(tables: Tables, target: str, now: float, wanted: Limits) -> Act | str:
    row = tables.keys[target]
    ordered: Limits = {"concurrency": row.ordered_concurrency, "per_minute": row.ordered_per_minute}
    if ordered == wanted:
        return f"{row.name} has these limits already"
    change = f"{_words(ordered)} → {_words(wanted)}"
    effects = (
        *_who(row),
        ("in force", limits(row.said_concurrency, row.said_per_minute) if row.known else "unknown"),
        ("ordered", change),
        ("effect", "requests above a limit are answered 429"),
    )

    async def send(engine: Engine, intent: Intent) -> Any:
        return await engine.limit_key(row.proxy, row.name, wanted, **_told(intent))

    return Act(
        "Limit key",
        "keys",
        target,
        change,
        effects,
        ("key", row.proxy, row.name, "limit", *_options(wanted)),
        lambda tables, now: limiting(tables, target, now, wanted),
        send,
        FACTS["keys"](row),
    )


def _told(intent: Intent) -> Intent:
    """What the engine takes of acts on keys: it keeps orders, so they rest on nothing it would have to compare."""
    return Intent(confirm=intent.get("confirm", False), reason=intent.get("reason", ""))


def _who(row: KeyView) -> tuple[tuple[str, str], ...]:
    there = "" if row.known else "; the proxy does not tell of such a key now"
    return ("key", row.name), ("proxy", f"{row.proxy}{there}")


def _word(revoked: bool) -> str:
    return "revoked" if revoked else "valid"


def _words(wanted: Limits) -> str:
    def word(limit: int | None, unit: str) -> str:
        return (
            f"{unit} as configured" if limit is None else f"any {unit}" if limit == 0 else f"{limit} {unit}"
        )

    return f"{word(wanted['concurrency'], 'at once')}, {word(wanted['per_minute'], 'a minute')}"


def _options(wanted: Limits) -> list[str]:
    """As `saia-engine key ... limit` takes them."""
    names = {"concurrency": "--concurrency", "per_minute": "--per-minute"}
    return [
        part
        for name, option in names.items()
        for part in (option, "config" if wanted[name] is None else str(wanted[name]))
    ]
