"""Operators' orders to a running engine on the embedded cluster, through the command line, and what is told of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saia_engine.slurm.local.ledger import Files, transaction
from tests.unit.test_engine import ENGINE, Site, eventually

SERVICE = '[services.chat]\nmodels = ["m"]\nreplicas = 1\n'


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    site.configure(SERVICE)
    yield site
    site.close()


def saia(site: Site, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [*ENGINE, *arguments, "--config", str(site.config)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def revisions(site: Site) -> dict[str, dict]:
    answer = json.loads(saia(site, "revisions", "chat", "--json"))
    return {row["revision"]: row for row in answer["revisions"]}


def test_a_service_is_rolled_back_and_forward_again(site: Site) -> None:
    engine = site.run()
    site.ready(1)
    (old,) = eventually(lambda: [name for name, row in revisions(site).items() if row["good_at"]])
    site.configure(SERVICE + '[services.chat.environment]\nTOKEN = "hunter2"\n')
    engine.send_signal(signal.SIGHUP)
    eventually(lambda: len([row for row in revisions(site).values() if row["good_at"]]) == 2)
    (new,) = set(revisions(site)) - {old}

    with site.never_without_a_route():
        assert saia(site, "rollback", "chat") == f"chat: rolls back to {old} instead of {new}\n"
        eventually(lambda: {row["revision"] for row in site.ready(1).values()} == {old})
    row = site.get("state")["services"]["chat"]
    assert (row["revision"], row["pinned_to"]) == (old, old)
    told = saia(site, "explain", "chat")
    assert f"runs      revision {old} instead of {new} of the file" in told
    assert "hunter2" not in told + saia(site, "explain", "chat", "--json")
    (event,) = site.events("rollback")
    assert (event["subject"], event["uid"]) == ("chat", os.geteuid())

    assert saia(site, "unpin", "chat") == f"chat: back to {new} of the configuration\n"
    eventually(lambda: {row["revision"] for row in site.ready(1).values()} == {new})
    assert "chat is not rolled back" in saia(site, "unpin", "chat", code=1)
    assert "has no revision abcd" in saia(site, "rollback", "chat", "abcd", code=1)


def test_a_service_is_paused_and_comes_back_and_one_instance_is_cut(site: Site) -> None:
    site.run()
    site.ready(1)
    saia(site, "scale", "chat", "2")
    site.ready(2)
    assert "would be stopped" in saia(site, "pause", "chat", code=6)
    said = saia(site, "pause", "chat", "--yes", "--reason", "no GPUs \x1b[2J")
    assert said == "chat: paused, was 2 replicas\n"
    site.ready(0)
    row = site.get("state")["services"]["chat"]
    assert (row["status"], row["paused_by_uid"], row["paused_because"]) == (
        "paused",
        os.geteuid(),
        r"no GPUs \x1b[2J",
    )
    (event,) = site.events("paused")
    assert event["text"] == r"2 -> 0; reason: no GPUs \x1b[2J"
    assert "paused by uid" in saia(site, "status")
    assert r"(no GPUs \x1b[2J)" in saia(site, "explain", "chat")
    assert "resume it first" in saia(site, "scale", "chat", "1", code=1)
    assert saia(site, "resume", "chat") == "chat: 2 replicas desired\n"
    (one, other) = site.ready(2)
    assert "all that is open on it is cut" in saia(site, "cancel", one, code=6)
    answer = json.loads(saia(site, "cancel", one, "--yes", "--reason", "hangs", "--json"))
    assert answer == {"instance": one, "ready_left": 1}
    eventually(lambda: one in site.instances("stopped"))
    assert other in site.ready(2)
    assert {event["text"].split(":")[0] for event in site.events("cancel") if event["subject"] == one} <= {
        "at-once",
        "drained",
    }


def test_a_changed_file_is_looked_at_and_applied_and_a_bad_one_changes_nothing(site: Site) -> None:
    site.run()
    (name,) = site.ready(1)
    assert saia(site, "apply").endswith("nothing changed\n")
    site.configure(SERVICE.replace("replicas = 1", "replicsa = 1"))
    for command in ("diff", "apply"):
        # The configuration is bad for whoever looks for the socket in it.
        said = saia(site, command, "--socket", str(site.directory / "run/operator/operator.sock"), code=2)
        assert "services.chat.replicsa" in said
    assert "config-bad" not in site.alarms(), "who asks is told; it is no alarm for the others"
    assert set(site.ready(1)) == {name}
    site.configure(SERVICE.replace("replicas = 1", "replicas = 2"))
    assert "replicas: 1 -> 2" in saia(site, "diff")
    assert "it is in force" in saia(site, "apply", "--reason", "more")
    assert name in site.ready(2)
    (event,) = site.events("config-reloaded")
    assert (event["uid"], event["text"].endswith("; reason: more")) == (os.geteuid(), True)


def test_an_instance_is_replaced_without_a_gap(site: Site) -> None:
    site.run()
    (first,) = site.ready(1)
    with site.never_without_a_route():
        saia(site, "replace", first)
        eventually(lambda: first in site.instances("stopped"))
    (heir,) = site.ready(1)
    assert site.instances()[heir]["replaces"] == first
    assert "no living instance" in saia(site, "replace", first, code=2)


def test_instances_leave_an_excluded_node_and_none_comes(site: Site) -> None:
    site.run()
    (first,) = site.ready(1)
    node = site.instances()[first]["node"]
    with site.never_without_a_route():
        told = saia(site, "exclude", node, "--for", "1h", "--because", "ECC errors")
        assert told == f"{node}: no new jobs for 1h\n"
        assert f"excluded: {node}, no new jobs for " in saia(site, "status")
        eventually(lambda: first in site.instances("stopped"))
    site.post("services/chat/scale", replicas=2)
    (other,) = {row["node"] for row in site.ready(2).values()}
    assert other != node
    assert "no node left" in saia(site, "exclude", other, code=6)
    assert "there is no node nosuch" in saia(site, "exclude", "nosuch", code=1)
    assert saia(site, "include", node) == f"{node}: new jobs may go there again\n"
    assert "is not excluded" in saia(site, "include", node, code=1)
    by_us = [event for event in site.events("node-excluded") if event.get("uid") is not None]
    assert [(e["subject"], e["text"], e["uid"]) for e in by_us] == [(node, "ECC errors", os.geteuid())]


def test_a_freeze_holds_until_an_operator_ends_it(site: Site) -> None:
    site.configure(SERVICE.replace("replicas = 1", "replicas = 2"))
    site.run()
    before = set(site.ready(2))
    assert "nothing is frozen" in saia(site, "unfreeze", "--yes", code=1)
    with transaction(Files(site.directory / "state" / "local")) as ledger:
        forgotten = [ledger.jobs.pop(job.id) for job in list(ledger.jobs.values())]
    eventually(lambda: "mass-absence" in site.alarms())
    site.post("services/chat/scale", replicas=3)
    time.sleep(1.0)
    assert set(site.instances()) == before, "nothing is launched"
    assert "waits: chat: held back" in saia(site, "plan")
    assert "may run twice; to do it all the same, add --yes" in saia(site, "unfreeze", code=6)
    assert saia(site, "unfreeze", "--yes") == "cancels and launches go on\n"
    (third,) = eventually(lambda: set(site.instances("ready")) - before)
    assert "mass-absence" not in site.alarms()
    assert set(site.instances("lost")) == before, "their agents still answer"
    assert [job.name for job in site.running()] == [f"saia.{third}"]
    (event,) = site.events("unfrozen")
    assert event["uid"] == os.geteuid()
    for job in forgotten:
        os.kill(job.supervisor, signal.SIGTERM)


def test_a_story_is_told_whole_with_and_without_the_engine(site: Site) -> None:
    engine = site.run()
    (first,) = site.ready(1)
    saia(site, "drain", first, "--yes")
    eventually(lambda: first in site.instances("stopped"))
    site.ready(1)
    alive = json.loads(saia(site, "explain", first, "--json"))
    codes = [event["code"] for event in alive["events"]]
    assert codes[:2] == ["launch", "submitted"]
    assert {"instance-starting", "instance-ready", "drain", "cancel", "instance-stopped"} <= set(codes)
    launch, drain = alive["events"][0], next(e for e in alive["events"] if e["code"] == "drain")
    assert launch["detail"]["rule"] == "too-few"
    assert launch["detail"]["inputs"]["wanted"] == 1
    assert drain["uid"] == os.geteuid()
    engine.kill()
    engine.wait()
    done = subprocess.run(
        [*ENGINE, "explain", first, "--json", "--config", str(site.config)], capture_output=True, text=True
    )
    assert json.loads(done.stdout) == alive
    assert "no engine answers" in done.stderr and "this is what its journal tells" in done.stderr
    told = saia(site, "explain", first.rpartition(".")[2][:5])
    assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith("output "))
    assert "launch: too-few: " in told
    assert "inputs: have 0, wanted 1" in told
    service = saia(site, "explain", "chat")
    assert "runs      revision " in service
    assert first.split(".")[3] in service
