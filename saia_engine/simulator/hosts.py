"""The hosts where engines run: lock, journal, wall clock, table of routes; and the engine processes on them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saia_engine.clock import SteadyClock
from saia_engine.control import JOURNAL_ADVICE, Control, Pace
from saia_engine.lease import SHARED_DELAY_S, Lease, LeaseRefused, LeaseUnreadable
from saia_engine.model import LaunchSpec, Override, ProxyLimits
from saia_engine.offload import inline
from saia_engine.publisher import Publisher
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.routes import RoutesFault, RouteTable
from saia_engine.simulator.agents import Agents
from saia_engine.simulator.ears import SimEars
from saia_engine.simulator.journal import JournalConnection, JournalDisk
from saia_engine.simulator.shared_files import SharedFiles, SharedLease, SimDirs
from saia_engine.simulator.site import CLUSTER, INSTALLATION, USER, Site
from saia_engine.simulator.slurm_window import COMMAND_TIMEOUT_S, POLL_S, Commands, EngineSlurm, Window
from saia_engine.simulator.truth import (
    AlarmsShown,
    EngineEnded,
    EngineRefused,
    EngineStarted,
    JournalRefused,
    LeaseWritten,
)
from saia_engine.simulator.wishes import ConfigFile
from saia_engine.store import Event, JournalError, Store
from saia_engine.wishes import WishRefused

REACT_AT_MOST_S = 7.5
"""Slower than the real engine's second: agents' news still wake it at once, only time alone is seen later."""
GATE_SOCKET = Path("/run/saia/gate.sock")


class EngineCrash(BaseException):
    """kill -9 at this very point."""


@dataclass(slots=True, eq=False)
class Host:
    """One login node. Its disk and lock are its own; a lost host takes its engine with it."""

    name: str
    site: Site
    disk: JournalDisk = field(default_factory=JournalDisk)
    skew_s: float = 0.0
    """Of its wall clock."""
    up: bool = True
    locked_by: str = ""
    refused: str = ""
    """Why no engine could start here when one was last tried."""
    table: RouteTable | None = None
    routes_refused_until: float = 0.0
    overrides: dict[str, Override] = field(default_factory=dict)
    """What operators ordered of the engine here: it lies in this host's journal, and is lost with it."""
    paused: frozenset[str] = frozenset()
    """Services, by the same journal."""
    pins: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Rollbacks, by service: the revision, and what the file asked for then."""
    specs: dict[tuple[str, str], LaunchSpec] = field(default_factory=dict)
    """Launch specs by service and revision, beside the journal."""
    journal: str = "new"
    """What the next engine finds: kept, or new."""
    journal_lost: bool = False
    engines: int = 0
    on_table: Callable[[], None] = lambda: None

    def lose_journal(self) -> None:
        self.disk.renew()
        self.journal = "new"
        self.overrides.clear()
        self.pins.clear()
        self.paused = frozenset()
        self.journal_lost = True

    def load(self) -> RouteTable:
        if self.table is None:
            raise RoutesFault("routes.json cannot be read: No such file or directory")
        return self.table


@dataclass(slots=True)
class Watchers:
    """Who follows what engines say, for report and timeline; the oracle is not among them."""

    rules: Counter[str] = field(default_factory=Counter)
    on_journal: Callable[[str, Event], None] | None = None


class SimSpecs:
    """A host's revisions, as one engine keeps them."""

    def __init__(self, specs: dict[tuple[str, str], LaunchSpec], hazard: Callable[[str], None]) -> None:
        self._specs = specs
        self._hazard = hazard

    def save(self, service: str, spec: LaunchSpec) -> None:
        self._hazard("revision")
        self._specs[service, spec.revision] = spec

    def load(self, service: str, revision: str) -> LaunchSpec | None:
        return self._specs.get((service, revision))

    def keep_only(self, service: str, revisions: frozenset[str]) -> None:
        for key in [key for key in self._specs if key[0] == service and key[1] not in revisions]:
            self._hazard("revision")
            del self._specs[key]


class _Table:
    """A host's `routes.json`, as one engine writes it."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine

    def load(self) -> RouteTable:
        return self._engine.host.load()

    def write(self, table: RouteTable) -> None:
        engine = self._engine
        engine.hazard("routes")
        if engine.site.now < engine.host.routes_refused_until:
            raise OSError("No space left on device")
        engine.host.table = table
        engine.host.on_table()
        engine.hazard("routes-written")


class _Seat:
    """One engine's place at the lease."""

    def __init__(self, engine: EngineProcess, shared: SharedLease) -> None:
        self._engine = engine
        self._shared = shared
        self.host = engine.host.name
        self.boot_id = f"boot-{engine.host.name}"
        self.pid = engine.number
        self.place = "/shared/lease.json"

    def time(self) -> float:
        return self._engine.site.now + self._engine.host.skew_s

    def lock(self) -> None:
        host = self._engine.host
        if host.locked_by:
            raise LeaseRefused(f"another engine runs on this host ({host.locked_by})")
        host.locked_by = self._engine.name

    def unlock(self) -> None:
        if self._engine.host.locked_by == self._engine.name:
            self._engine.host.locked_by = ""

    def read(self) -> bytes:
        self._engine.hazard("lease")
        return self._shared.read(self.host)

    def write(self, data: bytes) -> None:
        engine = self._engine
        self._shared.write(self.host, data)
        engine.epoch = json.loads(data)["epoch"]
        engine.site.emit(LeaseWritten(engine.site.now, engine.name, self.host, engine.epoch))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every engine process of a site meets."""

    site: Site
    window: Window
    agents: Agents
    shared: SharedFiles
    lease: SharedLease
    dialect: str
    """Of Slurm's text; empty: answers come as values."""
    watchers: Watchers
    on_start: Callable[[EngineProcess], None]
    on_wishes: Callable[[], None]
    """A rollback, by a person or by the engine itself, is shown or has ended."""
    file: ConfigFile


class EngineProcess:
    """The production engine from lease to loops, as one process on one host."""

    def __init__(
        self, host: Host, around: Surroundings, on_end: Callable[[EngineProcess, str], None]
    ) -> None:
        host.engines += 1
        self.number = host.engines
        self.name = f"{host.name}{self.number}"
        self.host = host
        self.site = around.site
        self.epoch = 0
        self.dead = False
        self.acts = False
        self.boundaries = 0
        self.crash_at = 0
        """Die at this boundary, counted from now; 0: never."""
        self.crash_kind = ""
        self.last_point = ""
        self.on_boundary: Callable[[str], None] = lambda point: None
        self.control: Control | None = None
        self.reconciler: Reconciler | None = None
        self.ears: SimEars | None = None
        self.journal: JournalConnection | None = None
        self._around = around
        self._on_end = on_end
        self._lease: Lease | None = None
        self._store: Store | None = None
        self._tasks: list[asyncio.Future[None]] = []
        self._seen_plan: Any = None
        self._shown: tuple[tuple[str, str], ...] = ()
        self._journal_fault = False
        self._skew_s = 0.0
        """Of the host's wall clock when this engine started; 0 once it must have been told of it."""

    # -- boundaries

    def hazard(self, point: str) -> None:
        """An effect's boundary. Raises EngineCrash where this process dies, and ever after."""
        if self.dead:
            raise EngineCrash(self.name)
        self.boundaries += 1
        self.last_point = point
        self.on_boundary(point)
        if self.crash_at:
            self.crash_at -= 1
            if not self.crash_at:
                self.die("crashed")
                raise EngineCrash(self.name)

    # -- life

    def start(self, takeover: bool = False) -> bool:
        """Whether it may act. It does so at once, or after the wait that a takeover needs."""
        try:
            self._lease = Lease.take(_Seat(self, self._around.lease), takeover=takeover)
        except (LeaseRefused, LeaseUnreadable, OSError) as exc:
            self.dead = True
            self.host.refused = str(exc)
            self.site.emit(EngineRefused(self.site.now, self.name, self.host.name, str(exc)))
            return False
        except EngineCrash:
            return False
        if takeover:
            self.site.after(SHARED_DELAY_S + COMMAND_TIMEOUT_S, self._wire, True)
            return True
        self._wire(False)
        return not self.dead

    def _wire(self, takeover: bool) -> None:
        if self.dead:
            return
        self._skew_s = self.host.skew_s
        try:
            self._assemble()
        except JournalError:
            self.die("stopped")
            return
        except EngineCrash:
            return
        self.acts = True
        self._note_wishes()
        journal, self.host.journal = self.host.journal, "kept"
        self.site.emit(EngineStarted(self.site.now, self.name, self.host.name, self.epoch, takeover, journal))
        self._around.on_start(self)
        assert self.control is not None
        for loop in self.control.loops():
            task = asyncio.ensure_future(loop, loop=self.site.loop)
            task.add_done_callback(self._task_done)
            self._tasks.append(task)

    def _assemble(self) -> None:
        around, site, host = self._around, self.site, self.host
        assert self._lease is not None
        clock = SteadyClock(lambda: site.now + host.skew_s, lambda: site.now)
        now = clock.now
        self._store = Store(":memory:", self.hazard, connect=self._connect)
        wake = asyncio.Event()
        dirs = SimDirs(around.shared, self.hazard)
        self.ears = SimEars(site, around.agents, dirs, now, wake.set)
        chance = site.chance(f"nonce-{self.name}")
        if around.dialect:
            slurm = Commands(
                around.window, self.name, self.hazard, around.dialect, self._wrong_clock
            ).adapter()
        else:
            slurm = EngineSlurm(around.window, self.name, self.hazard, self._wrong_clock)
        publisher = Publisher(
            _Table(self), installation=INSTALLATION, cluster=CLUSTER, gate_socket=GATE_SOCKET
        )
        self.reconciler = Reconciler(
            identity=Identity(INSTALLATION, CLUSTER, USER),
            services=around.file.services,
            poll_interval_s=POLL_S,
            submits_per_hour=around.file.submits_per_hour,
            quarantine=around.file.quarantine,
            slurm=slurm,
            store=self._store,
            specs=SimSpecs(host.specs, self.hazard),
            lease=self._lease,
            dirs=dirs,
            probes=self.ears,
            clock=clock,
            routed=publisher.addresses,
            on_event=self._heard,
            nonce=lambda: f"{chance.getrandbits(32):08x}",
            offload=inline,
        )
        self.control = Control(
            self.reconciler,
            self.ears,
            publisher,
            {"cloud": ProxyLimits()},
            wake=wake,
            pace=Pace(POLL_S, react_at_most_s=REACT_AT_MOST_S),
            now=now,
            on_step=self._stepped,
        )

    def _connect(self, path: Path | str) -> JournalConnection:
        self.journal = self.host.disk.connect(self._journal_refused)
        return self.journal

    def _journal_refused(self, why: str) -> None:
        if not self._journal_fault:
            self._journal_fault = True
            self.site.emit(JournalRefused(self.site.now, self.name, why))

    def _wrong_clock(self) -> bool:
        """It started by a wrong clock, and an answer that comes now meets one that is still wrong."""
        if not self.host.skew_s:
            self._skew_s = 0.0
        return bool(self._skew_s)

    def _task_done(self, task: asyncio.Future[None]) -> None:
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None and not isinstance(fault, EngineCrash):
            raise fault

    def die(self, how: str) -> None:
        """At once: nothing of it acts any more, and what it had not committed is lost."""
        if self.dead:
            return
        self.dead, self.acts = True, False
        if self.host.locked_by == self.name:
            self.host.locked_by = ""
        if self.ears is not None:
            self.ears.stop()
        self.site.emit(EngineEnded(self.site.now, self.name, how))
        # Not from within the statement that it dies in.
        self.site.loop.call_soon(self._bury)
        self._on_end(self, how)

    def _bury(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self.journal is not None:
            self.journal.close()

    # -- what it says

    def configure(self) -> None:
        """As SIGHUP does."""
        file = self._around.file
        self.told(lambda r: r.configure(file.services, file.submits_per_hour, file.quarantine))

    def told(self, act: Callable[[Reconciler], object]) -> None:
        """What an operator asks for, as the API passes it on: a journal that refuses it ends all acting."""
        if not self.acts or self.stopped_acting or self.reconciler is None or self.control is None:
            return
        try:
            act(self.reconciler)
        except JournalError as exc:
            self.control.stop_acting(f"{exc}; {JOURNAL_ADVICE}")
        except WishRefused:
            pass
        except EngineCrash:
            return
        self._note_wishes()
        self.control.wake.set()

    @property
    def stopped_acting(self) -> bool:
        return self.control is not None and bool(self.control.acting_fault)

    def _heard(self, event: Event) -> None:
        watchers = self._around.watchers
        rule = event.detail.get("rule")
        if rule:
            watchers.rules[str(rule)] += 1
        if watchers.on_journal is not None:
            watchers.on_journal(self.name, event)

    def _stepped(self) -> None:
        assert self.reconciler is not None
        plan = self.reconciler.last_plan
        if plan is not self._seen_plan:
            self._seen_plan = plan
            for reason in plan.waiting:
                self._around.watchers.rules[reason.rule] += 1
        self._show_alarms()
        self._note_wishes()

    def _note_wishes(self) -> None:
        """What its journal holds is what is wanted: an order that died on its way there was none."""
        assert self.reconciler is not None
        host, reconciler = self.host, self.reconciler
        pins = {pin.service: (pin.revision, pin.instead_of) for pin in reconciler.pins.values()}
        paused = frozenset(reconciler.pauses)
        if (pins, reconciler.overrides, paused) != (host.pins, host.overrides, host.paused):
            host.pins, host.overrides, host.paused = pins, dict(reconciler.overrides), paused
            self._around.on_wishes()

    def _show_alarms(self) -> None:
        assert self.reconciler is not None and self.control is not None
        shown = tuple(self.reconciler.alarms.current)
        if self.control.acting_fault:
            shown = (*shown, ("not-acting", "engine"))
        if shown != self._shown:
            self._shown = shown
            self.site.emit(AlarmsShown(self.site.now, self.name, shown))
