"""What past starts took: kept in the journal, turned into each service's `Learned` when something new is known."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from saia_engine.model import Instance, Service, State, WaitSample
from saia_engine.planner import lead
from saia_engine.planner.lead import Learned
from saia_engine.store import Store

RELEARN_S = 3600.0
"""Weights decay: after so long even old samples are weighed anew."""
WEIGHED = 300
"""The newest starts of each shape and service that count."""


class Learning:
    """Samples of all services. Writes raise JournalError."""

    def __init__(self, store: Store, now: Callable[[], float], poll_interval_s: float) -> None:
        self._by_shape: defaultdict[str, deque[WaitSample]] = defaultdict(lambda: deque(maxlen=WEIGHED))
        self._by_service: defaultdict[str, deque[WaitSample]] = defaultdict(lambda: deque(maxlen=WEIGHED))
        for sample in store.samples(now() - lead.REMEMBER_S):
            self._remember(sample)
        self._store = store
        self._now = now
        self._began_at = now()
        self._seen_late_s = 2 * poll_interval_s
        self._held: set[str] = set()
        self._learned: dict[str, tuple[str, float, Learned]] = {}
        """By service: its shape, when that was learned, and what."""

    def note(self, before: Instance | None, instance: Instance) -> None:
        """Keep what a change of this record teaches, if anything."""
        ready = instance.first_ready_at is not None and (before is None or before.first_ready_at is None)
        gave_up = instance.ended and instance.first_ready_at is None and (before is None or before.live)
        if before is not None and before.state is State.PENDING and lead.held(before):
            self._held.add(instance.id)
        if instance.id in self._held or not (ready or gave_up):
            if instance.ended:
                self._held.discard(instance.id)
            return
        sample = lead.sample(instance, self._now(), self._watched(before))
        if sample is not None:
            self._store.add_sample(sample)
            self._remember(sample)
            for name, (shape, _, _) in list(self._learned.items()):
                if shape == sample.shape or name == sample.service:
                    del self._learned[name]

    def _watched(self, before: Instance | None) -> bool:
        """Whether we saw it start when it did, and have listened to it since."""
        if before is None or before.state is not State.STARTING or before.started_at is None:
            return False
        seen_late_s = abs(before.state_since - before.started_at)
        return before.state_since >= self._began_at and seen_late_s <= self._seen_late_s

    def learned(self, services: Mapping[str, Service]) -> dict[str, Learned]:
        """Of each service."""
        return {name: self._of(service) for name, service in services.items()}

    def _of(self, service: Service) -> Learned:
        now, shape = self._now(), lead.shape(service.launch)
        known = self._learned.get(service.name)
        if known is not None and known[0] == shape and now - known[1] < RELEARN_S:
            return known[2]
        learned = lead.learn(self._by_shape.get(shape, ()), self._by_service.get(service.name, ()), now)
        self._learned[service.name] = shape, now, learned
        return learned

    def _remember(self, sample: WaitSample) -> None:
        self._by_shape[sample.shape].append(sample)
        self._by_service[sample.service].append(sample)
