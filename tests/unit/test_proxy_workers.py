"""Several worker processes on one port, as a program: real processes, real kills."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.slurm.cluster import free_ports
from tests.unit.test_proxy_cli import KEY, ROOT, call, started, write_config

HEADERS = {"authorization": f"Bearer {KEY}"}
BODY = {"model": "llama"}


def two_workers(directory: Path, **key: int) -> Path:
    file = write_config(directory)
    limits = "".join(f"{name} = {value}\n" for name, value in key.items())
    file.write_text(file.read_text().replace("[server]\n", "[server]\nworkers = 2\n") + limits)
    return file


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition: Callable[[], object], within_s: float = 30) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def ask(url: str) -> int:
    """A request over a connection of its own: 0 where there was none, or no answer."""
    try:
        return httpx.post(f"{url}/v1/completions", json=BODY, headers=HEADERS, timeout=10).status_code
    except httpx.TransportError:
        return 0


def both_serve(url: str) -> None:
    """Each worker has its own tunnel; of many connections in a row some meet each of them."""
    until(lambda: [ask(url) for _ in range(30)] == [200] * 30)


def figure(url: str, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def counted(url: str) -> float:
    return figure(url, "saia_proxy_requests_total", status="200")


def test_workers_share_the_port_and_their_figures(tmp_path: Path):
    with started(two_workers(tmp_path)) as (process, url):
        assert len(children(process.pid)) == 2
        both_serve(url)
        before = counted(url)
        assert [ask(url) for _ in range(20)] == [200] * 20
        until(lambda: counted(url) == before + 20)
        assert {counted(url) for _ in range(20)} == {before + 20}, "whichever is asked tells the sum"
        process.terminate()
        assert process.wait(20) == 0


def test_a_worker_that_is_killed_is_started_again_and_the_other_serves_on(tmp_path: Path):
    with started(two_workers(tmp_path)) as (process, url):
        both_serve(url)
        before = counted(url)
        victim, other = children(process.pid)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(children(process.pid)) == 2 and victim not in children(process.pid))
        assert other in children(process.pid)
        both_serve(url)
        assert counted(url) > before, "what it had counted still counts"
        process.terminate()
        assert process.wait(20) == 0


def test_no_client_meets_a_worker_that_has_no_gate_yet(tmp_path: Path):
    with started(two_workers(tmp_path)) as (process, url):
        both_serve(url)
        for _ in range(2):  # the second time the keeper waits a second, and all is with the other one
            victim, _ = children(process.pid)
            os.kill(victim, signal.SIGKILL)
            until(lambda gone=victim: gone not in children(process.pid))
            seen = {ask(url)}
            while figure(url, "saia_proxy_upstream_connections") < 4:
                seen |= {ask(url) for _ in range(5)}
            assert seen == {200}
        both_serve(url)


def test_workers_that_reach_no_gate_take_clients_after_a_while_to_tell_them(tmp_path: Path):
    file = two_workers(tmp_path)
    [port] = free_ports(1)
    text = file.read_text().replace('"tests.unit.proxy_gate"', '"no.such.module"')
    file.write_text(text.replace("port = 0", f"port = {port}"))
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "saia_proxy.cli", "run", "--config", str(file)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ask(url) == 503)
    finally:
        process.kill()
        process.wait(5)


def test_the_workers_end_with_their_keeper_however_it_ends(tmp_path: Path):
    with started(two_workers(tmp_path)) as (process, _):
        workers = children(process.pid)
        process.kill()
        process.wait(5)
        until(lambda: not any(alive(pid) for pid in workers))


def test_a_keys_limits_hold_over_all_workers(tmp_path: Path):
    with started(two_workers(tmp_path, requests_per_minute=40)) as (process, url):
        began_at = time.time()
        statuses = [ask(url) for _ in range(120)]
        # Each worker of its own would have let 40 pass. Where the minute turns on the way, time frees some.
        ended_at = time.time()
        freed = 0 if began_at // 60 == ended_at // 60 else 1 + 40 * (ended_at - began_at) / 60
        assert 40 <= statuses.count(200) <= 40 + freed
        process.terminate()
        process.wait(20)


def test_a_taken_port_is_said_before_any_worker_starts(tmp_path: Path):
    with started(two_workers(tmp_path)) as (_, url):
        other = two_workers(tmp_path)
        port = url.rpartition(":")[2]
        other.write_text(other.read_text().replace("port = 0", f"port = {port}"))
        result = call("run", "--config", other)
    assert (result.returncode, "is taken" in result.stderr) == (4, True)


def test_a_bad_certificate_is_said_before_any_worker_starts(tmp_path: Path):
    file = two_workers(tmp_path)
    (tmp_path / "cert").write_text("no certificate")
    tls = '[server]\ntls_certificate = "cert"\ntls_key = "cert"\n'
    file.write_text(file.read_text().replace("[server]\n", tls))
    result = call("run", "--config", file)
    assert result.returncode == 2
    assert "TLS certificate" in result.stderr and "Traceback" not in result.stderr
