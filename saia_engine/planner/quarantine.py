"""Nodes on which instances keep failing, where the fault is the node's and not the service's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from saia_engine.model import Exclude, Exclusion, Instance, Quarantine, Reason, State, short_id
from saia_engine.planner.foresight import Outlook
from saia_engine.planner.moment import Moment

WINDOW_S = 3600.0
"""Failures count for so long."""
OTHERS_FAULT = frozenset({"PREEMPTED", "TIMEOUT", "DEADLINE", "REVOKED"})
"""Ends of a job that say nothing about its node."""
MOST_SHARE = 0.5
"""No more than this share of a partition's nodes is ever excluded: then it is not the nodes."""


def bad_nodes(
    rule: Quarantine,
    instances: Collection[Instance],
    exclusions: Mapping[str, Exclusion],
    outlook: Outlook,
    moment: Moment,
) -> Iterator[Exclude]:
    """Exclusions to begin now."""
    if not rule.failures:
        return
    served_on: dict[tuple[str, str], set[str]] = defaultdict(set)
    """By service and revision: another revision that runs elsewhere says nothing of this one."""
    failed_on: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        ready_at = instance.first_ready_at
        if instance.state is State.READY or (ready_at and not moment.reached(ready_at + WINDOW_S)):
            served_on[instance.service, instance.revision].add(instance.node)
        if _blames_node(instance, exclusions.get(instance.node), moment):
            failed_on[instance.node].append(instance)
    excluded = set(outlook.excluded)
    for node, failed in sorted(failed_on.items()):
        services = {i.service for i in failed}
        # One that fails wherever it runs is at fault itself.
        proves = [i for i in failed if len(services) > 1 or served_on[i.service, i.revision] - {node}]
        if len(proves) < rule.failures or node in outlook.excluded:
            continue
        inputs = tuple((short_id(i.id), i.outcome[:200]) for i in proves[-3:])
        text = f"{len(proves)} instances failed on {node} within {WINDOW_S / 60:.0f} min, and ran elsewhere"
        if not _may_go(node, excluded, outlook):
            continue
        excluded.add(node)
        yield Exclude(node, moment.now + rule.time_s, Reason("bad-node", text, inputs))


def _blames_node(instance: Instance, excluded: Exclusion | None, moment: Moment) -> bool:
    if instance.state is not State.FAILED or not instance.node or instance.ended_at is None:
        return False
    if instance.end_state in OTHERS_FAULT or instance.cancelled_by_others or instance.vanished:
        return False
    if instance.spec.nodes > 1:
        return False  # of several nobody knows which
    since = excluded.until if excluded else 0.0
    return instance.ended_at > since and not moment.reached(instance.ended_at + WINDOW_S)


def _may_go(node: str, excluded: set[str], outlook: Outlook) -> bool:
    """Whether each of its partitions keeps enough others."""
    known = outlook.nodes.get(node)
    if known is None:
        return False
    for partition in known.partitions or ("",):
        members = {n.name for n in outlook.nodes.values() if partition in (n.partitions or ("",))}
        if len(members & excluded) + 1 > MOST_SHARE * len(members):
            return False
    return True
