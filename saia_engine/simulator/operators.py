"""People: they edit the configuration, for better and worse, and order scales and drains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from saia_engine.model import DrainKind, Instance, Override, Pause, Reason, State
from saia_engine.reconciler import Reconciler
from saia_engine.simulator import wishes
from saia_engine.simulator.hosts import EngineProcess
from saia_engine.simulator.truth import ConfigRefused, OperatorOrdered
from saia_engine.simulator.world import World

EDITS_PER_HOUR = 1.5
ORDERS_PER_HOUR = 1.5
PUT_BACK_S = 300.0
REGRET_S = 20.0
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
        if wishes.mend(self._world.file.written) and not self._world.file.take():
            self._world.configured()

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
        what = wishes.edit(file.written, self._chance)
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
        acts = [
            self._scale,
            self._scale,
            self._clear,
            self._pause,
            self._resume,
            self._resume,
            self._drain,
            self._drain,
            self._cancel,
            self._replace,
            self._change_mind,
            self._rollback,
            self._unpin,
            self._exclude,
            self._include,
            self._unfreeze,
        ]
        self._with_the_engine(self._chance.choice(acts))

    def _with_the_engine(self, act: Callable[[EngineProcess, Reconciler], None]) -> None:
        engine = self._world.engine
        if engine is not None and engine.acts and not engine.stopped_acting and engine.reconciler is not None:
            act(engine, engine.reconciler)

    def _scale(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        name = self._chance.choice(sorted(self._world.file.services))
        service = self._world.file.services[name]
        replicas = self._chance.choice([0, 1, 2, 3]) if self._chance.random() < 0.3 else service.replicas + 1
        self._scale_to(engine, name, min(4, replicas))

    def _scale_to(self, engine: EngineProcess, name: str, replicas: int) -> None:
        self._ordered("scale", name, "", replicas < self._world.file.services[name].min_available)
        override = Override(name, replicas, UID, self._site.now)
        engine.told(lambda r: r.set_override(override))

    def _clear(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        for name in sorted(reconciler.overrides):
            self._ordered("clear-override", name, "", False)
            engine.told(lambda r, name=name: r.clear_override(name))

    def _pause(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        name = self._chance.choice(sorted(self._world.file.services))
        if name not in reconciler.pauses:
            self._ordered("pause", name, "", True)
            pause = Pause(name, UID, self._site.now)
            engine.told(lambda r: r.pause(pause))

    def _resume(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        for name in sorted(reconciler.pauses):
            self._ordered("resume", name, "", False)
            engine.told(lambda r, name=name: r.resume(name))

    def _one_ready(self, reconciler: Reconciler) -> Instance | None:
        ready = [i for i in reconciler.instances.values() if i.state is State.READY and i.drain is None]
        return self._chance.choice(sorted(ready, key=lambda i: i.id)) if ready else None

    def _drain(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        instance = self._one_ready(reconciler)
        if instance is not None and reconciler.snapshot is not None:  # else it is refused
            self._ordered("drain", instance.service, instance.id, True)
            reason = Reason("operator", "drained by an operator; its slot is filled again")
            engine.told(lambda r: r.start_drain(instance, DrainKind.OPERATOR, reason, UID))

    def _cancel(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        """One that lives, whatever it does just now."""
        live = sorted((i for i in reconciler.instances.values() if i.live), key=lambda i: i.id)
        if live and reconciler.snapshot is not None:
            instance = self._chance.choice(live)
            self._ordered("cancel", instance.service, instance.id, True)
            reason = Reason("operator", "cancelled by an operator, who does not wait for what is open")
            engine.told(lambda r: r.cancel_at_once(instance, reason, UID))

    def _replace(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        instance = self._one_ready(reconciler)
        if instance is not None:
            self._ordered("replace", instance.service, instance.id, False)
            engine.told(lambda r: r.ask_replace(instance.id, UID))

    def _change_mind(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        """One more; or rather as many as before, with another in place of one of them."""
        instance = self._one_ready(reconciler)
        if instance is None or instance.service not in self._world.file.services:
            return
        self._scale_to(engine, instance.service, self._world.file.services[instance.service].replicas + 1)
        rather = partial(self._rather_replace, instance)
        self._timers["regret"] = self._site.after(REGRET_S, lambda: self._with_the_engine(rather))

    def _rather_replace(self, instance: Instance, engine: EngineProcess, reconciler: Reconciler) -> None:
        self._ordered("clear-override", instance.service, "", False)
        self._ordered("replace", instance.service, instance.id, False)

        def tell(r: Reconciler) -> None:
            r.clear_override(instance.service)
            r.ask_replace(instance.id, UID)

        engine.told(tell)

    def _rollback(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        name = self._chance.choice(sorted(self._world.file.services))
        self._ordered("rollback", name, "", False)
        engine.told(lambda r: r.rollback(name, None, UID))

    def _unpin(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        for name in sorted(reconciler.pins):
            self._ordered("unpin", name, "", False)
            engine.told(lambda r, name=name: r.clear_pin(name, UID))

    def _exclude(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        node = self._chance.choice(sorted(self._world.cluster.nodes))
        until = self._site.now + self._chance.uniform(600.0, 7200.0)
        self._ordered("exclude", "", node, False)
        engine.told(lambda r: r.exclude(node, until, "suspected", UID))

    def _include(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        for node in sorted(reconciler.exclusions):
            self._ordered("include", "", node, False)
            engine.told(lambda r, node=node: r.include(node, UID))

    def _unfreeze(self, engine: EngineProcess, reconciler: Reconciler) -> None:
        """Only where there is a freeze: an operator who looked, and knows that nothing runs unseen."""
        if ("mass-absence", "slurm") in reconciler.alarms.current:
            self._ordered("unfreeze", "", "", True)
            engine.told(lambda r: r.unfreeze(UID))

    def _ordered(self, verb: str, service: str, instance: str, confirmed: bool) -> None:
        self._site.emit(OperatorOrdered(self._site.now, verb, service, instance, confirmed))
