"""A new journal where the old one is lost or damaged: from one good answer of Slurm and the instance directories.

Nothing is submitted or cancelled here, and the old file is moved aside, never deleted.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from saia_engine import routes, site, traces
from saia_engine.belief import believed_from, our_clock_is_wrong
from saia_engine.clock import ClockCheck, SteadyClock
from saia_engine.config import Config
from saia_engine.edge.text import clean
from saia_engine.front import Endpoint
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.journal_copy import copied
from saia_engine.lease import Lease
from saia_engine.model import (
    AgentStatus,
    Drain,
    DrainKind,
    Instance,
    Job,
    Revision,
    Snapshot,
    State,
    parse_token,
    short_id,
)
from saia_engine.planner import lifecycle
from saia_engine.probes import Target
from saia_engine.reconciler import Identity, Reconciler
from saia_engine.revision_files import RevisionFiles
from saia_engine.routes import Route, RoutesFault
from saia_engine.slurm.port import JobRequest, Slurm, SlurmError, SlurmUnavailable, SubmitRejected
from saia_engine.store import JournalError, Store

_EXIT = re.compile(r"exit\.([0-9]{1,6})\.json")
NOT_RESTORED = (
    "scales, pauses, rollbacks and node exclusions that operators had set",
    "orders to proxies (maintenance, keys): each goes on by its last ones, and revoked keys stay so",
    "why an instance drains: it goes on as in a hand-over",
    "events, learned waits, and which revisions had proven themselves",
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found; empty lists and a journal that is whole where there was nothing to do."""

    journal: Path
    fault: str = ""
    """What was wrong with the old journal; empty: nothing, so it stays as it is."""
    moved_to: Path | None = None
    jobs: int = 0
    """All that Slurm showed, anyone's."""
    adopted: list[Instance] = field(default_factory=list)
    ended: list[Instance] = field(default_factory=list)
    unsure: list[Instance] = field(default_factory=list)
    """Neither Slurm nor an exit record tells of them: they may run."""
    unknown: list[str] = field(default_factory=list)
    """Sentences on jobs and directories that were left alone."""
    revisions: dict[str, int] = field(default_factory=dict)


async def rebuild(config: Config, lease: Lease, slurm: Slurm) -> Rebuilt:
    """Where the journal is whole, nothing is done. The caller holds the lease, so that no engine runs.

    Raises SlurmUnavailable, with everything as it was, and JournalError for what a rebuild can't mend.
    """
    journal = config.paths.state_db
    fault = fault_of(journal)
    if not fault:
        return Rebuilt(journal)
    clock, began = SteadyClock(), time.monotonic()
    snapshot = replace(await slurm.observe(), taken_at=time.time())
    # What ended, and when, cannot be told by a clock that is not Slurm's.
    our_clock_is_wrong(ClockCheck(clock), snapshot, time.monotonic() - began)
    if config.kind == "slurm" and snapshot.taken_at < believed_from(
        snapshot.controller_boot, config.poll_interval_s
    ):
        raise SlurmUnavailable(
            "Slurm's controller has just restarted: its answers are not believed yet; try again in a minute"
        )
    fresh = journal.with_name(f"{journal.name}.rebuilding")
    for leftover in (fresh, Path(f"{fresh}-journal")):
        leftover.unlink(missing_ok=True)
    store = Store(fresh)
    try:
        store.record(snapshot.taken_at, "journal-rebuilt", "warning", "journal", f"the old one: {fault}")
        found = await _fill(store, config, lease, snapshot)
    finally:
        store.close()
    moved_to = _swap(journal, fresh)
    return replace(found, journal=journal, fault=fault, moved_to=moved_to, jobs=len(snapshot.jobs))


def fault_of(journal: Path) -> str:
    """What makes a rebuild necessary; empty for a journal that is whole.

    Raises JournalError or OSError where the journal, or its disk, has another fault.
    """
    try:
        if journal.stat().st_size == 0:
            return "it was empty"
    except FileNotFoundError:
        return "it was not there"
    try:
        with copied(journal) as copy:  # a look must not change what is evidence
            copy.read_all()
    except JournalError as exc:
        cause = exc.__cause__
        if cause is None or isinstance(cause, sqlite3.OperationalError | OSError):
            raise  # another version's, a full disk, a lock: a rebuild does not help
        return " ".join(str(cause).split())
    return ""


def _swap(journal: Path, fresh: Path) -> Path | None:
    """The new journal in place of the old one; says where that lies now."""
    aside = journal.with_name(f"{journal.name}.damaged-{datetime.now():%Y%m%d-%H%M%S}")
    if aside.exists():
        raise JournalError(f"{aside} is there already: try again in a second")
    # A write that was cut short must not be undone in the new journal: what belongs to it goes first.
    for suffix in ("-journal", ""):
        old = Path(f"{journal}{suffix}")
        if old.exists():
            old.rename(f"{aside}{suffix}")
    fresh.rename(journal)
    return aside if aside.exists() else None


# ---------------------------------------------------------------- what goes into it


async def _fill(store: Store, config: Config, lease: Lease, snapshot: Snapshot) -> Rebuilt:
    identity = Identity(site.installation_id(config), config.name, site.user())
    dirs = InstanceDirs(config.paths.instances_dir, config.agent_python, config.port_range)
    files = RevisionFiles(config.paths.revisions_dir)
    revisions = _restore_revisions(store, files)
    reconciler = Reconciler(
        identity=identity,
        services=config.services,
        poll_interval_s=config.poll_interval_s,
        submits_per_hour=config.submits_per_hour,
        quarantine=config.quarantine,
        slurm=_Onlooker(),
        store=store,
        specs=files,
        lease=lease,
        dirs=dirs,
        probes=_Deaf(),
        clock=SteadyClock(lambda: snapshot.taken_at, lambda: snapshot.taken_at),
    )
    await reconciler.take_in(snapshot)
    found = Rebuilt(config.paths.state_db, revisions=revisions)
    routed = _routes(config.paths.routes)
    found.adopted.extend(
        _as_routed(i, routed.get((i.id, i.generation)), snapshot.taken_at)
        for i in reconciler.instances.values()
    )
    found.unknown.extend(
        alarm.text for (code, _), alarm in reconciler.alarms.current.items() if code == "unknown-job"
    )
    jobs = {job.name: job for job in snapshot.jobs if job.user == identity.user}
    unknown = [name for name in _directories(dirs, identity) if name not in reconciler.instances]
    unfinished = [name for name in dirs.unfinished() if name in unknown]
    found.unsure.extend(traces.open_cases(dirs, unfinished, snapshot, identity.user))
    for name in sorted(set(unknown).difference(i.id for i in found.unsure)):
        _sort_in(found, name, dirs, jobs, snapshot.taken_at, config.poll_interval_s)
    store.save(*found.adopted, *found.ended, *found.unsure)
    return found


def _routes(file: Path) -> dict[tuple[str, int], Route]:
    try:
        return {(route.instance, route.generation): route for route in routes.load(file).routes}
    except RoutesFault:
        return {}


def _as_routed(instance: Instance, route: Route | None, now: float) -> Instance:
    """Who had traffic keeps it, until the engine has heard its agent: the gates read the old table still."""
    if route is None or instance.state is not State.STARTING:
        return instance
    instance = replace(instance, served=True, first_ready_at=now, state_since=now)
    if route.draining:
        return replace(instance, state=State.DRAINING, drain=Drain(DrainKind.HANDOVER, now, heard_at=now))
    return replace(instance, state=State.READY, ready_since=now)


def _sort_in(
    found: Rebuilt, name: str, dirs: InstanceDirs, jobs: Mapping[str, Job], now: float, poll_s: float
) -> None:
    """An instance of whose job Slurm shows no life."""
    record = dirs.recorded(name)
    if record is None or record.id != name:
        found.unknown.append(f"{dirs.path(name)} holds no record that can be read: left as it is")
        return
    job = jobs.get(record.job_name)
    if job is not None:
        exited = dirs.exit_sentence(name, job.restarts)
        record = replace(lifecycle.revived(record, now), job_id=job.id)
        folded = lifecycle.fold_job(record, job, taken_at=now, poll_s=poll_s, exited=exited)
        if folded.live:
            found.adopted.append(folded)  # it is completing
        else:
            found.ended.append(replace(folded, ended_at=min(now, job.end_time or now)))
        return
    generation, last_sign_at = _last_signs(dirs.path(name), now)
    exited = "" if generation is None else dirs.exit_sentence(name, generation)
    outcome = "its job was over when the journal was rebuilt" + (f"; {exited}" if exited else "")
    found.ended.append(
        replace(
            record,
            state=State.STOPPED,
            state_since=last_sign_at,
            ended_at=last_sign_at,
            outcome=outcome,
            generation=generation or 0,
        )
    )


def _last_signs(directory: Path, now: float) -> tuple[int | None, float]:
    """The newest generation that has an exit record, and when anything was last written here."""
    generations: list[int] = []
    written: list[float] = [0.0]
    for path in directory.iterdir():
        if found := _EXIT.fullmatch(path.name):
            generations.append(int(found[1]))
        if path.is_file():
            written.append(path.lstat().st_mtime)
    return max(generations, default=None), min(now, max(written))


def _directories(dirs: InstanceDirs, identity: Identity) -> Iterator[str]:
    """Instances of this installation and cluster."""
    for path in sorted(dirs.root.iterdir()) if dirs.root.is_dir() else ():
        token = parse_token(f"saia.{path.name}")
        if token is not None and token[:2] == (identity.installation, identity.cluster) and path.is_dir():
            yield path.name


def _restore_revisions(store: Store, files: RevisionFiles) -> dict[str, int]:
    restored: dict[str, int] = {}
    for service, written in files.saved().items():
        for revision, at in sorted(written.items(), key=lambda item: item[1]):
            spec = files.load(service, revision)
            if spec is not None:
                store.save_revision(Revision(service, revision, spec, at))
                restored[service] = restored.get(service, 0) + 1
    return restored


class _Onlooker:
    """Slurm for a reconciler that may look at one answer and do nothing."""

    async def observe(self) -> Snapshot:
        raise SlurmUnavailable("a rebuild asks once")

    async def submit(self, request: JobRequest) -> int:
        raise SubmitRejected("a rebuild submits nothing")

    async def cancel(self, job_id: int, name: str) -> None:
        raise SlurmError("left to the engine, which cancels it at its first poll")

    async def close(self) -> None:
        pass


class _Deaf:
    """No agent is asked: who is ready, the engine hears for itself."""

    statuses: Mapping[str, AgentStatus] = {}
    endpoints: Mapping[str, Endpoint] = {}
    faults: Mapping[str, str] = {}
    listening_since: Mapping[str, float] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        pass

    async def close(self) -> None:
        pass


# ---------------------------------------------------------------- in words


def lines(found: Rebuilt) -> list[str]:
    """What was found and done, for an operator; safe in any terminal."""
    if not found.fault:
        return [f"{found.journal} is whole: it stays as it is, and nothing was done"]
    said = [f"the journal {found.journal} could not be used: {clean(found.fault)}"]
    if found.moved_to:
        said.append(f"it lies at {found.moved_to} now")
    said.append(f"Slurm shows {found.jobs} jobs; of our instances:")
    said += [_told("adopted", i, f"job {i.job_id} {i.state} {i.node}".rstrip()) for i in found.adopted]
    said += [_told("ended", i, i.outcome) for i in found.ended]
    said += [
        _told("unsure", i, "not seen in Slurm, but it told of no end: the engine will find out")
        for i in found.unsure
    ]
    if not (found.adopted or found.ended or found.unsure):
        said.append("  none")
    said += [f"left alone: {clean(text)}" for text in sorted(found.unknown)]
    if found.revisions:
        told = ", ".join(f"{service} {count}" for service, count in sorted(found.revisions.items()))
        said.append(f"revisions that a rollback can go to: {told}")
    said.append("not restored:")
    said += [f"  {what}" for what in NOT_RESTORED]
    said.append("now start the engine again")
    return said


def _told(verb: str, instance: Instance, text: str) -> str:
    return f"  {verb:8} {clean(short_id(instance.id))}: {clean(text)}"
