"""Starts of engines: one host needs no hands after a crash (promise 18)."""

from __future__ import annotations

from saia_engine.simulator import truth
from saia_engine.simulator.oracle.findings import Findings
from saia_engine.simulator.oracle.ledger import Ledger

IDLE_S = 3600.0
"""Longer than any fault keeps all engines from acting."""


class Leases:
    """Judges a start after the ledger has taken it."""

    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._report = findings.report
        self._later = findings.later

    def started(self, event: truth.EngineStarted) -> None:
        others = [e for e in self._ledger.running if e.host == event.host and e.name != event.engine]
        if others:
            self._report(18, f"{event.engine} started beside {others[0].name} on {event.host}", event.engine)
        before = [lease for lease in self._ledger.leases if lease.engine != event.engine]
        # The very first lease of all: another host can't see it yet, and there was none to ask for a takeover.
        if len(before) == 1 and event.at - before[0].at < self._ledger.began.shared_delay_s:
            return
        if before and before[-1].host != event.host and not event.takeover:
            self._report(
                18,
                f"{event.engine} started on {event.host} while {before[-1].host} holds the lease",
                event.engine,
            )
        if self._seen_by(event) >= event.epoch or any(lease.epoch == event.epoch for lease in before):
            self._report(
                18, f"{event.engine} started with epoch {event.epoch}, which is not new", event.engine
            )

    def _seen_by(self, event: truth.EngineStarted) -> int:
        """The epoch that it must have read before it wrote its own: a younger one may have been hidden."""
        leases = self._ledger.leases
        own = next((lease for lease in reversed(leases) if lease.engine == event.engine), None)
        if own is None:
            return 0
        surely = own.at - self._ledger.began.shared_delay_s
        for lease in reversed(leases):
            if lease is not own and (lease.at <= surely or lease.host == event.host):
                return lease.epoch
        return 0

    def refused(self, event: truth.EngineRefused) -> None:
        """A crashed engine leaves nothing that needs hands."""
        leases = self._ledger.leases
        if not leases or leases[-1].host != event.host or "read" in event.why:
            return
        if self._ledger.engine_of(event.host) is None:
            self._report(
                18, f"no engine could start on {event.host}, where none runs: {event.why}", event.host
            )

    def idle_from(self, event: truth.Began | truth.EngineEnded | truth.JournalRefused) -> None:
        """A world in which nobody acts for long shows nothing."""
        self._later(event.at + IDLE_S, self._idle)

    def _idle(self) -> None:
        ledger = self._ledger
        last = max((e.last_acting for e in ledger.latest), default=ledger.began.at)
        if ledger.acting() or ledger.now - last < IDLE_S:
            return
        self._report(0, f"no engine has acted for {IDLE_S:.0f} s", "world")
        self._later(ledger.now + IDLE_S, self._idle)
