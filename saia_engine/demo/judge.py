"""What a run of the demo came to: pure, from the engine's rows and the traffic's report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from saia_engine.model import ENDED, DrainKind
from saia_engine.view import EventView, InstanceView


@dataclass(frozen=True, slots=True)
class Handover:
    """One that is complete: both instances served, and the old one's job has ended."""

    service: str
    old: str
    new: str
    streams: int
    """Streams that were open on the old instance when its drain began, and ended whole."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What `saia-engine demo --json` prints."""

    handovers: int
    requests: int
    failed: int
    dropped_streams: int
    streams_across_handovers: int
    max_gap_ms: int
    submits: int
    orphans: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def faults(self) -> list[str]:
        """Why the run is not a good one; empty for one that is."""
        found = []
        if self.failed:
            found.append(f"{self.failed} of {self.requests} requests failed")
        if self.dropped_streams:
            found.append(f"{self.dropped_streams} streams were dropped")
        if not self.streams_across_handovers:
            found.append("no stream was open across a hand-over: give it more seconds")
        if self.orphans:
            found.append(f"{self.orphans} processes or jobs were left")
        return found


class Record:
    """Collects what is seen during a run; rows that both engine and traffic soon forget included."""

    def __init__(self) -> None:
        self._instances: dict[str, InstanceView] = {}
        self._drains: dict[str, float] = {}
        self._submits: set[int] = set()
        self._streams: dict[tuple[str, float], Mapping[str, Any]] = {}
        self._report: Mapping[str, Any] = {}

    def see(self, instances: Mapping[str, InstanceView], events: Iterable[EventView]) -> None:
        """The engine's rows as they are now."""
        self._instances.update(instances)
        for event in events:
            if event.code == "drain":
                # The last one counts, for a drain may be withdrawn and ordered again.
                self._drains[event.subject] = max(event.at, self._drains.get(event.subject, 0.0))
            elif event.code in ("submitted", "submit-unknown"):
                self._submits.add(event.seq)

    def hear(self, report: Mapping[str, Any]) -> None:
        """The traffic's newest report."""
        self._report = report
        for stream in report["finished"]:
            self._streams[stream["instance"], stream["started_at"]] = stream

    @property
    def handovers(self) -> list[Handover]:
        """Those that are complete, in the order of their drains."""
        served = self._report.get("served_by", {})
        found = []
        for new in self._instances.values():
            old = self._instances.get(new.replaces)
            if old is None or old.drain_kind != DrainKind.HANDOVER or old.state not in ENDED:
                continue
            if served.get(old.id, 0) and served.get(new.id, 0):
                found.append(Handover(new.service, old.id, new.id, self._streams_across(old.id)))
        return sorted(found, key=lambda handover: self._drains.get(handover.old, 0.0))

    def _streams_across(self, instance: str) -> int:
        drained_at = self._drains.get(instance)
        if drained_at is None:
            return 0
        return sum(
            1
            for (server, started_at), stream in self._streams.items()
            if server == instance and stream["ok"] and started_at < drained_at < stream["ended_at"]
        )

    def figures(self, orphans: int) -> Figures:
        handovers = self.handovers
        return Figures(
            handovers=len(handovers),
            requests=self._report.get("requests", 0),
            failed=self._report.get("failed", 0),
            dropped_streams=self._report.get("dropped_streams", 0),
            streams_across_handovers=sum(handover.streams for handover in handovers),
            max_gap_ms=round(self._report.get("max_gap_ms", 0)),
            submits=len(self._submits),
            orphans=orphans,
        )

    @property
    def faults(self) -> list[str]:
        """What went wrong with single requests, as the clients saw it: the last ones."""
        return [
            f"{fault['kind']} at {fault['instance'] or 'no instance'}: {fault['fault']}"
            for fault in self._report.get("faults", [])
        ]
