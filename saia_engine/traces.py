"""What instance directories tell, and a journal does not know: a lost one, another host's, or one that took no write.

Slurm may be silent about it when an engine starts, and be wrong: no record would miss it (promises 4, 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from saia_engine.front import EndpointFault
from saia_engine.instance_dirs import Directories
from saia_engine.model import Instance, Snapshot, State
from saia_engine.planner import lifecycle

UNFINISHED_S = 86400.0
"""A trace counts for so long after its time limit: its job may have waited in the queue."""


def open_cases(dirs: Directories, names: Iterable[str], snapshot: Snapshot, user: str) -> Iterator[Instance]:
    """Of `names`, a record of each whose job may run though this answer does not show it.

    One that has run stands there as lost, to be heard; of another it is open whether its submit arrived.
    """
    shown = {job.name for job in snapshot.jobs if job.user == user}
    nodes = snapshot.node_by_name
    for name in names:
        record = dirs.recorded(name)
        if record is None or record.id != name or record.job_name in shown:
            continue
        if not may_run(record, snapshot.taken_at):
            continue
        fresh = replace(record, user=user, state_since=snapshot.taken_at)
        generation = dirs.newest_generation(name)
        node = _node_of(dirs, name, generation)
        if generation is None or node not in nodes:
            yield fresh
        else:
            yield replace(
                fresh,
                state=State.LOST,
                generation=generation,
                node=node,
                absent_since=snapshot.taken_at,
            )


def later_runs(
    dirs: Directories, known: Iterable[Instance], snapshot: Snapshot, user: str
) -> Iterator[Instance]:
    """Of `known`, those whom this answer does not show, and who were requeued since they were written down."""
    shown = {job.name for job in snapshot.jobs if job.user == user}
    nodes = snapshot.node_by_name
    for instance in known:
        if instance.job_name in shown:
            continue
        generation = dirs.newest_generation(instance.id)
        if generation is None or generation <= instance.generation:
            continue
        node = _node_of(dirs, instance.id, generation)
        if node in nodes:
            again = lifecycle.requeued(instance, generation, snapshot.taken_at)
            yield replace(again, state=State.LOST, node=node, absent_since=snapshot.taken_at)


def may_run(record: Instance, now: float) -> bool:
    """Of one that never told of its end."""
    return record.created_at + record.spec.time_limit_s + UNFINISHED_S > now


def _node_of(dirs: Directories, name: str, generation: int | None) -> str:
    """Where it says that it runs: an address is Slurm's for this node, and who answers there has to prove itself."""
    if generation is None:
        return ""
    try:
        endpoint = dirs.endpoint(name, generation)
    except EndpointFault:
        return ""
    return "" if endpoint is None else endpoint.host
