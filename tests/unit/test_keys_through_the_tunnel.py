"""Orders on API keys through all of it, as processes: command line, engine, the real gate, a proxy of two workers."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from saia_proxy.config import hash_key
from tests.unit.test_engine import Site, eventually
from tests.unit.test_orders import saia
from tests.unit.test_proxy_cli import ROOT
from tests.unit.test_proxy_workers import children

SERVICE = '[services.chat]\nmodels = ["m"]\nreplicas = 1\n'
ALICE, BOB = "sk-saia-alice", "sk-saia-bob"
PROMISED_S = 2.0
WITHOUT_WAITING_S = 0.5
"""The median, were an order only told with the report of the next second."""
ROUNDS = 7
RELAYS = 4
"""Two workers, each with two connections."""
CONNECTIONS = 12
"""Each new one meets any of the workers."""


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="saia-", dir="/tmp")))
    site.configure(SERVICE)
    yield site
    site.close()


@contextmanager
def proxy_of(site: Site) -> Iterator[tuple[str, int]]:
    """Its address, once it listens, and its process."""
    routes = str(site.directory / "state" / "gate" / "routes.json")
    gate = ["{saia_python}", "-I", "-m", "saia_engine.gate", "--routes", routes, "--proxy", "cloud"]
    file, log = site.directory / "proxy.toml", site.directory / "proxy.log"
    file.write_text(
        '[server]\nport = 0\nworkers = 2\nstate_dir = "run/proxy"\n'
        f'[[upstreams]]\nname = "here"\ntransport = "subprocess"\ncommand = {json.dumps(gate)}\n'
        f'[keys.alice]\nhash = "{hash_key(ALICE)}"\nconcurrency = 4\n'
        f'[keys.bob]\nhash = "{hash_key(BOB)}"\nmodels = ["m"]\n'
    )
    log.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "saia_proxy.cli", "run", "--config", str(file), "--log-file", str(log)]
    process = subprocess.Popen(argv, cwd=ROOT)

    def port() -> int | None:
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        ports = [line["port"] for line in lines if line["event"] == "listening"]
        return ports[0] if len(ports) == 2 else None

    try:
        yield f"http://127.0.0.1:{eventually(port)}", process.pid
    finally:
        process.terminate()
        process.wait(30)


def statuses(url: str, key: str = ALICE) -> set[int]:
    found = set()
    for _ in range(CONNECTIONS):
        # httpx would take longer to make a client than what is measured here.
        with closing(HTTPConnection(url.removeprefix("http://"), timeout=10)) as connection:
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            found.add(connection.getresponse().status)
    return found


def served(url: str) -> bool:
    """By every worker, of a model that is ready."""
    headers = {"authorization": f"Bearer {ALICE}"}
    answers = [httpx.get(f"{url}/v1/models/m", headers=headers) for _ in range(CONNECTIONS)]
    return all(answer.status_code == 200 and answer.json()["saia"]["ready"] for answer in answers)


def keys(site: Site) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(saia(site, "keys", "cloud", "--json"))["keys"]}


def relays(site: Site) -> int:
    """One for each connection of each worker."""
    return site.get("state").get("proxies", {}).get("cloud", {}).get("relays", 0)


def seconds_until(url: str, status: int) -> float:
    began = time.monotonic()
    eventually(lambda: statuses(url) == {status})
    return time.monotonic() - began


def test_a_key_is_revoked_while_its_stream_goes_on_and_restored(site: Site) -> None:
    site.run()
    site.ready(1)
    with proxy_of(site) as (url, _):
        eventually(lambda: served(url))
        chat = {
            "model": "m",
            "stream": True,
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 60,
        }
        first, whole = threading.Event(), []

        def stream() -> None:
            headers = {"authorization": f"Bearer {ALICE}"}
            with httpx.stream(
                "POST", f"{url}/v1/chat/completions", json=chat, headers=headers, timeout=60
            ) as answer:
                for line in answer.iter_lines():
                    first.set()
                    whole.append(line)

        thread = threading.Thread(target=stream)
        thread.start()
        assert first.wait(30)
        assert "alice: revoked is asked for" in saia(site, "key", "cloud", "alice", "revoke")
        eventually(lambda: statuses(url) == {401})
        assert statuses(url, BOB) == {200}
        thread.join(60)
        assert "data: [DONE]" in whole, "what was under way ended whole"
        eventually(lambda: (row := keys(site)["alice"])["in_force"] and row["said"]["revoked"])
        eventually(lambda: keys(site)["alice"]["said"]["refused"] >= CONNECTIONS)
        assert keys(site)["bob"]["said"]["models"] == "m"
        row = site.get("state")["proxies"]["cloud"]
        assert (row["keys_ordered"], row["keys_revoked"], row["said_keys"], row["relays"]) == (
            1,
            1,
            2,
            RELAYS,
        )
        (event,) = site.events("key-ordered")
        assert (event["subject"], event["text"], event["uid"]) == ("cloud", "alice: revoked", os.geteuid())

        saia(site, "key", "cloud", "alice", "restore")
        eventually(lambda: statuses(url) == {200})
        saia(site, "key", "cloud", "alice", "limit", "--per-minute", "1")
        eventually(lambda: keys(site)["alice"]["in_force"] and keys(site)["alice"]["said"]["per_minute"] == 1)
        assert keys(site)["alice"]["said"]["concurrency"] == 4, "as configured"
        assert ALICE not in json.dumps(keys(site)) and "sha256" not in json.dumps(keys(site))


def test_from_the_order_to_the_refusal_in_every_worker_it_takes_far_less_than_promised(site: Site) -> None:
    site.run()
    with proxy_of(site) as (url, _):
        eventually(lambda: relays(site) == RELAYS)
        took = []
        for _ in range(ROUNDS):
            site.post("proxies/cloud/keys/alice/revocation")
            took.append(seconds_until(url, 401))
            site._call("DELETE", "proxies/cloud/keys/alice/revocation").raise_for_status()
            seconds_until(url, 200)
    print("from revoke to refusal, seconds:", [round(seconds, 3) for seconds in sorted(took)])
    assert max(took) < PROMISED_S
    assert statistics.median(took) < WITHOUT_WAITING_S


def test_a_proxy_that_starts_again_without_the_engine_still_refuses(site: Site) -> None:
    engine = site.run()
    site.ready(1)
    with proxy_of(site) as (url, _):
        eventually(lambda: served(url))
        saia(site, "key", "cloud", "alice", "revoke")
        eventually(lambda: keys(site)["alice"]["in_force"])
        engine.kill()
        engine.wait()
    with proxy_of(site) as (url, _):
        assert statuses(url) == {401}, "from the first request on"
        eventually(lambda: statuses(url, BOB) == {200})
        assert statuses(url) == {401}
        site.run()
        eventually(lambda: keys(site)["alice"]["in_force"])
        assert statuses(url) == {401}
        saia(site, "key", "cloud", "alice", "restore")
        eventually(lambda: statuses(url) == {200})


def test_workers_that_are_killed_come_back_refusing_while_the_engine_is_away(site: Site) -> None:
    engine = site.run()
    with proxy_of(site) as (url, keeper):
        eventually(lambda: relays(site) == RELAYS)
        saia(site, "key", "cloud", "alice", "revoke")
        eventually(lambda: keys(site)["alice"]["in_force"])
        engine.kill()
        engine.wait()
        before = children(keeper)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(after := children(keeper)) == 2 and not set(after) & set(before))

        def answered() -> set[int]:
            with suppress(OSError):  # between two workers nobody listens
                return statuses(url)
            return set()

        assert eventually(answered) == {401}
        assert eventually(lambda: statuses(url, BOB)) == {200}
