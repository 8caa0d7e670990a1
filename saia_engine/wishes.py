"""What is wanted: the configuration with all that operators, or a failed rollout, put on top of it.

Every wish is durable in the journal before it counts, with its author and time, and shown until it is cleared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from saia_engine.model import Desired, Exclusion, LaunchSpec, Override, Pause, Pin, Revision, Service
from saia_engine.planner.timeline import shortest_time_limit
from saia_engine.store import Store

UNFROZEN = "unfrozen"
"""The mark of an operator's word that ends a freeze."""
EXCLUSION_KEPT_S = 3600.0
"""An exclusion that is over is remembered so long: failures before its end do not count again."""


class WishRefused(Exception):
    """It can't be done; the text says why, and what can."""


class SpecFiles(Protocol):
    """Whole launch specs, environments included, for rollbacks."""

    def save(self, service: str, spec: LaunchSpec) -> None:
        """Raises OSError."""
        ...

    def load(self, service: str, revision: str) -> LaunchSpec | None: ...

    def keep_only(self, service: str, revisions: frozenset[str]) -> None:
        """Raises OSError."""
        ...


class Wishes:
    """Overrides, pauses, pins, revisions and exclusions over a configuration. Writes raise JournalError."""

    def __init__(
        self,
        store: Store,
        files: SpecFiles,
        services: Mapping[str, Service],
        poll_interval_s: float,
        now: Callable[[], float],
    ) -> None:
        self.overrides: dict[str, Override] = store.overrides()
        self.pauses: dict[str, Pause] = store.pauses()
        self.pins: dict[str, Pin] = store.pins()
        self.revisions: dict[str, tuple[Revision, ...]] = store.revisions()
        """By service, the one that is asked for last."""
        self.exclusions: dict[str, Exclusion] = store.exclusions()
        self.unfrozen_at = store.marks().get(UNFROZEN, 0.0)
        self.fault = ""
        """Why a rollback may not be possible later; empty when all is kept."""
        self._store = store
        self._files = files
        self._services = services
        self._added: frozenset[str] = frozenset()
        """Services that a reload brought (back), not yet noted: what was of them before is over."""
        self._poll_interval_s = poll_interval_s
        self._now = now
        self._desired: Desired | None = None
        self._noted: Mapping[str, Service] | None = None

    # -- what results

    @property
    def desired(self) -> Desired:
        """The configuration with overrides, pauses and pins applied."""
        if self._desired is None:
            self._desired = Desired(
                {name: self._wanted(service) for name, service in self._services.items()},
                self._poll_interval_s,
            )
        return self._desired

    def all_of_them(self) -> object:
        """Equal to itself until a wish changes."""
        return (
            self.desired,
            tuple(self.revisions.values()),
            tuple(self.exclusions.values()),
            self.unfrozen_at,
        )

    def configured(self, service: str) -> Service | None:
        """As the file says."""
        return self._services.get(service)

    def _wanted(self, service: Service) -> Service:
        replicas = 0 if service.name in self.pauses else self.unpaused(service)
        if replicas != service.replicas:
            service = replace(service, replicas=replicas)
        pin = self.pins.get(service.name)
        if pin is not None and pin.instead_of == service.launch.revision:
            spec = self._files.load(service.name, pin.revision)
            # A pinned limit must still have room for today's timeline.
            if spec is not None and spec.time_limit_s > shortest_time_limit(
                service.timing, self._poll_interval_s
            ):
                service = replace(service, launch=spec)
        return service

    def unpaused(self, service: Service) -> int:
        """As many replicas as are wanted while it is not paused."""
        override = self.overrides.get(service.name)
        return service.replicas if override is None else override.replicas

    def configure(self, services: Mapping[str, Service]) -> None:
        """A changed configuration file."""
        self._added = (self._added | (services.keys() - self._services.keys())) & services.keys()
        self._services = services
        self._desired = None

    def clear_obsolete_pins(self) -> list[Pin]:
        """Put aside, and return, those whose services ask for something new."""
        services = self._services
        obsolete = [
            pin
            for name, pin in self.pins.items()
            if name in services and services[name].launch.revision != pin.instead_of
        ]
        for pin in obsolete:
            self.clear_pin(pin.service)
        return obsolete

    # -- revisions

    def note_revisions(self) -> list[Revision]:
        """Keep what is asked for now; returns the revisions that were not asked for before."""
        desired = self.desired
        if self._noted is desired.services:
            return []
        changed = []
        for name, service in desired.services.items():
            known = self.revisions.get(name, ())
            if known and known[-1].revision == service.launch.revision and name not in self._added:
                continue
            before = next((r for r in known if r.revision == service.launch.revision), None)
            record = Revision(
                name,
                service.launch.revision,
                service.launch.redacted(),
                self._now(),
                good_at=before.good_at if before else None,
            )
            try:
                self._files.save(name, service.launch)
                self.fault = ""
            except OSError as exc:
                self.fault = f"revision {record.revision} of {name} cannot be kept for a rollback: {exc}"
            self._keep_revision(record)
            changed.append(record)
        self._noted = desired.services
        self._added = frozenset()
        return changed

    def settle(self, service: str, revision: str) -> None:
        """It has proven itself."""
        record = self._revision(service, revision)
        if record is not None:
            self._keep_revision(replace(record, good_at=self._now(), failed_at=None, failure=""))

    def revert(self, service: str, revision: str, to: str, why: str) -> Pin | None:
        """It has failed; back to `to`, where that is not empty."""
        # The way back first: a crash in between must not leave a failed revision with nobody to go back.
        pin = self._go_back(service, to, why) if to else None
        record = self._revision(service, revision)
        if record is not None:
            self._keep_revision(replace(record, failed_at=self._now(), failure=why))
        return pin

    def _go_back(self, service: str, to: str, why: str) -> Pin | None:
        configured = self._services.get(service)
        if configured is None:
            return None
        if to == configured.launch.revision:
            self.clear_pin(service)
            return None
        return self._pin(Pin(service, to, configured.launch.revision, why, self._now()))

    def rollback(self, service: str, revision: str | None, uid: int, why: str = "") -> Pin:
        """Run an older revision; by default the last good one. Raises WishRefused."""
        configured = self._services.get(service)
        if configured is None:
            raise WishRefused(f"there is no service {service}")
        current = self.desired.services[service].launch.revision
        known = [r for r in self.revisions.get(service, ()) if r.revision != current]
        if revision:
            known = [r for r in known if r.revision.startswith(revision)]
        else:
            known = [r for r in known if r.good_at is not None]
        if not known:
            what = f"revision {revision}" if revision else "earlier revision that has proven itself"
            raise WishRefused(f"{service} has no {what} to go back to")
        to = known[-1].revision
        if to == configured.launch.revision:
            raise WishRefused(f"{to} is what the configuration asks for: clear the rollback instead (unpin)")
        spec = self._files.load(service, to)
        if spec is None:
            raise WishRefused(f"the launch spec of {to} is not on this host any more")
        shortest_s = shortest_time_limit(configured.timing, self._poll_interval_s)
        if spec.time_limit_s <= shortest_s:
            raise WishRefused(
                f"the time limit of {to}, {spec.time_limit_s} s, has no room for the timeline of today,"
                f" {shortest_s:.0f} s"
            )
        why = why or "by an operator"
        return self._pin(Pin(service, to, configured.launch.revision, why, self._now(), uid))

    def clear_pin(self, service: str) -> None:
        """Back to what the file asks for."""
        self._store.clear_pin(service)
        self.pins.pop(service, None)
        self._desired = None

    def _pin(self, pin: Pin) -> Pin:
        self._store.set_pin(pin)
        self.pins[pin.service] = pin
        self._desired = None
        return pin

    def _revision(self, service: str, revision: str) -> Revision | None:
        return next((r for r in self.revisions.get(service, ()) if r.revision == revision), None)

    def _keep_revision(self, record: Revision) -> None:
        pin = self.pins.get(record.service)
        in_use = {record.revision} | ({pin.revision, pin.instead_of} if pin else set())
        self._store.save_revision(record, frozenset(in_use))
        self.revisions[record.service] = self._store.revisions_of(record.service)
        try:
            kept = frozenset(r.revision for r in self.revisions[record.service])
            self._files.keep_only(record.service, kept)
        except OSError as exc:
            self.fault = f"old revisions of {record.service} cannot be removed: {exc}"

    # -- the rest

    def set_override(self, override: Override) -> None:
        self._store.set_override(override)
        self.overrides[override.service] = override
        self._desired = None

    def clear_override(self, service: str) -> None:
        self._store.clear_override(service)
        self.overrides.pop(service, None)
        self._desired = None

    def pause(self, pause: Pause) -> None:
        self._store.set_pause(pause)
        self.pauses[pause.service] = pause
        self._desired = None

    def resume(self, service: str) -> None:
        self._store.clear_pause(service)
        self.pauses.pop(service, None)
        self._desired = None

    def exclude(self, exclusion: Exclusion) -> None:
        self._store.set_exclusion(exclusion)
        self.exclusions[exclusion.node] = exclusion

    def include(self, node: str) -> None:
        """New jobs may go there again. Raises WishRefused."""
        exclusion = self.exclusions.get(node)
        if exclusion is None or exclusion.until <= self._now():
            raise WishRefused(f"node {node} is not excluded")
        # Kept as one that ends now: what failed there before does not count again.
        self.exclude(replace(exclusion, until=self._now()))

    def unfreeze(self) -> None:
        now = self._now()
        self._store.set_mark(UNFROZEN, now)
        self.unfrozen_at = now

    def forget_old(self) -> None:
        for node, exclusion in list(self.exclusions.items()):
            if exclusion.until < self._now() - EXCLUSION_KEPT_S:
                self._store.clear_exclusion(node)
                del self.exclusions[node]
