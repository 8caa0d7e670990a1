"""saia-proxy as a program: its exit codes, its words, its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from saia_proxy.config import hash_key

ROOT = Path(__file__).parents[2]
KEY = "sk-saia-test"
GATE = '["{saia_python}", "-m", "tests.unit.proxy_gate"]'


def write_config(directory: Path, *, port: int = 0, command: str = GATE) -> Path:
    file = directory / "proxy.toml"
    file.write_text(
        f'[server]\nport = {port}\nstate_dir = "state"\n'
        f'[[upstreams]]\nname = "here"\ntransport = "subprocess"\ncommand = {command}\n'
        f'[keys.test]\nhash = "{hash_key(KEY)}"\n'
    )
    return file


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "saia_proxy.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )


@contextmanager
def started(file: Path, **more) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running proxy with its gate connected, and its address."""
    log = file.parent / "log"
    process = subprocess.Popen(
        [sys.executable, "-m", "saia_proxy.cli", "run", "--config", str(file), "--log-file", str(log)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        **more,
    )
    try:
        yield process, _address(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(5)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(400):
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        events = {line["event"]: line for line in lines}
        if {"upstream connected", "listening"} <= events.keys():
            return f"http://127.0.0.1:{events['listening']['port']}"
        assert process.poll() is None
        time.sleep(0.025)
    raise AssertionError("no upstream was connected")


def test_check_prints_a_summary_or_every_fault(tmp_path):
    good = write_config(tmp_path)
    checked = call("check", good)
    assert checked.returncode == 0
    assert "upstream here" in checked.stdout
    good.write_text(good.read_text().replace("state_dir", "state_dri") + 'colour = "red"\n')
    checked = call("check", good)
    assert checked.returncode == 2
    assert "state_dri" in checked.stderr and "colour" in checked.stderr
    assert "Traceback" not in checked.stderr


def test_new_key_prints_lines_that_work(tmp_path):
    made = call("new-key", "alice")
    assert made.returncode == 0
    key = re.search(r"sk-saia-\S+", made.stdout)
    assert key
    lines = made.stdout[made.stdout.index("[keys.alice]") :]
    file = write_config(tmp_path)
    file.write_text(file.read_text() + lines)
    assert call("check", file).returncode == 0
    with started(file) as (_, url):
        headers = {"authorization": f"Bearer {key.group()}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).json()["data"][0]["id"] == "llama"
    assert call("new-key", "no good]").returncode == 2


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (GATE, 0, "connected to test-gate/1"),
        ('["sh", "-c", "echo hello; sleep 5"]', 7, "unexpected output before the handshake"),
        (
            '["sh", "-c", "echo saia-gate: proxy x is not known"]',
            7,
            "refused by the gate: saia-gate: proxy x",
        ),
        ('["sh", "-c", "echo oh no >&2; exit 9"]', 7, "the gate ended with status 9: oh no"),
        ('["/no/such/program"]', 7, "cannot run /no/such/program"),
    ],
    ids=["good", "prints", "refuses", "ends", "absent"],
)
def test_ping_says_what_is_wrong(tmp_path, command, code, words):
    result = call("ping", "--config", write_config(tmp_path, command=command))
    assert (result.returncode, words in result.stdout + result.stderr) == (code, True), result
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_exit_code_4(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = call("run", "--config", write_config(tmp_path, port=taken.getsockname()[1]))
    assert result.returncode == 4
    assert "is taken" in result.stderr and "Traceback" not in result.stderr


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "state").write_text("a file")
    result = call("run", "--config", write_config(tmp_path))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


async def test_sigterm_lets_a_request_end_and_exits_0(tmp_path):
    with started(write_config(tmp_path)) as (process, url):
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client:
            body = {"model": "llama", "answer_after_s": 1.0}
            request = asyncio.create_task(client.post("/v1/completions", json=body))
            while (await client.get("/healthz")).json()["in_flight"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert (await request).status_code == 200
        assert await asyncio.to_thread(process.wait, 5) == 0


def test_the_access_log_holds_no_body_and_no_key(tmp_path):
    with started(write_config(tmp_path)) as (process, url):
        body = {"model": "llama", "secret-of-the-client": 1}
        httpx.post(f"{url}/v1/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
        process.terminate()  # its line is written after the answer
        process.wait(20)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    [record] = [line for line in lines if line["event"] == "request"]
    assert record["key"] == "test" and record["model"] == "llama" and record["instance"] == "one"
    assert record["status"] == 200 and record["bytes"] > 0 and record["ms"] > 0
    assert "secret-of-the-client" not in json.dumps(lines) and KEY not in json.dumps(lines)


def test_the_end_of_the_lifeline_ends_proxy_and_gate(tmp_path):
    reading, writing = os.pipe()
    environment = {**os.environ, "SAIA_LIFELINE_FD": str(reading)}
    with started(write_config(tmp_path), env=environment, pass_fds=(reading,)) as (process, _):
        os.close(reading)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        gates = [Path(f"/proc/{child}") for child in children]
        assert gates
        os.close(writing)
        process.wait(5)
        deadline = time.monotonic() + 5
        while any(gate.exists() for gate in gates) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(gate.exists() for gate in gates)


def test_textual_and_the_engine_are_never_loaded_and_asyncssh_only_for_ssh():
    code = (
        "import sys, saia_proxy.cli, saia_proxy.server, saia_proxy.ping, saia_proxy.transports.subprocess\n"
        "ours = {n for n in sys.modules if n.startswith('saia_engine.')}\n"
        "allowed = ('saia_engine.wire', 'saia_engine.edge')\n"
        "print(sorted(n for n in ours if not n.startswith(allowed)),"
        " [n for n in ('textual', 'asyncssh', 'saia_tui') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] []"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_systemd_unit_is_sound():
    unit = ROOT / "proxy" / "saia-proxy.service"
    verified = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
