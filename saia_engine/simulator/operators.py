"""People: they edit the configuration, for better and worse, and order scales and drains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from saia_engine.control import JOURNAL_ADVICE
from saia_engine.model import DrainKind, Override, Reason, State
from saia_engine.reconciler import Reconciler
from saia_engine.simulator import wishes
from saia_engine.simulator.hosts import EngineCrash, EngineProcess
from saia_engine.simulator.truth import ConfigRefused, OperatorOrdered
from saia_engine.simulator.world import World
from saia_engine.store import JournalError

EDITS_PER_HOUR = 1.0
ORDERS_PER_HOUR = 1.0
PUT_BACK_S = 300.0
UID = 1000


class Operators:
    """Edits and orders at random, as long as it is not stopped."""

    def __init__(self, world: World, per_hour: float = 1.0) -> None:
        self._world = world
        self._site = world.site
        self._chance = world.site.chance("operators")
        self._per_hour = per_hour
        self._timers: dict[str, Any] = {}
        self._back: Any = None

    def begin(self) -> None:
        self._later("edit", EDITS_PER_HOUR, self._edit)
        self._later("order", ORDERS_PER_HOUR, self._order)

    def stop(self) -> None:
        """And leave a good file."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._back is not None:
            self._back.cancel()
            self._put_back()

    def _later(self, what: str, per_hour: float, act: Callable[[], None]) -> None:
        if self._per_hour > 0:
            delay = self._chance.expovariate(per_hour * self._per_hour / 3600.0)
            self._timers[what] = self._site.after(delay, act)

    # -- the file

    def _edit(self) -> None:
        self._later("edit", EDITS_PER_HOUR, self._edit)
        if self._back is not None:
            return
        file = self._world.file
        what = wishes.edit(file.tables, self._chance)
        if refused := file.take():
            self._site.fault("config-bad", what)
            self._site.emit(ConfigRefused(self._site.now, refused))
            self._back = self._site.after(self._chance.expovariate(1.0 / PUT_BACK_S), self._put_back)
            return
        self._world.configured()

    def _put_back(self) -> None:
        self._back = None
        self._world.file.put_back()
        if not self._world.file.take():
            self._world.configured()

    # -- orders

    def _order(self) -> None:
        self._later("order", ORDERS_PER_HOUR, self._order)
        engine = self._world.engine
        if engine is None or not engine.acts or engine.stopped_acting or engine.reconciler is None:
            return
        act = self._chance.choice([self._scale, self._scale, self._clear, self._drain])
        try:
            act(engine, engine.reconciler)
        except JournalError as exc:
            assert engine.control is not None
            engine.control.stop_acting(f"{exc}; {JOURNAL_ADVICE}")
        except EngineCrash:
            pass
        else:
            if engine.control is not None:
                engine.control.wake.set()

    def _scale(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        name = self._chance.choice(sorted(self._world.file.services))
        service = self._world.file.services[name]
        replicas = self._chance.choice([0, 1, 2, 3]) if self._chance.random() < 0.3 else service.replicas + 1
        self._ordered("scale", name, "", replicas < service.min_available)
        override = Override(name, min(4, replicas), UID, self._site.now)
        self._wish(engine, name, override)
        reconciler.set_override(override)

    def _clear(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        for name in sorted(engine.host.overrides):
            self._ordered("clear-override", name, "", False)
            self._wish(engine, name, None)
            reconciler.clear_override(name)

    def _drain(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        ready = [i for i in reconciler.instances.values() if i.state is State.READY and i.drain is None]
        if not ready:
            return
        instance = self._chance.choice(sorted(ready, key=lambda i: i.id))
        self._ordered("drain", instance.service, instance.id, True)
        reason = Reason("operator", "drained by an operator; its slot is filled again")
        reconciler.start_drain(instance, DrainKind.OPERATOR, reason, UID)

    def _ordered(self, verb: str, service: str, instance: str, confirmed: bool) -> None:
        self._site.emit(OperatorOrdered(self._site.now, verb, service, instance, confirmed))

    def _wish(self, engine: EngineProcess, name: str, override: Override | None) -> None:
        if override is None:
            engine.host.overrides.pop(name, None)
        else:
            engine.host.overrides[name] = override
        self._world.configured()
