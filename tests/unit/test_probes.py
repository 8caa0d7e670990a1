"""The engine's ear at real agents, and what it makes of what they, or somebody else, say and write."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from saia_engine import front, probes
from saia_engine.instance_dirs import InstanceDirs
from saia_engine.model import ProbeSpec
from saia_engine.probes import Probes, Target, parse_status
from tests.unit.agent_support import INSTANCE, Agents, RunningAgent, eventually, probe


@pytest.fixture
def agents() -> Iterator[Agents]:
    agents = Agents()
    yield agents
    agents.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"INTERVAL_S": 0.1, "RETRY_S": 0.05, "RECHECK_S": 0.1, "SILENT_S": 0.3}.items():
        monkeypatch.setattr(probes, name, seconds)


HOST = "gpu01"


def target(**changes) -> Target:
    return replace(Target(INSTANCE, 0, "127.0.0.1", (HOST,), ProbeSpec()), **changes)


@asynccontextmanager
async def ear(
    root: Path, agent: RunningAgent | None = None, port_range=range(1, 65536)
) -> AsyncIterator[Probes]:
    if agent is not None:
        (root / INSTANCE).symlink_to(agent.directory)
    listening = Probes(InstanceDirs(root), time.monotonic, lambda: None, port_range)
    try:
        yield listening
    finally:
        await listening.close()


def start(agents: Agents, **launch) -> RunningAgent:
    return agents.start(surroundings={"SLURMD_NODENAME": HOST}, **launch)


def rewrite(agent: RunningAgent, **changes) -> None:
    file = agent.directory / front.endpoint_name(0)
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


async def test_an_instance_is_heard_and_verified_by_a_request_of_our_own(
    agents: Agents, tmp_path: Path
) -> None:
    agent = start(agents)
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        assert INSTANCE in listening.listening_since
        await eventually(lambda: INSTANCE in listening.statuses and listening.statuses[INSTANCE].verified)
        status = listening.statuses[INSTANCE]
        assert (status.ready, status.draining, status.alive) == (True, False, True)
        await eventually(lambda: listening.statuses[INSTANCE].open_connections == 0)
        assert listening.endpoints[INSTANCE] == agent.endpoint
        assert listening.faults == {}


async def test_the_request_of_our_own_asks_as_the_readiness_probe_does(
    agents: Agents, tmp_path: Path
) -> None:
    """The service answers any path with 2xx, but knows no completion."""
    agent = start(agents)
    completion = ProbeSpec("completion", "/v1/chat/completions", "llama")
    async with ear(tmp_path, agent) as listening:
        listening.watch([target(readiness=completion)])
        await eventually(lambda: INSTANCE in listening.statuses and listening.statuses[INSTANCE].ready)
        await asyncio.sleep(0.5)
        assert not listening.statuses[INSTANCE].verified


async def test_a_service_that_hangs_makes_neither_its_agent_silent_nor_a_drain_late(
    agents: Agents, tmp_path: Path
) -> None:
    agent = start(agents, readiness=probe(interval_s=60))
    await agent.ready()
    (agent.directory / "hang").touch()
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses)
        await eventually(lambda: listening.statuses[INSTANCE].open_connections == 1)
        heard_at = listening.statuses[INSTANCE].seen_at
        await eventually(lambda: listening.statuses[INSTANCE].seen_at > heard_at)
        assert not listening.statuses[INSTANCE].verified
        listening.watch([target(drain=True)])
        asked_at = time.monotonic()
        await eventually(lambda: listening.statuses[INSTANCE].draining)
        await eventually(lambda: listening.statuses[INSTANCE].open_connections == 0)
        assert time.monotonic() - asked_at < 2


async def test_a_service_that_hangs_is_heard_of_as_not_alive(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents, liveness=probe(interval_s=0.05, timeout_s=0.1, failures=2))
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses and listening.statuses[INSTANCE].ready)
        (agent.directory / "hang").touch()
        await eventually(lambda: not listening.statuses[INSTANCE].alive)
        assert "no answer to /health within 0.1 s" in listening.statuses[INSTANCE].fault
        (agent.directory / "hang").unlink()
        await eventually(lambda: listening.statuses[INSTANCE].alive)


async def test_a_drain_is_ordered_at_once_and_again_by_each_new_connection(
    agents: Agents, tmp_path: Path
) -> None:
    agent = start(agents)
    await agent.ready()
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses)
        listening.watch([target(drain=True)])
        await eventually(lambda: listening.statuses[INSTANCE].draining)
    assert (await agent.status("serving"))["state"] == "serving"
    (tmp_path / INSTANCE).unlink()
    async with ear(tmp_path, agent) as restarted:
        restarted.watch([target(drain=True)])
        await eventually(lambda: INSTANCE in restarted.statuses and restarted.statuses[INSTANCE].draining)
        restarted.watch([target(drain=False)])
        await eventually(lambda: not restarted.statuses[INSTANCE].draining)


async def test_an_endpoint_file_rewritten_later_changes_nothing_but_is_told_of(
    agents: Agents, tmp_path: Path
) -> None:
    agent = start(agents)
    await agent.ready()
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses)
        true = agent.endpoint
        for lie in ({"host": "evil", "port": 22}, {"gate_secret": "0" * 64}, {"port": "x"}):
            rewrite(agent, host=HOST, port=true.port, gate_secret=true.gate_secret)
            await eventually(lambda: INSTANCE not in listening.faults)
            rewrite(agent, **lie)
            await eventually(lambda: "changed since it was proven" in listening.faults.get(INSTANCE, ""))
            assert listening.endpoints[INSTANCE] == true
            heard_at = listening.statuses[INSTANCE].seen_at
            await eventually(lambda at=heard_at: listening.statuses[INSTANCE].seen_at > at)


async def test_a_host_that_is_not_slurms_is_ignored_and_told_of(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents)
    async with ear(tmp_path, agent) as listening:
        listening.watch([target(node_names=("gpu02",))])
        await eventually(lambda: INSTANCE in listening.statuses)
        assert listening.faults[INSTANCE] == (
            "endpoint file: names host gpu01, but Slurm runs the job on gpu02; its host is ignored"
        )


async def test_a_port_outside_the_range_is_not_even_tried(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents)
    async with ear(tmp_path, agent, port_range=range(1, 10)) as listening:
        listening.watch([target()])
        await eventually(lambda: "outside port_range" in listening.faults.get(INSTANCE, ""))
        assert listening.endpoints == {} == listening.statuses


async def test_who_does_not_know_the_secret_is_not_believed(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents)
    await agent.ready()
    rewrite(agent, control_secret="0" * 64)
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: "refused: proof" in listening.faults.get(INSTANCE, ""))
        assert listening.endpoints == {} == listening.statuses


async def test_an_agent_that_ends_is_a_fault_only_after_a_while(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents)
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses)
        agent.process.kill()
        heard_at = listening.statuses[INSTANCE].seen_at
        await eventually(lambda: INSTANCE in listening.faults)
        assert time.monotonic() - heard_at > probes.SILENT_S
        assert listening.faults[INSTANCE].startswith("agent:")


async def test_another_generation_is_another_instance(agents: Agents, tmp_path: Path) -> None:
    agent = start(agents)
    async with ear(tmp_path, agent) as listening:
        listening.watch([target()])
        await eventually(lambda: INSTANCE in listening.statuses)
        listening.watch([target(generation=1)])
        assert listening.statuses == {} == listening.endpoints
        listening.watch([])
        assert listening.listening_since == {}


@pytest.mark.parametrize("kind", ["pipe", "directory", "endless", "binary", "huge"])
async def test_whatever_lies_in_the_place_of_the_file_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    (tmp_path / INSTANCE).mkdir()
    file = tmp_path / INSTANCE / front.endpoint_name(0)
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "endless":
            file.symlink_to("/dev/zero")
        case "binary":
            file.write_bytes(b"\xff\xfe\x00")
        case "huge":
            with file.open("wb") as out:
                out.truncate(1 << 40)
    async with ear(tmp_path) as listening:
        listening.watch([target()])
        await eventually(lambda: "endpoint file:" in listening.faults.get(INSTANCE, ""))


# ---------------------------------------------------------------- what an agent may say

GOOD = {"state": "serving", "ready": True, "open": 2, "gpus": [], "fault": ""}


def test_a_status_is_read() -> None:
    gpu = {"index": 1, "utilisation": 35.0, "memory_used": 1000, "memory_total": None}
    status = parse_status(json.dumps(GOOD | {"gpus": [gpu]}).encode(), 5.0)
    assert (status.seen_at, status.ready, status.open_connections, status.verified) == (5.0, True, 2, False)
    assert (status.gpus[0].utilisation_percent, status.gpus[0].memory_total_mib) == (35.0, None)
    assert not parse_status(json.dumps(GOOD | {"alive": False}).encode(), 5.0).alive
    assert parse_status(json.dumps(GOOD | {"served": True}).encode(), 5.0).served


def test_an_agent_of_an_older_engine_that_says_nothing_of_its_service_s_life_has_one_that_lives() -> None:
    status = parse_status(json.dumps(GOOD).encode(), 5.0)
    assert not {"alive", "served"} & GOOD.keys() and status.alive and not status.served


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b"[" * 60_000,
        b'{"state":"serving","ready":true}',
        *(
            json.dumps(GOOD | wrong).encode()
            for wrong in (
                {"state": "happy"},
                {"ready": "yes"},
                {"alive": "yes"},
                {"alive": None},
                {"served": 1},
                {"open": -1},
                {"open": True},
                {"open": None},
                {"open": 1.5},
                {"gpus": {"a": 1}},
                {"gpus": [1]},
                {"gpus": None},
            )
        ),
    ],
)
def test_a_status_that_makes_no_sense_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="status"):
        parse_status(line, 0.0)


@pytest.mark.parametrize("figure", ["NaN", "Infinity", "1e999", '"much"', "true", "[]"])
def test_a_figure_that_is_none_is_unknown(figure: str) -> None:
    line = json.dumps(GOOD).replace("[]", f'[{{"index":0,"utilisation":{figure}}}]')
    assert parse_status(line.encode(), 0.0).gpus[0].utilisation_percent is None


@pytest.mark.parametrize("index", ["1e999", "NaN", "1" + "0" * 400])
def test_an_index_beyond_all_bounds_does_no_harm(index: str) -> None:
    line = json.dumps(GOOD).replace("[]", f'[{{"index":{index}}}]')
    try:
        parse_status(line.encode(), 0.0)
    except ValueError as exc:
        assert "status" in str(exc)


async def test_a_liar_that_knows_the_secret_harms_only_itself(tmp_path: Path) -> None:
    """It answers the control connection with a line that does not end."""
    from saia_engine import agent as protocol

    secret, nonce = "a" * 64, protocol.new_nonce()

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, role, theirs = (await reader.readline()).decode().split()
        writer.write(protocol.nonce_line(nonce))
        await reader.readline()
        mac = protocol.mac(secret, protocol.AGENT, role, INSTANCE, 0, theirs, nonce)
        writer.write(protocol.proof_line(mac) + b"x" * 200_000)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        (tmp_path / INSTANCE).mkdir()
        content = {
            "version": 1,
            "protocol": 1,
            "host": HOST,
            "port": port,
            "gate_secret": "b" * 64,
            "control_secret": secret,
        }
        (tmp_path / INSTANCE / front.endpoint_name(0)).write_text(json.dumps(content))
        async with ear(tmp_path) as listening:
            listening.watch([target()])
            await eventually(lambda: "limit" in listening.faults.get(INSTANCE, "").lower())
            assert listening.statuses == {}
