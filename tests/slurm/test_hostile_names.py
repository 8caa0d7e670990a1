"""Jobs that a stranger submits to a real Slurm under hostile names, as the operator's screen shows them."""

from __future__ import annotations

import pytest

from saia_engine import rows
from saia_engine.model import Snapshot
from tests.slurm.cluster import Cluster
from tests.slurm.test_cli import adapter, until
from tests.tui import sample
from tests.tui.fake_engine import FakeEngine
from tests.tui.hostile import CORPUS
from tests.tui.screen import shown, words
from tests.tui.screen import until as until_screen

pytestmark = pytest.mark.real_slurm

FORGED = "99999|RUNNING|2026-01-01T00:00:00|x\n88888|RUNNING|root|gpu|forged"


def submitted(cluster: Cluster, name: str) -> int | None:
    """The job's id; None where Slurm itself refuses the name."""
    chosen = ("--job-name", name, "--comment", name)
    done = cluster.run(
        "sbatch", "--parsable", "--hold", "-o", "/dev/null", *chosen, "--wrap", "sleep 600", check=False
    )
    return int(done.stdout.split(";")[0]) if done.returncode == 0 else None


async def test_jobs_with_hostile_names_are_one_row_each_and_nothing_of_them_is_obeyed(
    cluster: Cluster,
) -> None:
    names = [bad for bad in (*CORPUS, FORGED) if bad.strip() and "\x00" not in bad]
    ids: dict[int, str] = {}
    for name in names:
        try:
            job = submitted(cluster, name)
        except (UnicodeEncodeError, OSError):
            continue  # no argument of a program
        if job is not None:
            ids[job] = name
    assert len(ids) > 10, "Slurm takes most of them"

    def all_there(snapshot: Snapshot) -> bool:
        return ids.keys() <= {job.id for job in snapshot.jobs}

    snapshot = await until(adapter(cluster), all_there)
    assert {job.id for job in snapshot.jobs} == ids.keys(), "no row is forged"
    tables = sample.state()
    tables["jobs"] = dict(rows.jobs(snapshot, {}))
    async with shown(FakeEngine(tables), (160, 60)) as (app, pilot):
        await pilot.press("3")
        await until_screen(pilot, lambda: str(max(ids)) in words(app))
        lines = words(app).splitlines()
        assert len(lines) == 60
        told = [line.lstrip("▸ ").split(" ")[0] for line in lines[4:-1]]
        assert sorted(word for word in told if word) == sorted(map(str, ids)), "each job is one row"
        assert words(app).replace("\n", "").isprintable()
