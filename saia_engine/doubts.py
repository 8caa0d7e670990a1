"""Why an operator should think twice before an act; empty where there is no reason to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from saia_engine.model import Exclusion, Instance, Node, Revision, Service, State

GROWTH = 4
"""A scale to more than so many times the replicas is asked about: it may be a slip."""
OF_UNFREEZE = (
    "cancels and launches would go on although many jobs of ours are absent from Slurm's answer: where Slurm"
    " is wrong, an instance may run twice"
)


def of_scale(service: Service, before: int, wanted: int) -> str:
    if wanted == 0 and before > 0:
        return f"{service.name} would be stopped: all its requests are refused until it is scaled up again"
    if wanted < min(service.min_available, before):
        return (
            f"{service.name} would have {wanted} replicas, fewer than its min_available of"
            f" {service.min_available}"
        )
    if wanted > GROWTH * max(before, service.replicas, 1):
        return (
            f"{service.name} would have {wanted} replicas, more than {GROWTH} times the {before} it has now"
        )
    return ""


def of_pause(service: str, before: int) -> str:
    return f"{service} would be stopped: all its requests are refused until it is resumed" if before else ""


def of_drain(service: Service | None, record: Instance, ready_left: int) -> str:
    """`ready_left` are its service's other ready instances."""
    if service is None or record.state is not State.READY:
        return ""
    if ready_left == 0:
        return (
            f"it is the last ready instance of {record.service}: new requests are refused until"
            " another one is ready"
        )
    if ready_left < service.min_available:
        return (
            f"{ready_left} ready instances of {record.service} would be left, fewer than its min_available"
            f" of {service.min_available}"
        )
    return ""


def of_cancel(service: Service | None, record: Instance, ready_left: int) -> str:
    """`ready_left` are its service's other ready instances."""
    if not record.served:
        return ""  # nobody was ever sent there
    return of_drain(service, record, ready_left) or "all that is open on it is cut, without a drain"


def of_apply(changes: Iterable[Mapping[str, Any]]) -> str:
    """`changes` are those of `config_changes`."""
    removed = [change["service"] for change in changes if change["change"] == "removed"]
    return (
        f"the changed file has no {', '.join(removed)} any more: all its instances would end"
        if removed
        else ""
    )


def of_rollback(revision: Revision) -> str:
    name = f"revision {revision.revision} of {revision.service}"
    if revision.failed_at is not None:
        return f"{name} has failed: {revision.failure or 'nobody knows why'}"
    if revision.good_at is None:
        return f"{name} has never proven itself"
    return ""


def of_exclusion(node: str, nodes: Iterable[Node], exclusions: Mapping[str, Exclusion], now: float) -> str:
    excluded = {node, *(name for name, e in exclusions.items() if e.until > now)}
    if any(n.usable and n.name not in excluded for n in nodes):
        return ""
    return f"without {node} there is no node left that could take a new job"
