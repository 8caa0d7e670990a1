"""The engine as a process: wires the parts, runs the loops of `control`, answers the API."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.metadata import version
from typing import Any, Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from saia_engine import proxy_orders, rows, site, story, view
from saia_engine.acks import Acks
from saia_engine.api.hub import Hub
from saia_engine.api.port import Refused
from saia_engine.api.sockets import group_id
from saia_engine.clock import SteadyClock
from saia_engine.config import Config
from saia_engine.config_changes import ConfigChanges
from saia_engine.control import JOURNAL_ADVICE, Control, Pace
from saia_engine.edge import logs
from saia_engine.edge.text import clean
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.instance_logs import InstanceLogs, LogFault, LogQuestion
from saia_engine.intents import Intents
from saia_engine.lease import Lease
from saia_engine.model import ProxyLimits
from saia_engine.probes import Probes
from saia_engine.proxy_orders import ProxyOrders
from saia_engine.publisher import Publisher
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.record.desk import RecordDesk
from saia_engine.record.recorder import Recorder
from saia_engine.record.writer import Limits
from saia_engine.relays import Relays
from saia_engine.reports import GateReport
from saia_engine.revision_files import RevisionFiles
from saia_engine.routes import RoutesFile
from saia_engine.slurm.port import Slurm
from saia_engine.store import Event, JournalError, Store
from saia_engine.telemetry import Telemetry

EVENTS_SHOWN = 500
CLOCK_JUMP_S = 5.0
FIRST_ANSWER_S = 10.0
log = logs.get_logger("engine")


P = ParamSpec("P")
Answer = TypeVar("Answer")


def _reading(
    look: Callable[Concatenate[Engine, P], Answer],
) -> Callable[Concatenate[Engine, P], Answer]:
    """What an operator looks up in the journal."""

    @wraps(look)
    def guarded(engine: Engine, *args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            return look(engine, *args, **kwargs)
        except JournalError as exc:
            raise Refused("journal", str(exc), 503) from exc

    return guarded


class Engine:
    """Behind the API: one cluster's reconciler, and what operators and gates say to it."""

    def __init__(self, config: Config, lease: Lease, slurm: Slurm, clock: SteadyClock) -> None:
        self.hub = Hub()
        self._config = config
        self._clock = clock
        self._slurm = slurm
        self._store = Store(config.paths.state_db)
        self._relays = Relays()
        self._telemetry = Telemetry()
        self._wake = asyncio.Event()
        self._started_at = clock.now()
        self._shown_snapshot: object = None
        self._orders = ProxyOrders(self._store, self._relays, clock.now)
        self._events = OrderedDict((e.seq, e) for e in self._store.events(EVENTS_SHOWN))
        self._installation = site.installation_id(config)
        dirs = InstanceDirs(config.paths.instances_dir, config.agent_python, config.port_range)
        self._dirs = dirs
        self._logs = InstanceLogs(config.paths.instances_dir, self._store.story)
        self.record = RecordDesk(config.paths.record_dir)
        self._recorder = _recorder(config, self.hub, clock)
        self._specs = RevisionFiles(config.paths.revisions_dir)
        first, last = config.port_range
        self._probes = Probes(dirs, clock.now, self._wake.set, range(first, last + 1))
        self._publisher = Publisher(
            RoutesFile(config.paths.routes, group_id(config.gate_group)),
            installation=self._installation,
            cluster=config.name,
            gate_socket=config.paths.gate_socket,
        )
        self.reconciler = Reconciler(
            identity=Identity(self._installation, config.name, site.user()),
            services=config.services,
            poll_interval_s=config.poll_interval_s,
            submits_per_hour=config.submits_per_hour,
            quarantine=config.quarantine,
            slurm=slurm,
            store=self._store,
            specs=self._specs,
            lease=lease,
            dirs=dirs,
            probes=self._probes,
            clock=clock,
            routed=self._publisher.addresses,
            on_event=self._note_event,
        )
        self._control = Control(
            self.reconciler,
            self._probes,
            self._publisher,
            config.proxies,
            wake=self._wake,
            pace=Pace(max(config.poll_interval_s, config.rpc_floor_s)),
            now=clock.now,
            on_step=self._publish_rows,
        )
        self._changes = ConfigChanges(config, self.reconciler, self._take_proxies)
        self._acks = Acks(self._store, clock.now)
        self.acts = Intents(
            self.reconciler,
            self._control,
            self._orders,
            self._changes,
            self._acks,
            self._alarm_row,
            clock.now,
        )

    # -- loops

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; jobs and routes stay as they are."""
        self.reconciler.record("engine-started", "engine", f"pid {os.getpid()} on {socket.gethostname()}")
        keeping = self._recorder.run() if self._recorder else stop.wait()
        loops = [asyncio.ensure_future(loop) for loop in (*self._control.loops(), keeping, stop.wait())]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a loop ends only by an error
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._orders.close()
            await self._probes.close()
            await self._slurm.close()
            try:
                self.reconciler.record("engine-stopped", "engine", "its jobs and the traffic go on")
            except JournalError:
                pass
            self._store.close()

    @property
    def acting_fault(self) -> str:
        return self._control.acting_fault

    def stop_acting(self, why: str) -> None:
        """For good: routes stay as they are, and every intent is refused."""
        self._control.stop_acting(why)

    def _take_proxies(self, proxies: Mapping[str, ProxyLimits]) -> None:
        self._control.proxies = proxies

    # -- publishing

    def _publish_rows(self) -> None:
        reconciler, hub, now = self.reconciler, self.hub, self._clock.now()
        desired = reconciler.desired.services
        records = reconciler.instances
        configured = {name: s for name in desired if (s := reconciler.configured(name)) is not None}
        hub.publish("engine", {"engine": self._engine_row()})
        hub.publish(
            "services",
            rows.services(
                desired,
                configured,
                reconciler.overrides,
                records,
                self._relays,
                now,
                pauses=reconciler.pauses,
                pins=reconciler.pins,
                leads=reconciler.leads,
                rollouts=reconciler.rollouts,
            ),
        )
        logs_of = {name: str(self._dirs.log(name)) for name in records}
        in_flight = self._relays.in_flight(now)
        hub.publish(
            "instances",
            rows.instances(records, self._probes.statuses, desired, in_flight, logs_of, now),
        )
        snapshot = reconciler.snapshot
        if snapshot is not None:
            hub.publish(
                "nodes", rows.nodes(snapshot, records, self._probes.statuses, reconciler.exclusions, now)
            )
            if snapshot is not self._shown_snapshot:
                self._shown_snapshot = snapshot
                ours = {i.job_id: i.id for i in records.values() if i.job_id and i.live}
                hub.publish("jobs", rows.jobs(snapshot, ours))
        of_proxies = self._control.proxies, self._orders.wishes, self._relays
        hub.publish("proxies", rows.proxies(*of_proxies, now, self._publisher.table.generation))
        if self._telemetry.due(desired, now):
            hub.publish("traffic", self._telemetry.rows(desired, now))
            hub.publish("keys", rows.keys(*of_proxies, self._telemetry, now))
        alarms = rows.alarms(reconciler.alarms.current) | self._own_alarms(now)
        self._settle_acks(alarms)
        hub.publish("alarms", self._acks.marked(alarms))
        hub.publish("events", {str(seq): rows.event(e) for seq, e in self._events.items()})

    def _engine_row(self) -> view.EngineView:
        config, snapshot = self._config, self.reconciler.snapshot
        return view.EngineView(
            installation=self._installation,
            cluster=config.name,
            kind=config.kind,
            version=version("saia"),
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=self._started_at,
            now=snapshot.taken_at if snapshot else self._started_at,
            poll_interval_s=config.poll_interval_s,
            snapshot_at=snapshot.taken_at if snapshot else None,
            slurm_fault=self.reconciler.slurm_fault,
            slurm_calls=getattr(self._slurm, "calls", 0),
            routes_generation=self._publisher.table.generation,
            acting=not self.acting_fault,
            not_acting_because=self.acting_fault,
        )

    def _own_alarms(self, now: float) -> dict[str, view.AlarmView]:
        found = {}
        if self.acting_fault:
            found["not-acting:engine"] = view.AlarmView(
                "not-acting", "critical", "engine", self.acting_fault, now
            )
        if abs(self._clock.skew_s) > CLOCK_JUMP_S:
            way = "forward" if self._clock.skew_s > 0 else "back"
            found["clock-jumped:engine"] = view.AlarmView(
                "clock-jumped",
                "warning",
                "engine",
                f"the wall clock was set {way} since the engine started, which goes on by the old one: set it"
                " right, or, where it is right now, restart the engine",
                now,
            )
        if self.reconciler.snapshot is None and now - self._started_at > FIRST_ANSWER_S:
            found["slurm-silent:slurm"] = view.AlarmView(
                "slurm-silent", "critical", "slurm", "no good answer since the engine started", now
            )
        for alarm in proxy_orders.alarms(self._control.proxies, self._orders.wishes, self._relays, now):
            found[f"{alarm.code}:{alarm.subject}"] = alarm
        if self._publisher.fault:
            found["routes-not-written:engine"] = view.AlarmView(
                "routes-not-written", "critical", "engine", self._publisher.fault, now
            )
        if self._recorder is not None and self._recorder.fault:
            found["record-not-written:engine"] = view.AlarmView(
                "record-not-written",
                "warning",
                "engine",
                f"this time can't be replayed later, all else goes on: {self._recorder.fault}",
                now,
            )
        shown = self.hub.row
        return {
            key: replace(alarm, since=before.since)
            if isinstance(before := shown("alarms", key), view.AlarmView) and before.text == alarm.text
            else alarm
            for key, alarm in found.items()
        }

    def _settle_acks(self, alarms: Mapping[str, view.AlarmView]) -> None:
        if self.acting_fault:
            return
        try:
            self._acks.settle(alarms)
        except JournalError as exc:
            self.stop_acting(f"{exc}; {JOURNAL_ADVICE}")

    def _alarm_row(self, key: str) -> view.AlarmView | None:
        row = self.hub.row("alarms", key)
        return row if isinstance(row, view.AlarmView) else None

    def _note_event(self, event: Event) -> None:
        self._events[event.seq] = event
        while len(self._events) > EVENTS_SHOWN:
            self._events.popitem(last=False)

    # -- the API's port

    def config_diff(self) -> dict[str, Any]:
        return self._changes.preview()

    def keys(self, proxy: str) -> dict[str, Any]:
        return self._orders.key_rows(self.acts.proxy(proxy))

    @_reading
    def events(self, before: int, most: int, operators: bool, severities: Sequence[str]) -> dict[str, Any]:
        found, on = self._store.events_before(before, most, operators=operators, severities=severities)
        return {"events": [rows.event(each) for each in found], "before": on}

    def history(self, table: str, row: str) -> dict[str, Any]:
        found = self._telemetry.history(table, row)
        if found is None:
            raise Refused("not_found", f"there is no past of {clean(row, 100)} in {table}", 404)
        return found

    def plan(self) -> dict[str, Any]:
        return view.plan_rows(self.reconciler.preview())

    @_reading
    def known_instances(self) -> dict[str, Any]:
        return {"instances": self._store.known_instances()}

    @_reading
    def instance_story(self, instance: str) -> dict[str, Any]:
        found = story.of_instance(self._store, instance, self._dirs)
        if found is None:
            raise Refused("not_found", f"the journal knows no instance {instance}", 404)
        return found

    async def instance_log(self, instance: str, asked: LogQuestion) -> view.LogPiece:
        try:
            if self._store.instance(instance) is None and not self._store.story(instance):
                raise Refused("not_found", f"the journal knows no instance {instance}", 404)
            return await self._logs.read(instance, asked)
        except LogFault as exc:
            raise Refused("no_log", f"{instance}: {exc}", 404) from exc
        except JournalError as exc:
            raise Refused("journal", str(exc), 503) from exc

    @_reading
    def service_story(self, service: str) -> dict[str, Any]:
        configured = self.reconciler.configured(service)
        found = story.of_service(self._store, service, configured, self._specs)
        if found is None:
            raise Refused("not_found", f"there is no service {service}", 404)
        return found

    @_reading
    def revisions(self, service: str) -> dict[str, Any]:
        configured = self.reconciler.configured(service)
        if configured is None:
            raise Refused("not_found", f"there is no service {service}", 404)
        return story.revisions(self._store, service, configured, self._specs)

    async def report(self, report: GateReport) -> dict[str, Any]:
        proxy = self.acts.proxy(report.proxy)
        for book in (self._relays, self._telemetry):
            book.note(report, self.reconciler.desired.services, self._clock.now())
        await self._orders.news(proxy, report.admin_revision, report.wait_s)
        return self._orders.desired(proxy)

    def reload(self) -> None:
        """Take in services and proxies of the changed file; a bad one changes nothing and raises an alarm."""
        if self.acting_fault:
            log.error("config_not_reloaded", reason=self.acting_fault)
            return
        try:
            self._changes.reload()
        except JournalError as exc:
            self.stop_acting(f"{exc}; {JOURNAL_ADVICE}")
        self._wake.set()


def _recorder(config: Config, hub: Hub, clock: SteadyClock) -> Recorder | None:
    asked = config.record
    if not asked.keep_s:
        return None
    limits = Limits(asked.step_s, asked.keep_s, asked.most_mib * 1024**2)
    return Recorder(hub, config.paths.record_dir, limits, clock.now)
