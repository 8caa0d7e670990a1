"""Operators' acts on a real reconciler: who may undercut what, what was seen, and what the audit tells of it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from saia_engine import config
from saia_engine.acks import COMES_BACK_WITHIN_S, Acks
from saia_engine.api.port import Order, Refused
from saia_engine.config_changes import ConfigChanges
from saia_engine.control import Control, Pace
from saia_engine.intents import Intents
from saia_engine.model import DrainKind, Instance, ProxyLimits, State
from saia_engine.proxy_orders import ProxyOrders
from saia_engine.relays import Relays
from saia_engine.view import AlarmView
from tests.unit.memory_slurm import Bench

UID = 1000
FILE = """
[cluster]
name = "hpc"
kind = "local"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
poll_interval = "15s"
[services.chat]
command = ["serve", "{port}"]
replicas = 2
min_available = 1
time_limit = "1h"
lead_floor = "5m"
drain_deadline = "2m"
[proxies.cloud]
"""


class Operator:
    """Gives orders to an engine whose Slurm and agents are in memory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.file = bench.directory / "engine.toml"
        self.file.write_text(FILE)
        self.config = config.load(self.file)
        bench.services = dict(self.config.services)
        self.begin()

    def begin(self) -> None:
        bench = self.bench
        bench.restart()
        self.wake = asyncio.Event()
        now = lambda: bench.slurm.now  # noqa: E731
        self.control = Control(
            bench.reconciler,
            cast(Any, bench.ears),
            cast(Any, None),
            {"cloud": ProxyLimits()},
            wake=self.wake,
            pace=Pace(15.0),
            now=now,
        )
        orders = ProxyOrders(bench.store, Relays(), now)
        changes = ConfigChanges(self.config, bench.reconciler, lambda proxies: None)
        self.acks = Acks(bench.store, now)
        self.alarms: dict[str, AlarmView] = {}
        self.acts = Intents(bench.reconciler, self.control, orders, changes, self.acks, self.alarms.get, now)

    @property
    def told(self) -> tuple[str, str, int | None, str]:
        event = self.bench.events[-1]
        return event.code, event.subject, event.uid, event.text

    def ready(self) -> list[Instance]:
        return self.bench.of(State.READY)

    async def polls(self, count: int) -> None:
        await self.bench.polls(count)


@pytest.fixture
def operator(bench: Bench) -> Operator:
    return Operator(bench)


def order(reason: str = "", confirm: bool = False, **seen: object) -> Order:
    return Order(UID, reason, confirm, seen)


def refusal(act: Any, *arguments: object) -> str:
    with pytest.raises(Refused) as refused:
        act(*arguments)
    return refused.value.code


# ---------------------------------------------------------------- pause and resume


async def test_a_pause_drains_all_and_a_resume_brings_the_number_from_before(operator: Operator) -> None:
    await operator.bench.settled()
    acts = operator.acts
    assert refusal(acts.pause, order(), "chat") == "needs_confirmation"
    assert acts.scale(order(), "chat", 3)["replicas"] == 3
    await operator.bench.settled()
    answer = acts.pause(order("GPUs for the course", True), "chat")
    assert answer == {"service": "chat", "before": 3, "replicas": 0}
    assert operator.wake.is_set()
    assert operator.told == ("paused", "chat", UID, "3 -> 0; reason: GPUs for the course")
    await operator.polls(4)
    assert operator.bench.live() == []
    operator.begin()
    await operator.polls(4)
    assert operator.bench.slurm.live() == [], "it stays so, also for the next engine"
    acts = operator.acts
    assert refusal(acts.scale, order(), "chat", 1) == "paused"
    assert refusal(acts.clear_override, order(), "chat") == "paused"
    assert refusal(acts.pause, order("", True), "chat") == "paused"
    assert acts.resume(order(), "chat") == {"service": "chat", "before": 0, "replicas": 3}
    assert operator.told == ("resumed", "chat", UID, "0 -> 3")
    assert len(await operator.bench.settled()) == 3
    assert refusal(acts.resume, order(), "chat") == "not_found"


# ---------------------------------------------------------------- cancel


async def test_a_cancel_cuts_what_is_open_and_its_slot_is_filled_again(operator: Operator) -> None:
    one, other = await operator.bench.settled()
    operator.bench.ears.open = {one.id: 7}
    assert refusal(operator.acts.cancel, order(), one.id) == "needs_confirmation"
    await operator.polls(1)
    assert operator.bench.slurm.cancels == []
    assert operator.acts.cancel(order("hangs", True), one.id)["ready_left"] == 1
    code, subject, uid, text = operator.told
    assert (code, subject, uid) == ("drain", one.id, UID)
    assert text.endswith("; its slot is filled again; reason: hangs")
    assert refusal(operator.acts.cancel, order("", True), one.id) == "already_cancelled"
    await operator.polls(2)
    assert operator.bench.slurm.cancels == [(one.job_id, one.job_name)]
    (cancel,) = (e for e in operator.bench.events if e.code == "cancel")
    assert cancel.text.startswith("at-once: ")
    assert (await operator.bench.settled())[0].id == other.id
    assert operator.bench.reconciler.instances[one.id].state is State.STOPPED


async def test_one_whose_agent_is_silent_is_cancelled_too(operator: Operator) -> None:
    one, _ = await operator.bench.settled()
    operator.bench.ears.unreachable.add(one.id)
    operator.acts.cancel(order("", True), one.id)
    await operator.polls(2)
    assert operator.bench.slurm.cancels == [(one.job_id, one.job_name)]


async def test_a_drain_that_takes_too_long_can_be_cut(operator: Operator) -> None:
    one, _ = await operator.bench.settled()
    operator.bench.ears.open = {one.id: 7}
    operator.acts.drain(order(), one.id)
    await operator.polls(2)
    assert operator.bench.slurm.cancels == []
    assert refusal(operator.acts.drain, order(), one.id) == "already_draining"
    operator.acts.cancel(order("", True), one.id)
    await operator.polls(1)
    assert operator.bench.slurm.cancels == [(one.job_id, one.job_name)]


async def test_a_cancel_of_the_last_ready_one_says_so(operator: Operator) -> None:
    one, other = await operator.bench.settled()
    operator.bench.ears.unready.add(other.id)
    await operator.polls(1)
    with pytest.raises(Refused, match="the last ready instance of chat"):
        operator.acts.cancel(order(), one.id)


async def test_a_job_that_is_not_ours_any_more_is_not_cancelled(operator: Operator) -> None:
    one, _ = await operator.bench.settled()
    operator.bench.slurm.change(one.job_id, user="somebody")
    operator.acts.cancel(order("", True), one.id)
    await operator.polls(2)
    assert operator.bench.slurm.cancels == []


async def test_who_has_never_served_is_cancelled_without_a_question(operator: Operator) -> None:
    operator.bench.slurm.starts = False
    await operator.polls(2)
    one, _ = operator.bench.live()
    operator.acts.cancel(order(), one.id)
    await operator.polls(1)
    assert operator.bench.slurm.cancels == [(one.job_id, one.job_name)]


async def test_a_cancel_keeps_an_illness_a_failure(operator: Operator) -> None:
    one, _ = await operator.bench.settled()
    operator.bench.ears.open = {one.id: 7}
    operator.bench.ears.unready.add(one.id)
    while operator.bench.reconciler.instances[one.id].drain is None:
        await operator.polls(1)
    operator.acts.cancel(order("", True), one.id)
    drain = operator.bench.reconciler.instances[one.id].drain
    assert drain is not None
    assert (drain.kind, drain.at_once) == (DrainKind.UNHEALTHY, True)
    await operator.polls(2)
    assert operator.bench.reconciler.instances[one.id].state is State.FAILED


# ---------------------------------------------------------------- what was seen


async def test_what_changed_since_it_was_seen_is_refused_and_says_what_it_is(operator: Operator) -> None:
    one, _ = await operator.bench.settled()
    acts, revision = operator.acts, operator.config.services["chat"].launch.revision
    before = len(operator.bench.events)
    with pytest.raises(Refused, match="chat changed: replicas was 5, and is 2 now") as refused:
        acts.scale(order(replicas=5), "chat", 3)
    assert (refused.value.code, refused.value.status) == ("changed", 409)
    for act, target, seen in (
        (acts.pause, "chat", {"revision": "0123456789ab"}),
        (acts.drain, one.id, {"state": "unready"}),
        (acts.cancel, one.id, {"state": "ready", "generation": 3}),
        (acts.replace, one.id, {"generation": 1}),
    ):
        assert refusal(act, order("", True, **seen), target) == "changed"
    assert refusal(acts.maintenance, order(maintenance=True), "cloud", False) == "changed"
    assert len(operator.bench.events) == before, "nothing was done"
    acts.scale(order(replicas=2, revision=revision), "chat", 3)
    acts.drain(order(state="ready", generation=0), one.id)
    acts.maintenance(order("upgrade", maintenance=False), "cloud", True)
    assert operator.told == ("maintenance", "cloud", UID, "on; reason: upgrade")


# ---------------------------------------------------------------- the configuration


async def test_the_file_is_applied_as_it_was_shown_or_not_at_all(operator: Operator) -> None:
    await operator.bench.settled()
    acts, reconciler = operator.acts, operator.bench.reconciler
    assert refusal(acts.apply_config, order()) == "not_changed"
    operator.file.write_text(FILE.replace("replicas = 2", "replicas = 3"))
    assert refusal(acts.apply_config, order(digest="another")) == "changed"
    operator.file.write_text(FILE.replace("replicas = 2", "replicsa = 3"))
    with pytest.raises(Refused, match=r"services\.chat\.replicsa: ") as refused:
        acts.apply_config(order())
    assert refused.value.code == "config_bad"
    assert reconciler.desired.services["chat"].replicas == 2
    operator.file.write_text(FILE.replace("replicas = 2", "replicas = 3"))
    assert acts.apply_config(order("course"))["services"][0]["means"] == ["2 replicas become 3"]
    assert reconciler.desired.services["chat"].replicas == 3
    assert operator.told == (
        "config-reloaded",
        "config",
        UID,
        f"chat changed ({operator.file}); reason: course",
    )


async def test_a_file_that_drops_a_service_is_applied_by_a_confirmed_word_only(operator: Operator) -> None:
    head, _, proxies = FILE.partition("[services.chat]")
    operator.file.write_text(head + proxies[proxies.index("[proxies") :])
    with pytest.raises(Refused, match="has no chat any more"):
        operator.acts.apply_config(order())
    assert "chat" in operator.bench.reconciler.desired.services
    operator.acts.apply_config(order("", True))
    assert operator.bench.reconciler.desired.services == {}


async def test_an_engine_that_does_not_act_refuses_all(operator: Operator) -> None:
    operator.control.stop_acting("the disk is full")
    assert refusal(operator.acts.scale, order(), "chat", 3) == "not_acting"
    assert refusal(operator.acts.apply_config, order()) == "not_acting"


# ---------------------------------------------------------------- alarms

AWAY = AlarmView("proxy-away", "warning", "cloud", "no relay reports", 5.0)
KEY = "proxy-away:cloud"


async def test_an_acknowledgement_lasts_as_long_as_its_alarm_and_through_a_restart(
    operator: Operator,
) -> None:
    assert refusal(operator.acts.acknowledge, order(), KEY) == "not_found"
    operator.alarms[KEY] = AWAY
    operator.acks.settle(operator.alarms)
    operator.acts.acknowledge(order("the cloud is upgraded"), KEY)
    assert operator.told == (
        "alarm-acknowledged", "cloud", UID, f"{KEY}; reason: the cloud is upgraded"
    )  # fmt: skip
    shown = operator.acks.marked(operator.alarms)[KEY]
    assert (shown.acked_by, shown.acked_at, shown.acked_because) == (
        UID, operator.bench.slurm.now, "the cloud is upgraded"
    )  # fmt: skip
    assert shown.text == AWAY.text
    operator.begin()
    operator.acks.settle({})  # it is not raised again yet
    operator.acks.settle({KEY: AWAY})
    assert operator.acks.marked({KEY: AWAY})[KEY].acked_by == UID
    operator.acks.settle({})
    operator.acks.settle({KEY: AWAY})
    assert operator.acks.marked({KEY: AWAY})[KEY] == AWAY, "it was over: this is another one"
    assert operator.bench.store.acks() == {}


async def test_a_warning_that_was_taken_up_is_open_again_once_it_is_critical(operator: Operator) -> None:
    operator.alarms[KEY] = AWAY
    operator.acts.acknowledge(order(), KEY)
    worse = AlarmView("proxy-away", "critical", "cloud", "no relay reports", 5.0)
    operator.acks.settle({KEY: worse})
    assert operator.acks.marked({KEY: worse})[KEY] == worse


async def test_an_acknowledgement_can_be_withdrawn_and_of_old_ones_nothing_stays(operator: Operator) -> None:
    assert refusal(operator.acts.unacknowledge, order(), KEY) == "not_found"
    operator.alarms[KEY] = AWAY
    operator.acts.acknowledge(order(), KEY)
    operator.acts.unacknowledge(order(), KEY)
    assert operator.told[0] == "alarm-open-again"
    assert operator.acks.marked(operator.alarms) == {KEY: AWAY}
    operator.acts.acknowledge(order(), KEY)
    operator.begin()
    operator.bench.slurm.now += COMES_BACK_WITHIN_S + 1
    operator.acks.settle({})
    assert operator.bench.store.acks() == {}
