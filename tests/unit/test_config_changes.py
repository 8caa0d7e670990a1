"""What a changed configuration file would change, told before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saia_engine import config
from saia_engine.config import ConfigFaults
from saia_engine.config_changes import ConfigChanges
from saia_engine.model import Override, Pause, ProxyLimits
from tests.unit.memory_slurm import Bench

SITE = """
[cluster]
name = "hpc"
kind = "local"
shared_dir = "shared"
state_dir = "state"
runtime_dir = "run"
poll_interval = "15s"
{cluster}
[services.chat]
command = ["serve", "{{port}}"]
replicas = {replicas}
time_limit = "2h"
{chat}
{more}
"""
EMBED = '[services.embed]\ncommand = ["embed", "{port}"]\nreplicas = 3\ntime_limit = "2h"\n'


class Site:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.file = bench.directory / "engine.toml"
        self.proxies: dict[str, ProxyLimits] = {}
        self.write()
        loaded = config.load(self.file)
        bench.services = dict(loaded.services)
        bench.restart()
        self.changes = ConfigChanges(loaded, bench.reconciler, lambda proxies: self.proxies.update(proxies))

    def write(self, chat: str = "", more: str = "", cluster: str = "", replicas: int = 2) -> None:
        self.file.write_text(SITE.format(chat=chat, more=more, cluster=cluster, replicas=replicas))

    def means(self, service: str = "chat") -> list[str]:
        (row,) = (r for r in self.changes.preview()["services"] if r["service"] == service)
        return row["means"]

    def fields(self, service: str = "chat") -> dict[str, tuple[str, str]]:
        (row,) = (r for r in self.changes.preview()["services"] if r["service"] == service)
        return {field["field"]: (field["before"], field["after"]) for field in row["fields"]}


@pytest.fixture
def site(bench: Bench) -> Site:
    return Site(bench)


def test_a_file_that_says_the_same_changes_nothing(site: Site) -> None:
    site.write(more="# only a comment\n")
    preview = site.changes.preview()
    assert (preview["changed"], preview["services"], preview["proxies"], preview["settings"]) == (
        False,
        [],
        [],
        [],
    )
    assert preview["file"] == str(site.file)


async def test_what_is_new_or_removed_is_told_with_what_becomes_of_its_instances(site: Site) -> None:
    site.write(more=EMBED)
    (row,) = site.changes.preview()["services"]
    assert (row["service"], row["change"], row["means"]) == ("embed", "new", ["3 instances are launched"])
    site.changes.take(site.changes.read())
    assert not site.changes.preview()["changed"], "from then on that is in force"
    await site.bench.settled()
    site.write()
    (row,) = site.changes.preview()["services"]
    assert (row["change"], row["fields"]) == ("removed", [])
    assert row["means"] == ["it ends: 3 instances are drained, then cancelled, and its requests are refused"]


async def test_a_changed_launch_is_a_rollout_and_no_value_of_an_environment_is_shown(site: Site) -> None:
    await site.bench.settled()
    site.write(chat='gpus = 2\nenvironment = {TOKEN = "hunter2"}\n')
    preview = site.changes.preview()
    assert "hunter2" not in str(preview)
    assert site.fields() == {
        "launch.gres": ("", "gpu:2"),
        "launch.environment.TOKEN": ("", "(not shown)"),
    }
    (means,) = site.means()
    assert means.startswith("rollout of ")
    assert "2 instances are replaced, 1 more at once at most" in means


def test_a_number_counts_unless_an_operator_wants_another_or_none(site: Site) -> None:
    site.write(replicas=4)
    assert site.means() == ["2 replicas become 4"]
    site.bench.reconciler.set_override(Override("chat", 3, 1000, 1.0))
    assert site.means() == ["its number stays 3: an operator's override holds"]
    site.bench.reconciler.pause(Pause("chat", 1000, 1.0))
    assert site.means() == ["it is paused: when it is resumed, it has 3 replicas"]


def test_what_needs_a_restart_says_so_and_the_rest_counts(site: Site) -> None:
    site.write(cluster="submits_per_hour = 9\nport_range = [20000, 20100]\n", more="[proxies.cloud]\n")
    preview = site.changes.preview()
    assert {row["field"]: row["needs_restart"] for row in preview["settings"]} == {
        "submits_per_hour": False,
        "port_range": True,
    }
    assert [(row["proxy"], row["change"]) for row in preview["proxies"]] == [("cloud", "new")]
    site.changes.take(site.changes.read(), 1000, "more room")
    assert set(site.proxies) == {"cloud"}
    event = site.bench.events[-1]
    assert (event.code, event.uid, event.detail) == ("config-reloaded", 1000, {"reason": "more room"})
    assert "proxy cloud new, submits_per_hour; a restart is needed for a change of port_range" in event.text
    assert event.text.endswith("; reason: more room")


def test_a_bad_file_tells_each_fault_with_its_key_and_changes_nothing(site: Site) -> None:
    site.write(chat="replicsa = 3\n", replicas=-1)
    preview = site.changes.preview()
    assert preview["changed"] is False
    assert {fault["key"] for fault in preview["faults"]} == {
        "services.chat.replicsa",
        "services.chat.replicas",
    }
    with pytest.raises(ConfigFaults):
        site.changes.read()
    site.changes.reload()
    assert site.bench.reconciler.desired.services["chat"].replicas == 2
    assert "config-bad" in site.bench.alarmed()
    site.write()
    site.changes.reload()
    assert "config-bad" not in site.bench.alarmed()


@pytest.mark.parametrize("change", [{"chat": 'environment = {A = "2"}\n'}, {"replicas": 3}])
def test_the_digest_tells_one_file_from_another(site: Site, change: dict[str, Any]) -> None:
    before = site.changes.preview()["digest"]
    site.write(**change)
    assert site.changes.preview()["digest"] != before
    site.write(more="# a comment\n")
    assert site.changes.preview()["digest"] == before


def test_a_file_that_is_gone_is_a_fault(site: Site, tmp_path: Path) -> None:
    site.file.unlink()
    (fault,) = site.changes.preview()["faults"]
    assert (fault["file"], fault["text"]) == (str(site.file), "there is no such file")
