"""What an operator can do to a proxy's API keys."""

from __future__ import annotations

from typing import Any

from saia_engine.view import KeyView
from saia_tui.acts import Act
from saia_tui.feed import Engine
from saia_tui.listings.keys import key_of, limits

Limits = dict[str, int | None]
"""`concurrency` and `per_minute`; None is what the proxy's configuration says, 0 no limit."""


def revocation(row: KeyView) -> Act:
    """Revokes a key, or restores one that was revoked."""
    revoke = not row.revoked
    effects = (
        *_who(row),
        ("state", f"{_word(row.revoked)} → {_word(revoke)}"),
        ("open", f"{row.said_in_flight} requests under way, which end whole"),
        ("effect", "its new requests are answered 401" if revoke else "its requests are served again"),
    )

    async def send(engine: Engine, confirm: bool) -> Any:
        order = engine.revoke_key if revoke else engine.restore_key
        return await order(row.proxy, row.name)

    title = "Revoke key" if revoke else "Restore key"
    return Act(title, "keys", key_of(row), effects, row.revoked, lambda now: now.revoked, send)


def limiting(row: KeyView, wanted: Limits) -> Act:
    effects = (
        *_who(row),
        ("in force", limits(row.said_concurrency, row.said_per_minute) if row.known else "unknown"),
        ("ordered", f"{_words(_ordered(row))} → {_words(wanted)}"),
        ("effect", "requests above a limit are answered 429"),
    )

    async def send(engine: Engine, confirm: bool) -> Any:
        return await engine.limit_key(row.proxy, row.name, wanted)

    return Act("Limit key", "keys", key_of(row), effects, _ordered(row), _ordered, send)


def _who(row: KeyView) -> tuple[tuple[str, str], ...]:
    there = "" if row.known else "; the proxy does not tell of such a key now"
    return ("key", row.name), ("proxy", f"{row.proxy}{there}")


def _word(revoked: bool) -> str:
    return "revoked" if revoked else "valid"


def _ordered(row: KeyView) -> Limits:
    return {"concurrency": row.ordered_concurrency, "per_minute": row.ordered_per_minute}


def _words(wanted: Limits) -> str:
    def word(limit: int | None, unit: str) -> str:
        return (
            f"{unit} as configured" if limit is None else f"any {unit}" if limit == 0 else f"{limit} {unit}"
        )

    return f"{word(wanted['concurrency'], 'at once')}, {word(wanted['per_minute'], 'a minute')}"
