"""The files that a connection needs."""

from __future__ import annotations

from pathlib import Path

from saia_proxy.transports import Trouble, Unusable


def readable(path: str, what: str) -> None:
    """Raises Unusable where it can't be read, or is empty."""
    try:
        with Path(path).open("rb") as file:
            empty = not file.read(1)
    except OSError as exc:
        raise Unusable(Trouble.LOCAL, unreadable(path, what, exc)) from None
    if empty:
        raise Unusable(Trouble.LOCAL, f"the {what} {path} is of no use: it is empty")


def unreadable(path: str, what: str, exc: OSError) -> str:
    return f"the {what} {path} cannot be read: {exc.strerror or exc}"
