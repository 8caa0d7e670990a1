"""Who may give orders, and what the words of jobs and their names are worth."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.accounts import Account
from tests.e2e.site import MODEL, Site

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd]

SETTLE_S = 7.0
"""More than three polls."""


@pytest.fixture
def settled(site: Site) -> Iterator[Site]:
    """The standing site, found and left with two ready instances."""
    site.wait_settled(2)
    yield site
    site.cluster.run("scancel", f"--user={site.stranger.name}", check=False)


def answer(site: Site) -> str:
    """Of one request through the whole chain."""
    response = httpx.post(
        f"{site.url}/completions",
        headers={"authorization": f"Bearer {site.api_key}"},
        json={"model": MODEL, "prompt": "count", "max_tokens": 3, "tokens_per_second": 1000},
        timeout=20,
    )
    return response.json()["choices"][0]["text"]


def as_it_was(site: Site, before: list[dict[str, Any]], since: int) -> None:
    """The same two instances serve, and the engine has not acted since the event of that number."""
    assert places(site.instances("ready")) == places(before)
    acts = {"launch", "drain", "cancel", "submitted", "adopted"}
    assert [e for e in site.events() if e["seq"] > since and e["code"] in acts] == []
    assert answer(site) == " 1 2 3"


def places(rows: list[dict[str, Any]]) -> set[tuple[str, int, str]]:
    return {(row["id"], row["job_id"], row["node"]) for row in rows}


def newest_event(site: Site) -> int:
    return max(event["seq"] for event in site.events())


# ---------------------------------------------------------------- operators


@pytest.mark.timeout(180)
def test_others_are_refused_at_operator_sock(settled: Site):
    site, before = settled, newest_event(settled)
    for account in (site.stranger, site.gate, site.proxy):
        asked = site.command(
            "scale", "chat", "0", "--yes", "--socket", str(site.operator_socket), account=account
        )
        assert asked.returncode == 6
        assert f"you may not open {site.operator_socket}" in asked.stderr
        curl = account.argv(
            "curl", "-sS", "--max-time", "5", "--unix-socket", str(site.operator_socket), "http://e/v1/state"
        )
        done = subprocess.run(curl, capture_output=True, text=True, cwd="/")
        assert done.returncode == 7 and done.stdout == ""
    assert [e for e in site.events("scale") if e["seq"] > before] == []
    assert settled.state()["services"]["chat"]["replicas"] == 2


@pytest.mark.timeout(180)
def test_the_audit_names_who_asked(settled: Site):
    site = settled
    socket = ("--socket", str(site.operator_socket))
    assert site.operators in site.operator.groups
    asked = site.command("scale", "chat", "3", *socket, account=site.operator)
    assert asked.returncode == 0, asked.stderr
    try:
        site.wait("the audit", lambda: site.events("scale"))
        assert site.events("scale")[-1]["uid"] == site.operator.uid
        assert site.state()["services"]["chat"]["override_by_uid"] == site.operator.uid
        site.wait_ready(3)
    finally:
        back = site.command("scale", "chat", "config", *socket)
    assert back.returncode == 0, back.stderr
    site.wait_settled(2)
    assert site.events("override-cleared")[-1]["uid"] == os.geteuid()
    # An act of the engine's own has no uid.
    assert "uid" not in site.events("cancel")[-1]


@pytest.mark.timeout(180)
def test_the_gates_socket_takes_no_orders(settled: Site):
    site = settled
    socket = site.dir / "run" / "gate" / "gate.sock"
    url = "http://engine/v1/services/chat/scale"
    curl = ["curl", "-sS", "--max-time", "5", "--unix-socket", str(socket), "-d", '{"replicas": 0}', url]
    done = subprocess.run(site.gate.argv(*curl), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0 and json.loads(done.stdout)["error"]["code"] == "no_such_call"
    stranger = subprocess.run(site.stranger.argv(*curl), capture_output=True, text=True, cwd="/")
    assert stranger.returncode == 7
    assert site.state()["services"]["chat"]["replicas"] == 2


# ---------------------------------------------------------------- jobs


@pytest.mark.timeout(180)
def test_an_endpoint_file_that_names_another_address_changes_nothing_but_raises_an_alarm(settled: Site):
    site = settled
    before, since = site.instances("ready"), newest_event(settled)
    routes = json.loads(site.routes.read_text())["routes"]
    victim = before[0]
    file = site.dir / "shared" / "instances" / victim["id"] / "endpoint.0.json"
    good = file.read_text()
    forged = json.loads(good) | {"host": "192.0.2.66"}
    # By the hand that a job has: another job of the same Slurm user.
    rewrite = f"cat > {file} <<'END'\n{json.dumps(forged)}\nEND\n"
    submit_as(site, site.engine, "rewriter", rewrite)
    site.wait("the file to be rewritten", lambda: "192.0.2.66" in file.read_text())

    def alarms() -> list[dict[str, Any]]:
        rows = site.state()["alarms"].values()
        return [row for row in rows if row["subject"] == victim["id"]]

    site.wait("an alarm", alarms, 30)
    [alarm] = alarms()
    assert alarm["code"] == "agent-fault" and "changed" in alarm["text"]
    assert json.loads(site.routes.read_text())["routes"] == routes
    as_it_was(site, before, since)
    # A restarted engine reads the file anew, and still believes Slurm.
    site.kill_engine()
    site.start_engine()
    site.wait("the address in it", lambda: any("192.0.2.66" in alarm["text"] for alarm in alarms()), 30)
    time.sleep(SETTLE_S)
    assert "192.0.2.66" not in site.routes.read_text()
    as_it_was(site, before, since)
    file.write_text(good)


@pytest.mark.timeout(180)
def test_job_names_that_forge_rows_or_tokens_change_nothing(settled: Site):
    site = settled
    before, since = site.instances("ready"), newest_event(settled)
    real = before[0]
    token = f"saia.{real['id']}"
    user = site.engine.name
    names = [
        # A second row for the instance's own job, as squeue's delimiters would have it: ended, elsewhere.
        f"x\n{real['job_id']}|CANCELLED|{user}|gpu|None|{token}",
        f"{real['job_id']}|COMPLETED|{token}\n{real['job_id']}|COMPLETED|{token}",
        # The token itself, and one of an instance that there never was.
        token,
        f"saia.{real['id'].rpartition('.')[0]}.deadbeef",
        "saia.\x1b[2J\n\n.hpc.chat.x",
    ]
    jobs = [submit_as(site, site.stranger, name, "sleep 60\n") for name in names]
    time.sleep(SETTLE_S)
    as_it_was(site, before, since)
    shown = site.state()["jobs"]
    for job in jobs:
        row = shown[str(job)]
        assert row["user"] == site.stranger.name and row["state"] == "RUNNING" and not row.get("instance")
    assert shown[str(real["job_id"])]["instance"] == real["id"]
    still = site.cluster.run(
        "squeue", "-h", "-t", "RUNNING", "-u", site.stranger.name, "-o", "%A"
    ).stdout.split()
    assert {int(job) for job in still} == set(jobs), "jobs of others are left alone"


def submit_as(site: Site, account: Account, name: str, script: str) -> int:
    """A real job by real sbatch; its id."""
    argv = account.argv("sbatch", "--parsable", "--output=/dev/null", "--chdir=/", f"--job-name={name}")
    done = subprocess.run(
        argv,
        input=f"#!/bin/sh\n{script}",
        env=site.cluster.environment | {"HOME": "/", "USER": pwd.getpwuid(account.uid).pw_name},
        capture_output=True,
        text=True,
        cwd=Path("/"),
        check=True,
    )
    return int(done.stdout)
