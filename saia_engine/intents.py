"""What operators ask of a running engine: each act is checked, doubted, made durable, and recorded with who and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from msgspec.structs import asdict

from saia_engine import doubts, proxy_orders, view
from saia_engine.acks import Acks
from saia_engine.api.port import Order, Refused
from saia_engine.config import ConfigFaults
from saia_engine.config_changes import ConfigChanges
from saia_engine.control import JOURNAL_ADVICE, Control
from saia_engine.model import DrainKind, Instance, Override, Pause, Reason, Service, State
from saia_engine.proxy_orders import ProxyOrders
from saia_engine.reconciler import Reconciler
from saia_engine.store import JournalError
from saia_engine.view import AlarmView
from saia_engine.wishes import WishRefused

FREEZE = ("mass-absence", "slurm")
"""The alarm that holds while launches and cancels are held back."""

P = ParamSpec("P")
Answer = TypeVar("Answer")


def _intent(
    act: Callable[Concatenate[Intents, P], Answer],
) -> Callable[Concatenate[Intents, P], Answer]:
    """Refused unless the engine acts and the journal takes it; what was decided is acted upon at once."""

    @wraps(act)
    def guarded(intents: Intents, *args: P.args, **kwargs: P.kwargs) -> Answer:
        control = intents.control
        if not control.acting_fault:
            try:
                answer = act(intents, *args, **kwargs)
                control.wake.set()
                return answer
            except WishRefused as exc:
                raise Refused("not_possible", str(exc)) from exc
            except JournalError as exc:
                control.stop_acting(f"{exc}; {JOURNAL_ADVICE}")
        raise Refused("not_acting", f"the engine does not act: {control.acting_fault}", 503)

    return guarded


class Intents:
    """`api.port.Acts` of one engine."""

    def __init__(
        self,
        reconciler: Reconciler,
        control: Control,
        orders: ProxyOrders,
        config: ConfigChanges,
        acks: Acks,
        alarm_row: Callable[[str], AlarmView | None],
        now: Callable[[], float],
    ) -> None:
        self.control = control
        self._reconciler = reconciler
        self._orders = orders
        self._config = config
        self._acks = acks
        self._alarm_row = alarm_row
        self._now = now

    # -- services

    @_intent
    def scale(self, order: Order, service: str, replicas: int) -> dict[str, Any]:
        configured, before = self._service(order, service)
        self._refuse_paused(service)
        _confirm(order, doubts.of_scale(configured, before, replicas))
        self._reconciler.set_override(Override(service, replicas, order.uid, self._now(), order.reason))
        self._reconciler.record("scale", service, f"{before} -> {replicas}", order.uid, order.reason)
        return {"service": service, "before": before, "replicas": replicas}

    @_intent
    def clear_override(self, order: Order, service: str) -> dict[str, Any]:
        configured, _ = self._service(order, service)
        if service not in self._reconciler.overrides:
            raise Refused("not_found", f"{service} has no override", 404)
        self._refuse_paused(service)
        self._reconciler.clear_override(service)
        text = f"back to {configured.replicas} replicas of the configuration"
        self._reconciler.record("override-cleared", service, text, order.uid, order.reason)
        return {"service": service, "replicas": configured.replicas}

    @_intent
    def pause(self, order: Order, service: str) -> dict[str, Any]:
        _, before = self._service(order, service)
        self._refuse_paused(service)
        _confirm(order, doubts.of_pause(service, before))
        self._reconciler.pause(Pause(service, order.uid, self._now(), order.reason))
        self._reconciler.record("paused", service, f"{before} -> 0", order.uid, order.reason)
        return {"service": service, "before": before, "replicas": 0}

    @_intent
    def resume(self, order: Order, service: str) -> dict[str, Any]:
        self._service(order, service)
        if service not in self._reconciler.pauses:
            raise Refused("not_found", f"{service} is not paused", 404)
        self._reconciler.resume(service)
        replicas = self._reconciler.desired.services[service].replicas
        self._reconciler.record("resumed", service, f"0 -> {replicas}", order.uid, order.reason)
        return {"service": service, "before": 0, "replicas": replicas}

    @_intent
    def rollback(self, order: Order, service: str, revision: str) -> dict[str, Any]:
        self._service(order, service)
        fits = [r for r in self._reconciler.revisions.get(service, ()) if r.revision.startswith(revision)]
        if revision and not fits:
            raise Refused("not_found", f"{service} has no revision {revision} in its history", 404)
        if revision and len(fits) > 1:
            names = ", ".join(r.revision for r in fits)
            raise Refused("ambiguous", f"{revision} could be any of: {names}")
        _confirm(order, doubts.of_rollback(fits[0]) if revision else "")
        to = fits[0].revision if revision else None
        pin = self._reconciler.rollback(service, to, order.uid, order.reason)
        return {"service": service, "revision": pin.revision, "instead_of": pin.instead_of}

    @_intent
    def unpin(self, order: Order, service: str) -> dict[str, Any]:
        configured, _ = self._service(order, service)
        if service not in self._reconciler.pins:
            raise Refused("not_found", f"{service} is not rolled back", 404)
        self._reconciler.clear_pin(service, order.uid, order.reason)
        return {"service": service, "revision": configured.launch.revision}

    def _service(self, order: Order, service: str) -> tuple[Service, int]:
        """As the file says, and how many replicas are desired now."""
        configured = self._reconciler.configured(service)
        if configured is None:
            raise Refused("not_found", f"there is no service {service}", 404)
        desired = self._reconciler.desired.services[service]
        _unchanged(order, service, replicas=desired.replicas, revision=desired.launch.revision)
        return configured, desired.replicas

    def _refuse_paused(self, service: str) -> None:
        pause = self._reconciler.pauses.get(service)
        if pause is not None:
            raise Refused("paused", f"{service} is paused, by uid {pause.uid}: resume it first")

    # -- instances

    @_intent
    def drain(self, order: Order, instance: str) -> dict[str, Any]:
        record = self._staying(order, instance)
        left = self._ready_beside(record)
        _confirm(order, doubts.of_drain(self._reconciler.desired.services.get(record.service), record, left))
        text = "drained by an operator; its slot is filled again"
        self._reconciler.start_drain(record, DrainKind.OPERATOR, _reason(text, order), order.uid)
        return {"instance": instance, "ready_left": left}

    @_intent
    def cancel(self, order: Order, instance: str) -> dict[str, Any]:
        record = self._live(order, instance)
        if record.drain is not None and record.drain.at_once:
            raise Refused("already_cancelled", f"{instance} is cancelled already, and about to end")
        left = self._ready_beside(record)
        service = self._reconciler.desired.services.get(record.service)
        _confirm(order, doubts.of_cancel(service, record, left))
        text = "cancelled by an operator, who does not wait for what is open; its slot is filled again"
        self._reconciler.cancel_at_once(record, _reason(text, order), order.uid)
        return {"instance": instance, "ready_left": left}

    @_intent
    def replace(self, order: Order, instance: str) -> dict[str, Any]:
        record = self._staying(order, instance)
        if record.service not in self._reconciler.desired.services:
            raise Refused("not_possible", f"{record.service} is not configured any more: drain it instead")
        if not record.node:
            raise Refused("not_possible", f"{instance} does not run yet: drain it instead")
        self._reconciler.ask_replace(instance, order.uid, order.reason)
        return {"instance": instance}

    def _live(self, order: Order, instance: str) -> Instance:
        record = self._reconciler.instances.get(instance)
        if record is None or record.ended:
            raise Refused("not_found", f"there is no live instance {instance}", 404)
        _unchanged(order, instance, state=str(record.state), generation=record.generation)
        return record

    def _staying(self, order: Order, instance: str) -> Instance:
        """One that lives and does not drain yet."""
        record = self._live(order, instance)
        if record.drain is not None:
            raise Refused("already_draining", f"{instance} is draining already ({record.drain.kind})")
        return record

    def _ready_beside(self, record: Instance) -> int:
        """How many others of its service are ready."""
        others = (i for i in self._reconciler.instances.values() if i.service == record.service)
        return sum(1 for i in others if i.state is State.READY and i.id != record.id)

    # -- nodes and the cluster

    @_intent
    def exclude(self, order: Order, node: str, for_s: float) -> dict[str, Any]:
        snapshot, now = self._reconciler.snapshot, self._now()
        if snapshot is None:
            raise Refused("not_possible", "Slurm has not answered yet, so no node is known")
        if node not in snapshot.node_by_name:
            raise Refused("not_found", f"there is no node {node}", 404)
        _unchanged(order, node, excluded=self._excluded(node))
        _confirm(order, doubts.of_exclusion(node, snapshot.nodes, self._reconciler.exclusions, now))
        self._reconciler.exclude(node, now + for_s, order.reason or "by an operator", order.uid)
        return {"node": node, "until": now + for_s}

    @_intent
    def include(self, order: Order, node: str) -> dict[str, Any]:
        _unchanged(order, node, excluded=self._excluded(node))
        if not self._excluded(node):
            raise Refused("not_found", f"node {node} is not excluded", 404)
        self._reconciler.include(node, order.uid, order.reason)
        return {"node": node}

    def _excluded(self, node: str) -> bool:
        exclusion = self._reconciler.exclusions.get(node)
        return exclusion is not None and exclusion.until > self._now()

    @_intent
    def unfreeze(self, order: Order) -> dict[str, Any]:
        if FREEZE not in self._reconciler.alarms.current:
            raise Refused("not_frozen", "nothing is frozen: no jobs of ours are missing in a mass")
        _confirm(order, doubts.OF_UNFREEZE)
        self._reconciler.unfreeze(order.uid, order.reason)
        return {"unfrozen": True}

    # -- alarms

    @_intent
    def acknowledge(self, order: Order, alarm: str) -> dict[str, Any]:
        ack = self._acks.acknowledge(self._alarm(alarm), order.uid, order.reason)
        self._reconciler.record(
            "alarm-acknowledged", ack.alarm.partition(":")[2], alarm, order.uid, order.reason
        )
        return {"alarm": alarm, "uid": ack.uid, "at": ack.at}

    @_intent
    def unacknowledge(self, order: Order, alarm: str) -> dict[str, Any]:
        if not self._acks.withdraw(alarm):
            raise Refused("not_found", f"nobody has acknowledged {alarm}", 404)
        self._reconciler.record("alarm-open-again", alarm.partition(":")[2], alarm, order.uid, order.reason)
        return {"alarm": alarm}

    def _alarm(self, key: str) -> AlarmView:
        alarm = self._alarm_row(key)
        if alarm is None:
            raise Refused("not_found", f"there is no alarm {key}: it may be over", 404)
        return alarm

    # -- the configuration

    @_intent
    def apply_config(self, order: Order) -> dict[str, Any]:
        try:
            fresh = self._config.read()
        except ConfigFaults as exc:
            raise Refused("config_bad", str(exc)) from exc
        preview = self._config.preview_of(fresh)
        _unchanged(order, "the configuration file", digest=preview["digest"])
        if not preview["changed"]:
            self._config.calm()
            raise Refused("not_changed", f"{fresh.file} says what is in force already")
        _confirm(order, doubts.of_apply(preview["services"]))
        self._config.take(fresh, order.uid, order.reason)
        return preview

    # -- proxies

    @_intent
    def maintenance(self, order: Order, proxy: str, on: bool) -> dict[str, Any]:
        wish = self._orders.wish(self.proxy(proxy))
        _unchanged(order, proxy, maintenance=wish.maintenance)
        if self._orders.set_maintenance(proxy, on, order.uid):
            self._reconciler.record("maintenance", proxy, "on" if on else "off", order.uid, order.reason)
        return {"proxy": proxy, "maintenance": on, "revision": self._orders.wish(proxy).revision}

    @_intent
    def order_key(
        self, order: Order, proxy: str, key: str, changes: Mapping[str, bool | int | None]
    ) -> dict[str, Any]:
        is_news = self._orders.order_key(self.proxy(proxy), key, changes, order.uid)
        wish = self._orders.wish(proxy)
        ordered = wish.keys[key].order if key in wish.keys else proxy_orders.AS_CONFIGURED
        if is_news:
            text = f"{key}: {view.key_order_words(asdict(ordered))}"
            self._reconciler.record("key-ordered", proxy, text, order.uid, order.reason)
        known = self._orders.known(proxy, key)
        return {"proxy": proxy, "key": key, "known": known, "revision": wish.revision} | asdict(ordered)

    def proxy(self, name: str) -> str:
        """The name, if there is such a proxy."""
        if name not in self.control.proxies:
            raise Refused("not_found", f"there is no proxy {name}", 404)
        return name


def _confirm(order: Order, doubt: str) -> None:
    if doubt and not order.confirm:
        raise Refused("needs_confirmation", doubt)


def _unchanged(order: Order, target: str, **facts: object) -> None:
    """Refused where something that was seen is not so any more."""
    for name, seen in order.seen.items():
        if facts[name] != seen:
            raise Refused(
                "changed", f"{target} changed: {name} was {_word(seen)}, and is {_word(facts[name])} now"
            )


def _word(fact: object) -> str:
    return {True: "on", False: "off"}[fact] if isinstance(fact, bool) else str(fact)


def _reason(text: str, order: Order) -> Reason:
    inputs = (("reason", order.reason),) if order.reason else ()
    return Reason("operator", f"{text}; reason: {order.reason}" if order.reason else text, inputs)
