"""The gate as a process: its verbs, what it imports, what it keeps of its environment, its slots and its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from saia_engine.gate import slots
from saia_engine.gate.command import Refused, parse
from saia_engine.model import ProxyLimits
from saia_engine.wire.frames import MAGIC
from tests.unit.gate_support import Site

GATE = [sys.executable, "-I", "-m", "saia_engine.gate"]
RUNNING = 10.0


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    (site.directory / "slots").mkdir()
    site.publish()
    yield site
    site.close()


def run(site: Site, original: str | None, *more: str, proxy: str = "cloud", **environment: str):
    if original is not None:
        environment["SSH_ORIGINAL_COMMAND"] = original
    return subprocess.run(
        [*GATE, "--routes", str(site.path), "--proxy", proxy, *more],
        env=environment,
        input=b"",
        capture_output=True,
        timeout=RUNNING,
    )


def test_the_command_line_is_read_by_hand():
    line = ["--routes", "/r.json", "--proxy", "cloud"]
    assert parse(line, "relay") == ("/r.json", "cloud", "relay")
    assert parse([*line, "ping"], None) == ("/r.json", "cloud", "ping")
    for argv, original in [
        (line, None),
        (line, ""),
        (line, "ls"),
        (line, "relay "),
        (line, "relay; id"),
        (line, "ping\n"),
        (line, "relay relay"),
        ([*line, "ping"], "relay"),
        ([*line, "ping"], ""),
        ([*line, "ping", "ping"], None),
        (line[:3], "ping"),
        ([], "ping"),
        (["--routes", "r.json", "--proxy", "cloud"], "ping"),
        (["--routes", "/r.json", "--proxy", "../x"], "ping"),
        (["--proxy", "cloud", "--routes", "/r.json"], "ping"),
    ]:
        with pytest.raises(Refused):
            parse(argv, original)


@pytest.mark.parametrize(
    "original", ["", "ls", "relay; id", "ping ", "PING", "sh -c relay", "relay\n", "$(ping)", "\xff"]
)
def test_anything_but_the_two_verbs_is_one_line_and_exit_6(site: Site, original: str):
    answer = run(site, original)
    assert (answer.returncode, answer.stdout, answer.stderr) == (6, b"saia-gate: refused\n", b"")


def test_no_verb_at_all_is_refused(site: Site):
    assert run(site, None).returncode == 6


def test_ping_tells_versions_and_the_routes(site: Site):
    answer = run(site, "ping")
    assert answer.returncode == 0
    assert re.fullmatch(rb"saia-gate 0\.\S+ wire 1 routes 1 age \d+s\n", answer.stdout)
    assert re.sub(rb"\d+s", b"", run(site, None, "ping").stdout) == re.sub(rb"\d+s", b"", answer.stdout)


def test_an_unnamed_proxy_is_refused_whatever_it_asks(site: Site):
    for verb in ("ping", "relay"):
        answer = run(site, verb, proxy="stranger")
        assert (answer.returncode, answer.stdout) == (6, b"saia-gate: refused\n")


def test_bad_routes_are_said_without_a_word_of_them(site: Site):
    site.path.write_text('{"version": "secret"}')
    ping, relay = run(site, "ping"), run(site, "relay")
    assert (ping.returncode, relay.returncode) == (1, 1)
    assert ping.stdout.endswith(b" routes unreadable\n")
    assert relay.stdout == b"saia-gate: the routes are not readable\n"
    assert ping.stderr == relay.stderr == b""


PROBE = """
import os, runpy, sys
before = set(sys.modules)
os.environ["SSH_ORIGINAL_COMMAND"] = {verb!r}
sys.argv = ["gate", "--routes", {routes!r}, "--proxy", "cloud"]
os._exit = lambda code: print(code, *sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}),
                              "|", *sorted(n for n in sys.modules if n.startswith("saia_engine")), "|", *os.environ)
runpy.run_module("saia_engine.gate", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(("verb", "code"), [("ping", "0"), ("id", "6")])
def test_the_standard_library_is_enough_for_a_ping_and_a_no(site: Site, verb: str, code: str):
    probe = PROBE.format(verb=verb, routes=str(site.path))
    answer = subprocess.run(
        [sys.executable, "-I", "-c", probe],
        env={"LD_PRELOAD": "", "LC_ALL": "C", "SSH_CONNECTION": "a b", "SECRET": "x"},
        capture_output=True,
        text=True,
        timeout=RUNNING,
    )
    loaded, ours, environment = answer.stdout.splitlines()[-1].split("|")
    assert loaded.split()[0] == code
    assert set(loaded.split()[1:]) <= set(sys.stdlib_module_names) | {"saia_engine"}
    assert "saia_engine.gate.relay" not in ours and "saia_engine.routes" not in ours
    assert sorted(environment.split()) == ["SSH_CONNECTION", "SSH_ORIGINAL_COMMAND"]


def test_what_lies_in_the_working_directory_is_not_imported(site: Site, tmp_path: Path):
    for name in ("json", "msgspec", "saia_engine", "re"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    answer = subprocess.run(
        [*GATE, "--routes", str(site.path), "--proxy", "cloud"],
        env={
            "SSH_ORIGINAL_COMMAND": "ping",
            "PYTHONPATH": str(tmp_path),
            "PYTHONSTARTUP": str(tmp_path / "re.py"),
        },
        cwd=tmp_path,
        capture_output=True,
        timeout=RUNNING,
    )
    assert answer.returncode == 0


# ---------------------------------------------------------------- relays


class Started:
    """Relays as processes over pipes, ended with the test."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._running: list[subprocess.Popen[bytes]] = []

    def relay(self, **environment: str) -> subprocess.Popen[bytes]:
        lifeline = environment.get("SAIA_LIFELINE_FD")
        process = subprocess.Popen(
            [*GATE, "--routes", str(self._site.path), "--proxy", "cloud"],
            env={"SSH_ORIGINAL_COMMAND": "relay", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(int(lifeline),) if lifeline else (),
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def started(site: Site) -> Iterator[Started]:
    started = Started(site)
    yield started
    started.close()


def greeting(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return os.read(process.stdout.fileno(), len(MAGIC))


def test_a_relay_ends_with_its_input(started: Started):
    relay = started.relay()
    assert greeting(relay) == MAGIC
    output, errors = relay.communicate(timeout=RUNNING)
    assert relay.returncode == 0 and errors == b"" and b"saia-gate/" in output


def test_a_relay_above_the_limit_is_one_line_and_a_killed_one_frees_its_slot(site: Site, started: Started):
    site.limits = ProxyLimits(relays=2)
    site.publish()
    first, second = started.relay(), started.relay()
    assert greeting(first) == greeting(second) == MAGIC
    third = started.relay()
    output, errors = third.communicate(timeout=RUNNING)
    assert (third.returncode, errors) == (1, b"")
    assert output == b"saia-gate: limit: 2 relays of this proxy run already\n"
    first.kill()
    first.wait()
    assert greeting(started.relay()) == MAGIC


def test_a_relay_of_the_demo_ends_with_its_lifeline(started: Started):
    reading, writing = os.pipe()
    relay = started.relay(SAIA_LIFELINE_FD=str(reading))
    os.close(reading)
    assert greeting(relay) == MAGIC
    os.close(writing)
    assert relay.wait(timeout=5) == 0


def test_a_relay_raises_its_own_limit_of_open_files(started: Started):
    relay = started.relay()
    assert greeting(relay) == MAGIC
    limits = Path(f"/proc/{relay.pid}/limits").read_text()
    soft, hard = next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5]
    assert int(soft) == min(int(hard), 65536)


def test_garbage_ends_a_relay_without_a_word(started: Started):
    relay = started.relay()
    output, errors = relay.communicate(b"GET / HTTP/1.1\r\n\r\n", timeout=RUNNING)
    assert relay.returncode == 0 and errors == b"" and output.startswith(MAGIC)


def test_input_that_cannot_be_waited_for_is_said(site: Site):
    with Path(os.devnull).open("rb") as null:
        answer = subprocess.run(
            [*GATE, "--routes", str(site.path), "--proxy", "cloud", "relay"],
            stdin=null,
            capture_output=True,
            env={},
        )
    assert answer.returncode == 1 and b"must be pipes or sockets" in answer.stdout


# ---------------------------------------------------------------- slots


def test_slots_are_counted_per_proxy_and_freed_with_their_descriptor(site: Site):
    held = [slots.take(site.path, "k7f3", "cloud", 2) for _ in range(2)]
    with pytest.raises(slots.NoSlot):
        slots.take(site.path, "k7f3", "cloud", 2)
    other = slots.take(site.path, "k7f3", "other", 2)
    os.close(held[0])
    again = slots.take(site.path, "k7f3", "cloud", 2)
    for descriptor in (held[1], other, again):
        os.close(descriptor)


def test_without_a_directory_beside_the_routes_one_of_our_own_is_used(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(slots, "SHARED_MEMORY", tmp_path)
    os.close(slots.take(Path("/nonexistent/routes.json"), "k7f3", "cloud", 1))
    own = tmp_path / f"saia-gate-{os.geteuid()}-k7f3"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o755)
    with pytest.raises(slots.SlotsFault, match="not ours alone"):
        slots.take(Path("/nonexistent/routes.json"), "k7f3", "cloud", 1)


def test_a_link_in_the_place_of_a_slot_is_not_followed(site: Site):
    target = Path(tempfile.mkdtemp(dir="/tmp")) / "victim"
    (site.directory / "slots" / "cloud.0").symlink_to(target)
    with pytest.raises(slots.SlotsFault):
        slots.take(site.path, "k7f3", "cloud", 1)
    assert not target.exists()
    target.parent.rmdir()
