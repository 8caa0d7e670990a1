"""Whatever becomes of the rows between the plan and its sending: only what is as it was shown may be sent."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from saia_engine.client import Tables
from saia_engine.view import InstanceView
from saia_tui.acts import on_instances
from saia_tui.acts.act import FACTS
from saia_tui.acts.plan import Plan, plan
from tests.tui import sample

NAMES = [f"k.hpc.{service}.{nonce}" for service in ("chat", "embed") for nonce in ("aa01", "aa02", "aa03")]
ACTS = (on_instances.drain, on_instances.cancel, on_instances.replace)
states = st.sampled_from(["ready", "ready", "unready", "draining", "starting", "pending", "lost", "failed"])


def row(name: str, state: str, generation: int) -> InstanceView:
    return InstanceView(name, name.split(".")[2], state, 0.0, generation=generation, node="gpu01")


rows = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(states, st.integers(0, 1)), min_size=1, max_size=len(NAMES)
)


def tables(of: dict[str, tuple[str, int]]) -> Tables:
    found = Tables()
    found.engine = msgspec.structs.replace(sample.engine(), snapshot_at=sample.NOW)
    found.services = {
        name: msgspec.structs.replace(sample.services()["embed"], name=name) for name in ("chat", "embed")
    }
    found.instances = {name: row(name, *facts) for name, facts in of.items()}
    return found


@settings(max_examples=300, deadline=None)
@given(before=rows, after=rows, act=st.sampled_from(ACTS), data=st.data())
def test_only_what_is_as_it_was_shown_may_be_sent(
    before: dict[str, tuple[str, int]], after: dict[str, tuple[str, int]], act: Any, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(before)), unique=True, min_size=1))
    leaving = frozenset(chosen)
    seen = tables(before)
    planned = plan(lambda tables, name, now: act(tables, name, now, leaving), seen, chosen, sample.NOW)
    if isinstance(planned, str):
        return
    told = [each.target for each in planned.acts] + [target for target, _ in planned.skipped]
    assert sorted(told) == sorted(chosen), "each is told of, once, and nobody else"
    now = tables(after)
    for each in planned.acts:
        assert dict(each.seen) == FACTS["instances"](seen.instances[each.target])
        assert each.target in each.command_line(""), "the command names the same target"
        if not each.refusal(now, sample.NOW):
            assert FACTS["instances"](now.instances[each.target]) == dict(each.seen)
            if not each.danger and act is not on_instances.replace:
                fresh = act(now, each.target, sample.NOW, leaving)
                assert not fresh.danger, "no danger that was not shown"


@given(before=rows, reason=st.text(max_size=40))
def test_the_word_to_type_names_one_target_and_a_reason_is_one_word_of_the_command(
    before: dict[str, tuple[str, int]], reason: str
) -> None:
    seen = tables(before)
    for name in seen.instances:
        found = on_instances.cancel(seen, name, sample.NOW)
        if isinstance(found, str):
            continue
        words = Plan((found,)).words
        service = seen.instances[name].service
        others = {o.id for o in seen.instances.values() if o.id != name and o.service == service}
        assert not any(word in others or word in {o.rpartition(".")[2] for o in others} for word in words)
        line = shlex.split(found.command_line(reason))
        assert (line[-1] == reason) if reason else ("--reason" not in line)
