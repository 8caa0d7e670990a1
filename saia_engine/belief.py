"""Whether an answer of Slurm's controller may be believed, and whether our clock is the one that it goes by."""

from __future__ import annotations

from saia_engine.clock import ClockCheck, Disagreement, SteadyClock
from saia_engine.model import Snapshot
from saia_engine.planner import lifecycle
from saia_engine.slurm.port import SlurmUnavailable
from saia_engine.store import Store

CONTROLLER_BOOT = "controller-boot"
"""The mark of the last controller that was seen: an engine that starts must know of a restart before it."""
SETTLE_POLLS = 1
"""A restarted controller is not believed for MessageTimeout and so many polls: it may print an empty table."""


def believed_from(boot: float, poll_s: float) -> float:
    """When a controller that started at `boot` has told its nodes and reloaded its jobs (promise 5)."""
    return boot + lifecycle.MESSAGE_TIMEOUT_S + SETTLE_POLLS * poll_s


def our_clock_is_wrong(check: ClockCheck, snapshot: Snapshot, took_s: float) -> bool:
    """Whether the steady clock must follow the wall clock (promise 14). Raises SlurmUnavailable."""
    try:
        return check.corrects(snapshot.controller_now, took_s)
    except Disagreement as exc:
        raise SlurmUnavailable(str(exc)) from exc


class Belief:
    """What one engine has seen of the controller's restarts and of its clock."""

    def __init__(self, clock: SteadyClock, store: Store, poll_s: float) -> None:
        self._clock = clock
        self._check = ClockCheck(clock)
        self._store = store
        self._poll_s = poll_s
        self._marked = store.marks().get(CONTROLLER_BOOT, 0.0)
        self._boot = 0.0
        """Of the controller that has answered us; 0 before the first answer."""
        self._believed_from = 0.0

    def our_clock_is_wrong(self, snapshot: Snapshot) -> bool:
        """Of an answer that has just come. Raises SlurmUnavailable."""
        return our_clock_is_wrong(self._check, snapshot, self._clock.now() - snapshot.taken_at)

    def begin_anew(self) -> None:
        """The clock was set right: what was dated by the wrong one does not count."""
        self._boot = self._believed_from = 0.0

    def doubt_restart(self, snapshot: Snapshot) -> None:
        """An empty answer after a restart can be a lie (promise 5). Raises SlurmUnavailable, JournalError."""
        boot = snapshot.controller_boot
        if boot and boot != self._boot:
            clocks_differ = boot > snapshot.taken_at
            if self._boot or (clocks_differ and boot != self._marked):
                self._believed_from = believed_from(self._clock.now(), self._poll_s)  # while it answered
            if not clocks_differ:
                # Also of a boot that a predecessor has marked: it may have ended before it could doubt.
                self._believed_from = max(self._believed_from, believed_from(boot, self._poll_s))
            self._store.set_mark(CONTROLLER_BOOT, boot)
            self._boot = self._marked = boot
        if snapshot.taken_at < self._believed_from:
            raise SlurmUnavailable("Slurm's controller has just restarted: its answers are not believed yet")
