"""What happened, as lines that a person can follow: the world's events, and what the engines said meanwhile."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import fields

from saia_engine.edge.text import clean
from saia_engine.model import short_id
from saia_engine.simulator.site import EPOCH
from saia_engine.simulator.truth import Answered, Event, RequestEnded, RequestOpened, RoutesRead, Violation
from saia_engine.store import Event as JournalEvent

KEPT = 4000
QUIET = (RequestOpened, Answered)
"""Too many to be told one by one, where all is well."""


class Story:
    """Keeps the newest lines."""

    def __init__(self, kept: int = KEPT) -> None:
        self.lines: deque[tuple[float, str]] = deque(maxlen=kept)

    def see(self, event: Event) -> None:
        if isinstance(event, Answered) and event.quality == "good":
            return
        if isinstance(event, RequestOpened) or (isinstance(event, RequestEnded) and event.how == "done"):
            return
        self.lines.append((event.at, told(event)))

    def journal(self, at: float, engine: str, event: JournalEvent) -> None:
        """What an engine wrote into its journal; the oracle never hears of it."""
        self.lines.append(
            (at, f"    {engine} says {event.code} {short_id(event.subject)}: {clean(event.text)}")
        )

    def violated(self, violation: Violation) -> None:
        self.lines.append((violation.at, f"*** PROMISE {violation.promise} BROKEN: {violation.text}"))

    def finish(self, at: float) -> None:
        pass

    def text(self, spans: list[tuple[float, float]]) -> str:
        """The lines of these spans of time, in order."""
        lines = [line for line in self.lines if any(since <= line[0] <= until for since, until in spans)]
        return "\n".join(f"{moment(at)} {line}" for at, line in sorted(lines, key=lambda line: line[0]))


class Fingerprint:
    """The hash of all events: equal for two runs that were the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def see(self, event: Event) -> None:
        self._hash.update(repr(event).encode("utf-8", "backslashreplace"))

    def finish(self, at: float) -> None:
        pass

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


def moment(at: float) -> str:
    """Hours, minutes and seconds since the run began."""
    seconds = at - EPOCH
    return f"{int(seconds // 3600):4}:{int(seconds % 3600 // 60):02}:{seconds % 60:06.3f}"


def told(event: Event) -> str:
    """One line: the event's name and what it holds."""
    if isinstance(event, RoutesRead):
        routes = ", ".join(
            f"{short_id(r.instance)}{' draining' if r.draining else ''}{'' if r.secret_valid else ' BAD SECRET'}"
            for r in event.routes
        )
        return f"RoutesRead host={event.host}: {routes or 'none'}"
    words = [type(event).__name__]
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name != "at" and value not in ("", None, ()):
            words.append(f"{field.name}={_shown(field.name, value)}")
    return " ".join(words)


def _shown(name: str, value: object) -> str:
    if isinstance(value, float) and value > EPOCH / 2:
        return moment(value).strip()
    if isinstance(value, str):
        return clean(
            short_id(value.removeprefix("saia.")) if name in ("name", "instance", "subject") else value
        )
    return clean(str(value))
