"""What the journal tells of one instance or one service, as JSON: for the API, and for readers without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from saia_engine.instance_dirs import InstanceDirs
from saia_engine.model import Pin, Revision, Service
from saia_engine.revision_files import RevisionFiles
from saia_engine.store import Event, Store

SERVICE_EVENTS = 100
"""The newest ones of a service; an instance's story is whole."""


def of_instance(store: Store, name: str, dirs: InstanceDirs) -> dict[str, Any] | None:
    """Its record (null where only events are left), and all that happened to it; None for an unknown one.

    Raises JournalError.
    """
    record, events = store.instance(name), store.story(name)
    if record is None and not events:
        return None
    return {
        "instance": None if record is None else msgspec.to_builtins(record),
        "log": str(dirs.log(name)) if record else "",
        "events": [_event(event) for event in events],
    }


def of_service(
    store: Store, name: str, service: Service | None, files: RevisionFiles
) -> dict[str, Any] | None:
    """Its revisions, what operators put on top of the file, its instances and its newest events.

    `service` is as the file says, None where it is not in there. None for one that nobody knows. Raises JournalError.
    """
    events = store.events_of(name, SERVICE_EVENTS)
    own = store.instances_of(name)
    known = revisions(store, name, service, files)
    if service is None and not own and not known["revisions"]:
        return None
    override, pause = store.overrides().get(name), store.pauses().get(name)
    return {
        **known,
        "replicas": 0 if pause or not service else override.replicas if override else service.replicas,
        "override": None if override is None else msgspec.to_builtins(override),
        "pause": None if pause is None else msgspec.to_builtins(pause),
        "instances": [
            {
                "id": i.id,
                "state": str(i.state),
                "since": i.ended_at or i.state_since,
                "revision": i.revision,
                "job_id": i.job_id,
                "node": i.node,
                "outcome": i.outcome,
            }
            for i in own
        ],
        "events": [_event(event) for event in events],
    }


def revisions(store: Store, name: str, service: Service | None, files: RevisionFiles) -> dict[str, Any]:
    """Its history, the newest last, and which one is asked for now. Raises JournalError."""
    configured = service.launch.revision if service else ""
    pin = store.pins().get(name)
    holds = pin is not None and pin.instead_of == configured
    in_use: dict[str, int] = {}
    for instance in store.instances_of(name):
        if instance.live:
            in_use[instance.revision] = in_use.get(instance.revision, 0) + 1
    return {
        "service": name,
        "configured": configured,
        "asked_for": pin.revision if pin and holds else configured,
        "pin": _pin(pin) if pin and holds else None,
        "revisions": [
            {
                "revision": r.revision,
                "since": r.since,
                "good_at": r.good_at,
                "failed_at": r.failed_at,
                "failure": r.failure,
                "instances": in_use.get(r.revision, 0),
                "kept": files.load(name, r.revision) is not None,
                "spec": _told(r),
            }
            for r in store.revisions().get(name, ())
        ],
    }


def _pin(pin: Pin) -> dict[str, Any]:
    return msgspec.to_builtins(pin)


def _told(revision: Revision) -> Mapping[str, Any]:
    """The fields of its launch spec; the values of the environment are redacted."""
    return msgspec.to_builtins(revision.spec)


def _event(event: Event) -> dict[str, Any]:
    return msgspec.to_builtins(event)
