"""Whether acts may be asked for, and what is held of those that were."""

from __future__ import annotations

import pytest

from saia_engine.client import Tables
from saia_tui.acts import on_proxies
from saia_tui.acts.act import Act
from saia_tui.acts.plan import Plan
from saia_tui.arming import Arming
from saia_tui.held import Hold
from tests.tui.sample import NOW, proxies
from tests.tui.screen import Clock


def test_it_is_armed_for_ten_minutes_after_the_last_act() -> None:
    clock = Clock()
    arming = Arming(clock)
    assert (arming.armed, arming.minutes_left, arming.shown) == (False, 0, False)
    assert "W arms them" in arming.refusal
    arming.toggle()
    assert (arming.armed, arming.minutes_left, arming.refusal) == (True, 10, "")
    clock.at += 599
    assert (arming.armed, arming.minutes_left) == (True, 1)
    arming.prolong()
    assert arming.minutes_left == 10
    clock.at += 600
    assert not arming.armed
    arming.toggle()
    arming.toggle()
    assert not arming.armed


def test_what_only_reads_is_never_armed() -> None:
    arming = Arming(Clock(), read_only=True)
    arming.toggle()
    arming.prolong()
    assert (arming.armed, arming.shown) == (False, None)
    assert "--read-only" in arming.refusal


@pytest.fixture
def planned() -> Plan:
    tables = Tables()
    tables.proxies = proxies()
    act = on_proxies.maintenance(tables, "cloud", NOW, True)
    assert isinstance(act, Act)
    return Plan((act,))


def test_what_is_due_is_given_out_once_and_what_is_revoked_never(planned: Plan) -> None:
    clock = Clock()
    hold = Hold(clock)
    hold.put(planned, "first")
    clock.at += 2
    hold.put(planned, "second")
    assert hold.told == "Maintenance on cloud (and 1 more): sent in 5 s, u revokes it"
    clock.at += 2.9
    assert hold.take_due() == []
    clock.at += 0.1
    assert [held.reason for held in hold.take_due()] == ["first"]
    assert hold.told == "Maintenance on cloud: sent in 2 s, u revokes it"
    revoked = hold.revoke()
    assert revoked is not None and revoked.reason == "second"
    clock.at += 100
    assert (hold.take_due(), hold.revoke(), hold.told, bool(hold)) == ([], None, "", False)
