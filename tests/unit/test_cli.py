"""`saia-engine` as its users meet it: a process, its output and its exit code."""

import asyncio
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from saia_engine import cli
from saia_engine.cli import running
from saia_engine.cli.asking import pick_instance
from saia_engine.view import NodeView, ServiceView
from tests.unit.fake_engine import Served, served

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_configs" / "slurm-minimal" / "engine.toml"
UNIT = ROOT / "sample_configs" / "systemd" / "saia-engine.service"


async def saia(*arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saia_engine.cli", *arguments),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment},
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


@pytest.fixture
async def api():
    async with served() as running:
        yield running


async def told(api: Served, *arguments: str, **options) -> tuple[int, str, str]:
    return await saia(*arguments, "--socket", str(api.operator), **options)


def configured(directory: Path) -> str:
    """A configuration whose sockets lie in the directory's `run`."""
    file = directory / "engine.toml"
    file.write_text(
        '[cluster]\nname = "hpc"\nkind = "local"\nshared_dir = "shared"\nstate_dir = "state"\nruntime_dir = "run"\n'
        "[proxies.cloud]\n"
    )
    return str(file)


async def test_status_shows_the_worst_first_and_nothing_hostile(api: Served):
    api.engine.alarm("job \x1b]52;c;x\x07 is\nCRITICAL forged \u202e", severity="warning")
    code, output, errors = await told(api, "status")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith("hpc (i1) on login1 (pid "), lines[0]
    assert ", saia 0.1.0, up " in lines[0]
    assert lines[2].startswith(r"! WARNING s: job \x1b]52;c;x\x07 is\nCRITICAL forged \u202e (a, for ")
    assert all(line.isprintable() for line in lines)
    header = next(line for line in lines if line.startswith("INSTANCE"))
    row = next(line for line in lines if line.startswith("chat.aaaa0001"))
    for column in ("STATE", "LEFT", "JOB"):
        assert row[header.index(column) - 1] == " " != row[header.index(column)]
    assert "  1h  " in row
    assert lines.index(row) > lines.index(header)


async def test_status_json_holds_every_field(api: Served):
    code, output, _ = await told(api, "status", "--json")
    state = json.loads(output)
    assert code == 0
    assert state["services"]["chat"]["ready"] == 0
    assert state["engine"]["engine"]["cluster"] == "hpc"
    assert sorted(state["instances"]) == sorted(api.engine.instances)


async def test_plan_in_words_and_json(api: Served):
    assert await told(api, "plan") == (0, "launch chat: 1 of 2 (missing)\n", "")
    _, output, _ = await told(api, "plan", "--json")
    assert json.loads(output) == api.engine.plan()


async def test_plan_tells_what_decided_an_act_and_what_was_refused(api: Served, monkeypatch):
    inputs = {"have": 1, "time_limit": 5400, "heir": "i1.hpc.chat.aaaa0001"}
    refused = [{"alternative": "replace all at once", "because": "max_surge is 1"}]
    waits = {"rule": "back-off", "text": "failed", "inputs": {"until": 1.7e9}, "refused": []}
    plan = {
        "actions": [
            {"act": "launch", "subject": "chat", "rule": "rollout", "text": "x" * 10, "inputs": inputs}
            | {"refused": refused}
        ],
        "waiting": [waits],
        "alarms": [{"code": "c", "severity": "warning", "subject": "s", "text": "t"}],
    }
    monkeypatch.setattr(api.engine, "plan", lambda: plan)
    _, output, _ = await told(api, "plan", TZ="UTC")
    assert output.splitlines() == [
        "launch chat: xxxxxxxxxx (rollout)",
        "    inputs: have 1, time limit 1h 30m, heir chat.aaaa0001",
        "    not: replace all at once: max_surge is 1",
        "waits: failed (back-off)",
        "    inputs: until 2023-11-14 22:13:20",
        "warning: s: t",
    ]


async def test_status_tells_of_rollouts_leads_and_exclusions(api: Served):
    hub = api.engine.hub
    now = hub.row("engine", "engine").now
    hub.publish(
        "services",
        {
            "chat": ServiceView(
                name="chat", models=[], replicas=2, configured_replicas=2, lead_s=1500.0, rollout="1 of 2"
            ),
            "embed": ServiceView(name="embed", models=[], replicas=1, configured_replicas=1, lead_s=60.0),
        },
    )
    hub.publish(
        "nodes",
        {
            "gpu01": NodeView(name="gpu01", state="idle"),
            "gpu02": NodeView(
                name="gpu02", state="idle", excluded_until=now + 3600, excluded_because="2 \x1b failures"
            ),
        },
    )
    _, output, _ = await told(api, "status")
    lines = output.splitlines()
    assert "rollout of chat: 1 of 2" in lines
    assert "lead of replacements: chat 25m, embed 1m" in lines
    assert any(line.startswith("excluded: gpu02, no new jobs for 1h: 2 \\x1b") for line in lines), lines
    assert "gpu01" not in output.split("excluded: ")[1]


async def test_scale_and_back(api: Served):
    assert (await told(api, "scale", "chat", "3"))[0] == 0
    assert api.engine.overrides == {"chat": (3, os.geteuid())}
    assert (await told(api, "scale", "chat", "config"))[0] == 0
    assert api.engine.overrides == {}


async def test_an_undercut_needs_yes(api: Served):
    code, _, errors = await told(api, "scale", "chat", "0")
    assert code == 6
    assert errors.endswith("; to do it all the same, add --yes\n")
    assert api.engine.overrides == {}
    assert (await told(api, "scale", "chat", "0", "--yes"))[0] == 0
    assert api.engine.overrides["chat"][0] == 0


async def test_at_a_terminal_it_asks(api: Served):
    for answer, code, overrides in (
        (b"n\n", cli.INTERRUPTED, {}),
        (b"y\n", 0, {"chat": (0, os.geteuid())}),
    ):
        ours, theirs = pty.openpty()
        try:
            os.write(ours, answer)
            assert (await told(api, "scale", "chat", "0", stdin=theirs))[0] == code
            assert api.engine.overrides == overrides
        finally:
            os.close(ours)
            os.close(theirs)


async def test_drain_takes_the_end_of_an_id(api: Served):
    code, output, _ = await told(api, "drain", "aaaa0001")
    assert (code, output) == (0, "i1.hpc.chat.aaaa0001: drains\n")
    assert api.engine.drained == [(os.geteuid(), "i1.hpc.chat.aaaa0001")]
    code, _, errors = await told(api, "drain", "bb")
    assert code == 2
    assert "too short" in errors
    assert len(api.engine.drained) == 1


def test_pick_instance():
    ids = ["i1.hpc.chat.aa11", "i1.hpc.chat.aa22", "i1.hpc.rechat.aa11"]
    assert pick_instance("i1.hpc.chat.aa11", ids) == ids[0]
    assert pick_instance(".chat.aa11", ids) == ids[0]
    assert pick_instance("aa22", ids) == ids[1]
    for asked, says in (("aa11", "any of"), ("", "too short"), ("2", "too short"), ("chat", "no living")):
        with pytest.raises(click.UsageError, match=says):
            pick_instance(asked, ids)
    with pytest.raises(click.UsageError, match="no living"):
        pick_instance("aa11", [])


async def test_replace_takes_the_end_of_an_id(api: Served):
    code, output, _ = await told(api, "replace", "bbbb0002")
    assert (code, output) == (0, "i1.hpc.chat.bbbb0002: a new instance is to take over\n")
    assert api.engine.replaced == [(os.geteuid(), "i1.hpc.chat.bbbb0002")]


async def test_pause_and_resume(api: Served):
    code, _, errors = await told(api, "pause", "chat")
    assert (code, api.engine.paused) == (6, {})
    assert "chat would be stopped; to do it all the same, add --yes" in errors
    code, output, _ = await told(api, "pause", "chat", "--yes", "--reason", "GPUs for the course")
    assert (code, output) == (0, "chat: paused, was 2 replicas\n")
    assert api.engine.paused == {"chat": (os.geteuid(), "GPUs for the course")}
    assert await told(api, "resume", "chat") == (0, "chat: 2 replicas desired\n", "")
    assert (await told(api, "resume", "chat"))[0] == 1
    code, _, errors = await told(api, "pause", "chat", "--yes", "--reason", "x" * 201)
    assert (code, api.engine.paused) == (2, {})
    assert "at most 200 characters" in errors


async def test_cancel_takes_the_end_of_an_id_and_asks(api: Served):
    assert (await told(api, "cancel", "aaaa0001"))[0] == 6
    assert api.engine.cancelled == []
    code, output, _ = await told(api, "cancel", "aaaa0001", "--yes", "--json", "--reason", "hangs")
    assert (code, json.loads(output)) == (0, {"instance": "i1.hpc.chat.aaaa0001"})
    assert api.engine.cancelled == [(os.geteuid(), "i1.hpc.chat.aaaa0001")]
    assert api.engine.reasons == ["hangs"]


async def test_a_changed_file_is_shown_and_applied(api: Served):
    shown = [
        "service chat: changed",
        "    replicas: 2 -> 3",
        "    launch.environment.TOKEN: - -> (not shown)",
        "    => 2 replicas become 3",
        r"service old\x1b[2J: removed",
        "    => it ends",
        "proxy cloud: new",
        "submits_per_hour: 120 -> 240",
        "poll_interval_s: 15.0 -> 30.0 (counts after a restart of the engine)",
    ]
    code, output, _ = await told(api, "diff")
    assert (code, output.splitlines()) == (0, shown)
    assert json.loads((await told(api, "diff", "--json"))[1]) == api.engine.diff
    assert api.engine._events == []
    code, output, _ = await told(api, "apply", "--reason", "more chat")
    assert (code, output.splitlines()) == (0, [*shown, "it is in force"])
    assert api.engine._events == [(os.geteuid(), "config-reloaded", "config")]
    assert api.engine.reasons == ["more chat"]


async def test_a_bad_file_is_exit_2_with_its_faults_and_nothing_is_applied(api: Served):
    fault = {"file": "e.toml", "key": "services.chat.replicsa", "text": "is unknown\x1b"}
    api.engine.diff = {"file": "e.toml", "changed": False, "faults": [{**fault, "suggestion": "mend it"}]}
    for command in ("diff", "apply"):
        code, output, errors = await told(api, command)
        assert (code, output) == (2, "")
        assert errors == "saia-engine: e.toml: services.chat.replicsa: is unknown\\x1b; mend it\n"
    assert api.engine._events == []


async def test_rollback_and_back(api: Served):
    code, output, _ = await told(api, "rollback", "chat")
    assert (code, output) == (0, "chat: rolls back to aaaa00000001 instead of cccc00000003\n")
    code, output, _ = await told(api, "unpin", "chat")
    assert (code, output) == (0, "chat: back to cccc00000003 of the configuration\n")
    assert api.engine.pins == {}
    code, _, errors = await told(api, "rollback", "chat", "bbbb")
    assert (code, api.engine.pins) == (6, {})
    assert "has failed: never ready; to do it all the same, add --yes" in errors
    assert (await told(api, "rollback", "chat", "bbbb", "--yes"))[0] == 0
    assert api.engine.pins == {"chat": ("bbbb00000002", os.geteuid())}
    code, _, errors = await told(api, "rollback", "embed")
    assert (code, errors) == (1, "saia-engine: embed has no earlier revision to go back to\n")


async def test_exclude_and_include(api: Served):
    code, output, _ = await told(api, "exclude", "gpu01", "--because", "ECC errors")
    assert (code, output) == (0, "gpu01: no new jobs for 2h\n")
    assert api.engine.excluded == {"gpu01": (7200, "ECC errors", os.geteuid())}
    code, _, errors = await told(api, "exclude", "Gpu_02.x", "--for", "1d")
    assert code == 6
    assert "no node left; to do it all the same, add --yes" in errors
    assert (await told(api, "exclude", "Gpu_02.x", "--for", "1d", "--yes"))[0] == 0
    assert api.engine.excluded["Gpu_02.x"][0] == 86400
    assert (await told(api, "include", "gpu01"))[1] == "gpu01: new jobs may go there again\n"
    assert (await told(api, "include", "gpu01"))[0] == 1
    code, _, errors = await told(api, "exclude", "gpu01", "--for", "1 fortnight")
    assert code == 2
    assert "--for 1 fortnight: not a duration" in errors


async def test_unfreeze_is_asked_about(api: Served):
    assert (await told(api, "unfreeze", "--yes"))[0] == 1
    api.engine.frozen = True
    assert (await told(api, "unfreeze"))[0] == 6
    assert api.engine.frozen
    assert (await told(api, "unfreeze", "--yes"))[0] == 0
    assert not api.engine.frozen


async def test_revisions_in_words_and_json(api: Served):
    code, output, _ = await told(api, "revisions", "chat", TZ="UTC")
    assert code == 0
    assert output.splitlines() == [
        "revisions, the newest first:",
        "  cccc00000003  asked for 2023-11-15 00:43:20, the file's",
        "  aaaa00000001  asked for 2023-11-14 22:13:20, good since 2023-11-14 22:15:00,",
        "                run by 2 now",
        "                differs from cccc00000003 in command, gres",
    ]
    _, output, _ = await told(api, "revisions", "chat", "--json")
    assert json.loads(output) == api.engine.revisions("chat")


async def test_explain_an_instance_that_ended_long_ago(api: Served):
    for asked in ("dddd", "i1.hpc.chat.dddd0004"):
        code, output, errors = await told(api, "explain", asked, TZ="UTC")
        assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "instance  i1.hpc.chat.dddd0004",
        "service   chat, revision aaaa00000001",
        "job       4711 on gpu03, generation 1, limit 2h",
        "state     failed since 2023-11-14 22:28:20: the service exited with code 1",
        "          (Slurm: FAILED)",
        "times     created 2023-11-14 22:13:20, submitted 2023-11-14 22:13:21, started",
        "          2023-11-14 22:14:20, ended 2023-11-14 22:28:20",
        "replaces  chat.aaaa0001",
        "output    /shared/instances/i1.hpc.chat.dddd0004/output.log",
        "          | loading \\x1b[31mmodel",
        "          | CUDA out of memory",
        "",
        "2023-11-14 (UTC)",
        "22:13:20  launch: too-few: 1 of 2 replicas are there or on their way",
        "          inputs: have 1, wanted 2, lead 10m, until 22:13:30",
        "          not: waiting for gpu01: it is drained for a maintenance that begins",
        "               before the end",
        "22:28:20  WARNING instance-failed by root (uid 0): the service exited with code",
        "          1",
    ]
    _, output, _ = await told(api, "explain", "dddd", "--json")
    assert json.loads(output) == await api.engine.instance_story("i1.hpc.chat.dddd0004")


async def test_logs_shows_the_last_lines_without_what_a_terminal_obeys(api: Served):
    assert await told(api, "logs", "aaaa") == (0, "loading\nready \\xff\n", "")
    assert await told(api, "logs", "aaaa", "-n", "1") == (0, "ready \\xff\n", "")
    assert (await told(api, "logs", "aaaa", "-n", "0"))[1] == ""
    assert "launch: x" in (await told(api, "logs", "aaaa", "--events"))[1]
    assert api.engine.log_questions[-1].stream == "events"


async def test_logs_of_one_that_printed_nothing_is_exit_1(api: Served):
    code, output, errors = await told(api, "logs", "bbbb")
    assert (code, output) == (1, "") and "there is no i1.hpc.chat.bbbb0002" in errors


async def test_explain_a_service_with_the_engines_row(api: Served):
    code, output, _ = await told(api, "explain", "chat", TZ="UTC")
    assert code == 0
    assert output.splitlines()[:2] == [
        "service   chat, 2 replicas, ok",
        "runs      revision cccc00000003, as the file says",
    ]
    _, output, _ = await told(api, "explain", "chat", "--json")
    assert json.loads(output)["row"]["replicas"] == 2
    assert (await told(api, "explain", "gone"))[0] == 0
    code, _, errors = await told(api, "explain", "nosuch")
    assert code == 2
    assert "no service or instance is called nosuch" in errors


async def test_maintenance(api: Served):
    assert (await told(api, "maintenance", "cloud", "on"))[0] == 0
    assert api.engine.in_maintenance == {"cloud": True}
    assert (await told(api, "maintenance", "cloud", "off"))[0] == 0
    assert api.engine.in_maintenance == {"cloud": False}


async def test_keys_of_a_proxy(api: Served):
    code, output, _ = await told(api, "keys", "cloud")
    assert code == 0
    assert [line.split() for line in output.splitlines()] == [
        "KEY STATE AT-ONCE A-MINUTE IN-FLIGHT REQUESTS REFUSED MODELS ORDERED IN-FORCE BY".split(),
        *[
            line.split()
            for line in (
                r"alice revoked - 30 1 120 3 llama-3 service:\x1b[31mapp"
                " revoked, any number at once, 30 a minute yes uid 1000, 10m ago",
                "carol not there - - - - - - revoked not yet uid 0, 1s ago",
                "! cloud has not acknowledged the newest order yet",
            )
        ],
    ]
    _, output, _ = await told(api, "keys", "cloud", "--json")
    assert json.loads(output) == api.engine.keys("cloud")


async def test_orders_on_a_key(api: Served):
    ordered = api.engine.key_orders
    code, output, errors = await told(api, "key", "cloud", "alice", "revoke")
    assert (code, errors) == (0, "")
    assert output == "alice: revoked is asked for; `keys cloud` shows when it is in force\n"
    assert (await told(api, "key", "cloud", "alice", "limit", "--concurrency", "4", "--per-minute", "0"))[
        0
    ] == 0
    assert ordered["alice"] == {"revoked": True, "concurrency": 4, "per_minute": 0}
    assert (await told(api, "key", "cloud", "alice", "limit", "--per-minute", "config"))[0] == 0
    assert (await told(api, "key", "cloud", "alice", "restore"))[0] == 0
    assert ordered["alice"] == {"revoked": False, "concurrency": 4, "per_minute": None}
    assert (await told(api, "key", "cloud", "alice", "limit", "--clear"))[0] == 0
    assert ordered["alice"] == {"revoked": False, "concurrency": None, "per_minute": None}


async def test_an_order_on_a_key_that_the_proxy_has_not_told_of_says_so(api: Served):
    code, _, errors = await told(api, "key", "cloud", "alcie", "revoke")
    assert (code, api.engine.key_orders["alcie"]["revoked"]) == (0, True)
    assert errors == "saia-engine: cloud has no key alcie now: the order counts as soon as it has\n"
    assert "is away, or does not tell" in (await told(api, "key", "cloud", "bob", "revoke"))[2]


async def test_the_configuration_says_where_the_engine_is():
    async with served() as api:
        file = configured(api.directory)
        code, _, errors = await saia("status", "--config", file)
        assert (code, errors) == (0, "")
        assert (await saia("status", SAIA_CONFIG=file))[0] == 0


async def test_no_engine_is_exit_5(tmp_path: Path):
    for command in (
        ["status"],
        ["plan"],
        ["scale", "chat", "1"],
        ["drain", "x"],
        ["maintenance", "cloud", "on"],
        ["keys", "cloud"],
        ["key", "cloud", "alice", "revoke"],
        ["replace", "x"],
        ["rollback", "chat"],
        ["unpin", "chat"],
        ["exclude", "gpu01"],
        ["include", "gpu01"],
        ["unfreeze"],
        ["revisions", "chat"],
    ):
        code, output, errors = await saia(*command, "--config", configured(tmp_path))
        assert (code, output) == (5, ""), command
        assert errors.startswith("saia-engine: no engine answers at ")


async def test_not_found_is_exit_1(api: Served):
    for command in (["scale", "nosuch", "1"], ["maintenance", "nosuch", "on"]):
        assert await told(api, *command) == (1, "", "saia-engine: there is no nosuch\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_not_allowed_is_exit_6(api: Served):
    program = (
        "import os, sys; from saia_engine import cli\n"
        "assert cli.main(sys.argv[1:]) == 0\n"  # as root: now all modules are loaded
        "os.setegid(65534); os.seteuid(65534)\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "plan", "--socket", str(api.operator)),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    _, errors = await process.communicate()
    assert process.returncode == 6
    assert b"you may not open" in errors


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["statu"], "Did you mean 'status'?"),
        (["status", "--jsn"], "Did you mean '--json'?"),
        (["scale", "chat"], "Missing argument"),
        (["scale", "chat", "many"], "N must be a number of replicas"),
        (["scale", "chat", "\u0663"], "N must be a number of replicas"),
        (["maintenance", "cloud", "onn"], "'onn' is not one of 'on', 'off'"),
        (["key", "cloud", "alice", "revok"], "'revok' is not one of 'revoke', 'restore', 'limit'"),
        (["key", "cloud", "alice", "limit"], "limit takes --concurrency"),
        (["key", "cloud", "alice", "revoke", "--clear"], "nothing else does"),
        (["key", "cloud", "alice", "limit", "--clear", "--per-minute", "3"], "or --clear"),
        (["key", "cloud", "alice", "limit", "--per-minute", "-3"], "--per-minute must be a number"),
        (["demo", "--seconds", "0"], "Invalid value"),
        (["check", "/nosuch/engine.toml"], "/nosuch/engine.toml: there is no such file"),
        (["run", "--config", "/nosuch/engine.toml"], "there is no such file"),
        (["takeover", "--config", "/nosuch/engine.toml"], "there is no such file"),
        (["status", "--config", "/nosuch/\x1b[2Jx"], r"/nosuch/\x1b[2Jx: there is no such file"),
        (["gate-key", "k", "--proxy", "clowd", "--config", str(SAMPLE)], "did you mean cloud?"),
    ],
)
async def test_wrong_usage_is_exit_2(arguments: list[str], says: str):
    code, output, errors = await saia(*arguments)
    assert (code, output) == (2, "")
    assert says in errors
    assert "Traceback" not in errors
    assert all(line.startswith("saia-engine: ") and line.isprintable() for line in errors.splitlines())


async def test_alone_it_shows_its_commands():
    code, _, errors = await saia()
    assert code == 2
    for command in (
        "check",
        "run",
        "status",
        "scale",
        "drain",
        "maintenance",
        "plan",
        "takeover",
        "gate-key",
        "demo",
        "explain",
        "revisions",
        "replace",
        "rollback",
        "unpin",
        "exclude",
        "include",
        "unfreeze",
    ):
        assert f"  {command} " in errors
    assert (await saia("--help"))[0] == 0
    assert (await saia("--version"))[1].startswith("saia-engine, version ")


async def test_check_says_what_a_file_says_and_all_its_faults(tmp_path: Path):
    code, output, _ = await saia("check", str(SAMPLE))
    assert code == 0
    assert "service hello" in output
    bad = tmp_path / "bad.toml"
    bad.write_text('[cluster]\nname = "A B"\nshared_dirr = "x"\n')
    code, output, errors = await saia("check", str(bad))
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) >= 3
    assert "did you mean shared_dir?" in errors


async def test_a_reader_that_leaves_is_no_traceback(api: Served):
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m saia_engine.cli status --socket {api.operator} | true",
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    _, errors = await process.communicate()
    assert errors == b""


def test_what_nobody_expected_is_one_line_and_the_traceback_on_request(monkeypatch, capsys):
    def broken(file: Path) -> None:
        raise RuntimeError("odd\nthing")

    monkeypatch.setattr(running, "load", broken)
    monkeypatch.delenv("SAIA_DEBUG", raising=False)
    assert cli.main(["check", "x"]) == 1
    assert capsys.readouterr().err == (
        "saia-engine: unexpected error: RuntimeError: odd thing\n"
        "saia-engine: run with SAIA_DEBUG=1 for the traceback\n"
    )
    monkeypatch.setenv("SAIA_DEBUG", "1")
    assert cli.main(["check", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_each_error_in_the_table_of_exit_codes_exists():
    import importlib

    for name in cli.EXIT_CODES:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception)


async def test_help_loads_nothing_heavy():
    program = (
        "import sys; from saia_engine import cli; cli.main(['--help'])\n"
        "print([m for m in ('httpx', 'pydantic', 'starlette', 'uvicorn', 'sqlite3', 'asyncio') if m in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, cwd=ROOT
    )
    output, _ = await process.communicate()
    assert output.decode().splitlines()[-1] == "[]"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
async def test_the_systemd_unit_is_sound(tmp_path: Path):
    program = tmp_path / "saia-engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert text.count("ExecStart=/opt/saia/bin/saia-engine run ") == 1
    unit.write_text(text.replace("/opt/saia/bin/saia-engine", str(program)))
    process = await asyncio.create_subprocess_exec(
        "systemd-analyze", "verify", str(unit), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b"")
