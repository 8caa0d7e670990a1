"""A lost or damaged journal is made anew from Slurm and the instance directories, and no job is touched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine import config as configuration
from saia_engine import rebuild as rebuilding
from saia_engine import routes
from saia_engine import site as the_site
from saia_engine.config import Config
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.lease import Lease
from saia_engine.model import DrainKind, Instance, Job, LaunchSpec, Override, State
from saia_engine.rebuild import Rebuilt, lines
from saia_engine.revision_files import RevisionFiles
from saia_engine.routes import Route, RouteTable
from saia_engine.slurm.port import SlurmUnavailable
from saia_engine.store import JournalError, Store
from tests.unit.memory_slurm import MemorySlurm
from tests.unit.test_engine import ENGINE, Site, eventually

DAMAGE = b"no database, but long enough to look like one" * 100
SPEC = LaunchSpec(command=("serve",), environment=(("TOKEN", "hunter2"),))
CONFIG = """
[cluster]
name = "hpc"
kind = "local"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
installation = "k7f3"

[services.chat]
models = ["m"]
command = ["serve", "{port}"]

[proxies.cloud]
"""


class Place:
    """A configuration, its directories, and a Slurm in memory."""

    def __init__(self, directory: Path) -> None:
        file = directory / "engine.toml"
        file.write_text(CONFIG)
        self.config: Config = configuration.load(file)
        the_site.prepare(self.config)
        self.slurm = MemorySlurm()
        self.slurm.boot = 0.0
        self.slurm.told_ahead_s = None
        self.slurm.starts = False
        self.dirs = InstanceDirs(self.config.paths.instances_dir)
        self.journal = self.config.paths.state_db
        self.files = RevisionFiles(self.config.paths.revisions_dir)

    def launched(self, nonce: str, ago_s: float = 86_400.0, service: str = "chat") -> str:
        """An instance directory, as a launch left it so long ago."""
        name = f"k7f3.hpc.{service}.{nonce}"
        at = time.time() - ago_s
        self.dirs.prepare(
            Instance(name, service, SPEC.redacted(), SPEC.revision, at, state_since=at, user="svc"), SPEC
        )
        for path in self.dirs.path(name).iterdir():
            os.utime(path, (at, at))
        return name

    def job(self, name: str, state: str = "RUNNING", **fields: object) -> Job:
        shown = {"nodes": ("gpu01",), "start_time": time.time() - 60, "end_time": time.time() + 3600}
        job_id = self.slurm.add(f"saia.{name}", state=state, **{**shown, **fields})
        return self.slurm.jobs[job_id]

    async def rebuild(self) -> Rebuilt:
        lease = Lease.acquire(self.config.paths.state_dir, self.config.paths.shared_dir)
        try:
            return await rebuilding.rebuild(self.config, lease, self.slurm)
        finally:
            lease.release()

    def records(self) -> dict[str, Instance]:
        store = Store(self.journal)
        try:
            return store.instances(0.0)
        finally:
            store.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(the_site, "user", lambda: "svc")
    return Place(tmp_path)


async def test_live_ended_and_unknown_ones_are_told_apart(place: Place) -> None:
    running, waiting = place.launched("aa01"), place.launched("aa02")
    place.job(running)
    place.job(waiting, "PENDING", reason="Priority", nodes=(), end_time=None)
    completing = place.launched("aa03")
    place.job(completing, "COMPLETING")
    done = place.launched("aa04")
    ended_at = time.time() - 100
    place.job(done, "CANCELLED", end_time=ended_at)
    gone = place.launched("aa05", ago_s=3 * 86400)
    young = place.launched("aa06", ago_s=5)
    place.job("k7f3.hpc.chat.dead")  # nobody has a directory for it
    place.job("other.hpc.chat.aa01")  # another installation's
    place.job(place.launched("aa07", ago_s=3 * 86400), user="eve")
    (place.dirs.root / "k7f3.hpc.chat.torn").mkdir()
    (place.dirs.root / "other.hpc.chat.bb01").mkdir()
    (place.dirs.root / "notes").mkdir()

    found = await place.rebuild()
    records = place.records()
    assert {name: i.state for name, i in records.items()} == {
        running: State.STARTING,
        waiting: State.PENDING,
        completing: State.SUBMITTED,
        done: State.FAILED,
        gone: State.STOPPED,
        young: State.INTENDED,
        "k7f3.hpc.chat.aa07": State.STOPPED,
    }
    assert records[running].job_id and records[running].spec.environment == (("TOKEN", ""),)
    assert records[completing].completing_since is not None
    assert records[done].ended_at == ended_at
    assert abs((records[gone].ended_at or 0) - (time.time() - 3 * 86400)) < 60
    assert {i.id for i in found.adopted} == {running, waiting, completing}
    assert [i.id for i in found.unsure] == [young]
    assert len(found.unknown) == 2
    assert (place.slurm.submits, place.slurm.cancels) == ([], [])
    said = "\n".join(lines(found))
    assert "adopted  chat.aa01: job 1 starting gpu01" in said
    assert "has our token saia.k7f3.hpc.chat.dead" in said
    assert "k7f3.hpc.chat.torn holds no record that can be read" in said
    assert "it was not there" in said


async def test_an_exit_record_tells_how_it_ended(place: Place) -> None:
    name = place.launched("aa01", ago_s=30)
    (place.dirs.path(name) / "exit.1.json").write_text(
        f'{{"version": 1, "instance": "{name}", "generation": 1, "exit_code": 3, "signal": null,'
        ' "stopped_by": "service", "at": 1.0}'
    )
    await place.rebuild()
    record = place.records()[name]
    assert (record.state, record.generation) == (State.STOPPED, 1)
    assert record.outcome.endswith("; the service exited with code 3")


async def test_who_had_traffic_keeps_it_and_who_drained_drains(place: Place) -> None:
    ready, draining, older = (place.launched(nonce) for nonce in ("aa01", "aa02", "aa03"))
    for name in (ready, draining):
        place.job(name)
    place.job(older, restarts=2)
    routes.write(
        place.config.paths.routes,
        RouteTable(
            1, 5, 1.0, "k7f3", "hpc", "/run/gate.sock", routes=(
                route(ready), route(draining, draining=True), route(older, generation=1)
            )
        ),
    )  # fmt: skip
    await place.rebuild()
    records = place.records()
    assert (records[ready].state, records[ready].served) == (State.READY, True)
    drain = records[draining].drain
    assert records[draining].state is State.DRAINING
    assert drain is not None and drain.kind is DrainKind.HANDOVER
    assert (records[older].state, records[older].generation) == (State.STARTING, 2)


def route(instance: str, generation: int = 0, draining: bool = False) -> Route:
    end = time.time() + 3600
    return Route(
        instance,
        "chat",
        generation,
        "gpu01",
        20000,
        "0" * 64,
        1,
        ("GET",),
        ("/v1/",),
        end - 100,
        end,
        draining,
    )


async def test_twins_are_left_to_the_engine(place: Place) -> None:
    name = place.launched("aa01")
    first, second = place.job(name), place.job(name)
    found = await place.rebuild()
    assert [i.job_id for i in found.adopted] == [first.id]
    assert place.slurm.cancels == []
    assert not place.slurm.jobs[second.id].ended


async def test_revisions_come_back_from_their_files_and_the_rest_is_told_to_be_lost(place: Place) -> None:
    place.files.save("chat", SPEC)
    place.files.save("chat", replace(SPEC, gres="gpu:1"))
    found = await place.rebuild()
    store = Store(place.journal)
    assert {r.revision for r in store.revisions()["chat"]} == {
        SPEC.revision,
        replace(SPEC, gres="gpu:1").revision,
    }
    assert all(r.good_at is None for r in store.revisions()["chat"])
    assert b"hunter2" not in place.journal.read_bytes()
    assert store.proxies() == {}, "each proxy goes on by its last orders: a revoked key stays revoked"
    [event] = [e for e in store.events() if e.code == "journal-rebuilt"]
    assert event.text == "the old one: it was not there"
    said = lines(found)
    assert "revisions that a rollback can go to: chat 2" in said
    assert "not restored:" in said


async def test_a_damaged_journal_is_moved_aside_whole(place: Place) -> None:
    place.journal.write_bytes(DAMAGE)
    found = await place.rebuild()
    assert found.moved_to is not None and found.moved_to.read_bytes() == DAMAGE
    assert place.journal.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.journal.parent.glob("state.db*")) == [
        "state.db",
        found.moved_to.name,
    ]


@pytest.mark.parametrize("old", [None, b"", DAMAGE], ids=["gone", "empty", "damaged"])
async def test_a_write_that_was_cut_short_is_not_undone_in_the_new_journal(
    place: Place, old: bytes | None
) -> None:
    name = place.launched("aa01")
    place.job(name)
    if old is not None:
        place.journal.write_bytes(old)
    cut_short = Path(f"{place.journal}-journal")
    cut_short.write_bytes(b"pages of long ago")
    await place.rebuild()
    assert set(place.records()) == {name}
    assert not cut_short.exists()
    [kept] = place.journal.parent.glob("state.db.damaged-*-journal")
    assert kept.read_bytes() == b"pages of long ago"


async def test_a_record_that_cannot_be_read_is_a_damage_too(place: Place) -> None:
    store = Store(place.journal)
    store.set_override(Override("chat", 3, 0, 1.0))
    store._db.execute("UPDATE overrides SET record = CAST('{' AS BLOB)")
    store.close()
    assert "truncated" in rebuilding.fault_of(place.journal)
    assert (await place.rebuild()).moved_to is not None


async def test_a_journal_that_is_whole_stays_however_often_it_is_asked(place: Place) -> None:
    place.job(place.launched("aa01"))
    await place.rebuild()
    before = place.journal.read_bytes()
    for _ in range(2):
        found = await place.rebuild()
        assert lines(found) == [f"{place.journal} is whole: it stays as it is, and nothing was done"]
    assert place.journal.read_bytes() == before


async def test_what_a_rebuild_cannot_mend_it_does_not_touch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(place.journal).close()
    with sqlite3.connect(place.journal) as db:
        db.execute("PRAGMA user_version = 99")
    before = place.journal.read_bytes()
    with pytest.raises(JournalError, match="another version"):
        await place.rebuild()

    def sick(path: Path) -> None:
        raise JournalError("cannot read") from sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(rebuilding, "copied", sick)
    with pytest.raises(JournalError, match="cannot read"):
        await place.rebuild()
    assert place.journal.read_bytes() == before
    assert [path.name for path in place.journal.parent.glob("state.db*")] == ["state.db"]


async def test_without_a_good_answer_nothing_is_moved(place: Place) -> None:
    place.journal.write_bytes(DAMAGE)
    place.slurm.unavailable = "squeue failed"
    with pytest.raises(SlurmUnavailable):
        await place.rebuild()
    place.slurm.unavailable = ""
    place.config = replace(place.config, kind="slurm")
    place.slurm.boot = time.time() - 5
    with pytest.raises(SlurmUnavailable, match="just restarted"):
        await place.rebuild()
    place.slurm.now, place.slurm.told_ahead_s = time.time(), -86_400.0
    with pytest.raises(SlurmUnavailable, match="behind this host's"):
        await place.rebuild()
    assert place.journal.read_bytes() == DAMAGE
    assert [path.name for path in place.journal.parent.glob("state.db*")] == ["state.db"]
    place.slurm.boot, place.slurm.told_ahead_s = time.time() - 500, 0.0
    assert (await place.rebuild()).moved_to is not None


async def test_a_rebuild_that_was_cut_short_can_be_done_again(place: Place) -> None:
    name = place.launched("aa01")
    place.job(name)
    half = Store(place.journal.with_name("state.db.rebuilding"))
    half.record(1.0, "c", "info", "s", "of the first try")
    half.close()
    await place.rebuild()
    assert set(place.records()) == {name}
    assert b"of the first try" not in place.journal.read_bytes()
    assert not place.journal.with_name("state.db.rebuilding").exists()


# ---------------------------------------------------------------- as a process, with real jobs


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    site.configure('[services.chat]\nmodels = ["m"]\nreplicas = 2\n')
    yield site
    site.close()


def saia(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ENGINE, *arguments, "--config", str(site.config)], capture_output=True, text=True, timeout=30
    )


def test_with_a_rebuilt_journal_the_engine_goes_on_with_the_same_jobs(site: Site) -> None:
    engine = site.run()
    first, *_ = before = list(site.ready(2))
    site.post(f"instances/{first}/drain")
    eventually(lambda: first in site.instances("stopped"))
    kept = site.ready(2)
    jobs = {job.id for job in site.running()}
    refused = saia(site, "rebuild")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "another engine runs on this host" in refused.stderr
    engine.kill()
    engine.wait()

    journal = site.directory / "state" / "state.db"
    journal.write_bytes(DAMAGE)
    told = saia(site, "explain", "chat")
    assert told.returncode == 1
    assert "saia-engine rebuild --config FILE" in told.stderr
    done = saia(site, "rebuild")
    assert (done.returncode, done.stderr) == (0, "")
    for name in kept:
        assert f"adopted  {'.'.join(name.split('.')[2:])}: job " in done.stdout
    assert f"ended    {'.'.join(first.split('.')[2:])}: " in done.stdout
    assert all(len(line) <= 200 and line.isprintable() for line in done.stdout.splitlines())
    assert saia(site, "rebuild").stdout == f"{journal} is whole: it stays as it is, and nothing was done\n"

    with site.never_without_a_route():
        site.run()
        assert set(site.ready(2)) == set(kept)
    assert {job.id for job in site.running()} == jobs
    assert set(before) - {first} <= set(kept)


def test_where_slurm_does_not_answer_nothing_is_moved(site: Site) -> None:
    services = '[services.chat]\nmodels = ["m"]\ncommand = ["serve", "{socket}"]\n'
    (site.directory / "bin").mkdir()
    for name in ("squeue", "sinfo", "scontrol", "sbatch", "scancel"):
        file = site.directory / "bin" / name
        file.write_text(
            "#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n"
        )
        file.chmod(0o755)
    site.configure(services, kind="slurm", slurm_bin="bin")
    site.config.write_text(site.config.read_text().replace("[local]\nnodes = 2\ngpus_per_node = 8\n", ""))
    journal = site.directory / "state" / "state.db"
    journal.parent.mkdir()
    journal.write_bytes(DAMAGE)
    done = saia(site, "rebuild")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Unable to contact slurm controller" in done.stderr
    assert journal.read_bytes() == DAMAGE
