"""The agent as a process: from its start through readiness and drain to the exit record."""

import asyncio
import json
import os
import shlex
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saia_engine import agent, front
from saia_engine.front import CONTROL, DATA, WATCH, FrontRefused
from tests.unit.agent_support import (
    INSTANCE,
    SERVICE,
    Agents,
    command,
    eventually,
    probe,
    session_members,
    status_with,
)

OLDEST_PYTHON = next(iter(Path.home().glob(".pyenv/versions/3.6.*/bin/python3")), None)
PYTHONS = [
    pytest.param(sys.executable, id="this"),
    pytest.param(
        str(OLDEST_PYTHON), id="3.6", marks=pytest.mark.skipif(OLDEST_PYTHON is None, reason="no Python 3.6")
    ),
]
QUICK = probe(interval_s=0.05, timeout_s=0.2)


@pytest.fixture
def agents() -> Iterator[Agents]:
    started = Agents()
    yield started
    started.close()


@pytest.mark.parametrize("listen", ["socket", "port"])
@pytest.mark.parametrize("python", PYTHONS)
async def test_life_from_start_to_exit_record(agents: Agents, python: str, listen: str):
    running = agents.start(python=python, listen=listen)
    await running.ready()
    assert (await running.ask("GET /hello")).endswith(b"\r\n\r\nok")
    assert (await running.status(agent.DRAINING))["state"] == "draining"
    with pytest.raises(FrontRefused, match="draining"):
        await running.ask("GET /hello")
    assert (await running.status(agent.SERVING))["state"] == "serving"
    assert (await running.ask("GET /hello")).endswith(b"ok")
    running.process.terminate()
    assert await running.ended() == 0
    record = running.exit_record
    assert (record.exit_code, record.signal, record.stopped_by) == (0, None, "term")
    assert (running.directory / "finished").exists()
    assert list((running.directory / "tmp").iterdir()) == []
    assert "Traceback" not in running.log


async def test_what_the_service_sees(agents: Agents):
    running = agents.start(
        command=[*SERVICE, "--uds={socket}", "{other}", "é"],
        environment={"HF_HOME": "/scratch/hf", "SAIA_SERVICE": "forged"},
        generation=2,
    )
    await running.ready()
    facts = await running.facts()
    environment = facts["environment"]
    socket_path = environment["SAIA_SOCKET"]
    assert facts["arguments"] == [f"--uds={socket_path}", "{other}", "é"]
    assert environment["HF_HOME"] == "/scratch/hf"
    assert (environment["SAIA_INSTANCE"], environment["SAIA_SERVICE"]) == (INSTANCE, "chat")
    assert environment["SLURM_RESTART_COUNT"] == "2"
    assert "SAIA_PORT" not in environment
    assert facts["directory"] == str(running.directory)
    assert facts["group"] == facts["pid"] != facts["parent_group"]
    assert stat.S_IMODE(Path(socket_path).parent.stat().st_mode) == 0o700
    assert len(socket_path) < 100


async def test_socket_falls_back_to_tmp_where_the_path_would_be_too_long(agents: Agents, tmp_path: Path):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    running = agents.start(surroundings={"TMPDIR": str(deep)})
    await running.ready()
    socket_path = Path((await running.facts())["environment"]["SAIA_SOCKET"])
    assert socket_path.parent.parent == Path("/tmp")
    assert list(deep.iterdir()) == []
    running.process.terminate()
    await running.ended()
    assert not socket_path.parent.exists()


async def test_endpoint_file_is_private_and_names_a_listening_front(agents: Agents):
    running = agents.start(generation=3)
    await running.up()
    path = running.directory / "endpoint.3.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    assert (content["instance"], content["generation"], content["protocol"]) == (INSTANCE, 3, 1)
    _, writer = await asyncio.open_connection("127.0.0.1", running.endpoint.port)
    writer.close()
    assert [entry.name for entry in running.directory.iterdir() if "tmp" in entry.name] == ["tmp"]


async def test_front_also_listens_on_ipv6(agents: Agents):
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6 here")
    running = agents.start()
    await running.ready()
    async with running.connected(DATA, host="::1") as (reader, writer):
        writer.write(b"GET /hello HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"ok")


async def test_script_runs_in_a_shell_and_its_children_get_the_grace(agents: Agents):
    running = agents.start(command=[], script=f"{' '.join(SERVICE)} & wait")
    await running.ready()
    stream = asyncio.ensure_future(running.ask("GET /stream/30"))
    await asyncio.sleep(0.1)
    running.process.terminate()
    assert b"data: 29\n" in await stream
    await running.ended()
    assert (running.directory / "finished").exists()
    assert running.exit_record.stopped_by == "term"


# ---------------------------------------------------------------- drain


async def test_drain_is_complete_only_after_the_last_stream(agents: Agents):
    running = agents.start()
    await running.ready()
    async with (
        running.connected(WATCH) as (watch, _),
        running.connected(CONTROL) as control,
        running.connected(DATA) as (reader, writer),
    ):
        assert json.loads(await watch.readline())["state"] == "serving"
        writer.write(b"GET /stream/40 HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"data: 0\n")
        status = await command(*control, "draining")
        assert (status["state"], status["open"]) == ("draining", 1)
        pushed = json.loads(await asyncio.wait_for(watch.readline(), 1))
        assert (pushed["state"], pushed["open"]) == ("draining", 1)
        with pytest.raises(FrontRefused) as refused:
            await running.ask("GET /hello")
        assert refused.value.code == "draining"
        assert (await command(*control, "draining"))["open"] == 1
        assert (await reader.read()).endswith(b"data: 39\n")
        writer.close()
        while json.loads(await asyncio.wait_for(watch.readline(), 1))["open"]:
            pass
        assert (await command(*control, "draining"))["open"] == 0


async def test_term_lets_open_streams_end_and_is_final(agents: Agents):
    running = agents.start()
    await running.ready()
    async with running.connected(CONTROL) as control, running.connected(DATA) as (reader, writer):
        writer.write(b"GET /stream/40 HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"data: 0\n")
        running.process.terminate()
        await eventually(lambda: "draining" in running.log)
        assert (await command(*control, "serving"))["state"] == "draining"
        assert (await reader.read()).endswith(b"data: 39\n")
    assert await running.ended() == 0


async def test_answer_still_reaches_a_slow_reader_after_the_service_is_gone(agents: Agents):
    size = 4_000_000
    running = agents.start()
    await running.ready()
    async with running.connected(DATA) as (reader, writer):
        writer.write(f"GET /flood/{size} HTTP/1.1\r\n\r\n".encode())
        await eventually(lambda: (running.directory / "flooded").exists())
        running.process.terminate()
        received = 0
        while chunk := await reader.read(65536):
            received += len(chunk)
            await asyncio.sleep(0.002)
    assert received == size
    assert await running.ended() == 0


async def test_watch_beats_and_a_gone_watcher_harms_nobody(agents: Agents):
    running = agents.start(pace="agent.HEARTBEAT_S = 0.1")
    await running.ready()
    async with running.connected(WATCH) as (reader, _):
        async with running.connected(WATCH):
            pass
        for _ in range(4):
            line = json.loads(await reader.readline())
            assert line == {"state": "serving", "ready": True, "open": 0}


# ---------------------------------------------------------------- how it ends


async def test_service_that_crashes_ends_the_agent_with_its_code(agents: Agents):
    running = agents.start()
    await running.ready()
    assert await running.ask("GET /crash") == b""
    assert await running.ended() == 3
    record = running.exit_record
    assert (record.exit_code, record.signal, record.stopped_by) == (3, None, "service")
    assert stat.S_IMODE((running.directory / "exit.0.json").stat().st_mode) == 0o600


async def test_service_killed_by_a_signal(agents: Agents):
    running = agents.start()
    await running.ready()
    os.kill((await running.facts())["pid"], signal.SIGKILL)
    assert await running.ended() == 137
    record = running.exit_record
    assert (record.exit_code, record.signal, record.stopped_by) == (137, 9, "service")


async def test_stubborn_service_is_killed_after_the_grace(agents: Agents):
    running = agents.start(environment={"STUBBORN": "1"}, stop_grace_s=0.3)
    await running.ready()
    running.process.terminate()
    assert await running.ended() == 137
    assert running.exit_record.stopped_by == "term"
    assert session_members(running.process.pid) == []


async def test_term_for_all_at_once_counts_as_asked_to_stop(agents: Agents):
    running = agents.start(command=["/bin/sleep", "60"])
    await running.up()
    service = next(pid for pid in session_members(running.process.pid) if pid != running.process.pid)
    os.kill(service, signal.SIGTERM)
    running.process.terminate()
    assert await running.ended() == 143
    record = running.exit_record
    assert (record.exit_code, record.signal, record.stopped_by) == (143, 15, "term")


async def test_service_that_can_not_be_started(agents: Agents):
    running = agents.start(command=["/nonexistent/server"])
    assert await running.ended() == 127
    assert running.exit_record.exit_code == 127
    assert "can't start the service" in running.log
    assert "Traceback" not in running.log
    assert not (running.directory / "endpoint.0.json").exists()


async def test_end_of_the_lifeline_ends_all(agents: Agents):
    reading, writing = os.pipe()
    try:
        running = agents.start(
            environment={"STUBBORN": "1"},
            pass_fds=(reading,),
            surroundings={"SAIA_LIFELINE_FD": str(reading)},
        )
        await running.ready()
        facts = await running.facts()
        assert reading > 2 and str(reading) not in facts["descriptors"]
        assert "SAIA_LIFELINE_FD" not in facts["environment"]
    finally:
        os.close(writing)
        os.close(reading)
    await asyncio.wait_for(running.ended(), 2)
    assert session_members(running.process.pid) == []
    assert list((running.directory / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"listen": "udp"}, "'listen' must be"),
        ({"command": "vllm serve"}, "'command' must be a list"),
        ({"command": [], "script": " "}, "one of 'command' and 'script'"),
        ({"port_range": [2, 1]}, "'port_range' must be"),
        ({"environment": {"A=B": "x"}}, "'environment' must"),
        ({"readiness": probe(path="/a\r\nHost: x")}, "'readiness' must be a probe"),
        ({"readiness": None}, "'readiness' must be a probe"),
        ({"readiness": probe(kind="tcp")}, "'readiness' must be a probe"),
        ({"liveness": probe(interval_s=-1)}, "'liveness' must be a probe, or null"),
        ({"liveness": probe(failures=0)}, "'liveness' must be a probe, or null"),
        ({"liveness": {"kind": "http"}}, "'liveness' must be a probe, or null"),
        ({"instance": "a|b"}, "'instance' must"),
        ({"stop_grace_s": True}, "'stop_grace_s' must"),
        ({"version": 2}, "'version' must be 1"),
    ],
)
async def test_bad_launch_file_is_one_clear_line(agents: Agents, changes: dict, names: str):
    running = agents.start(**changes)
    assert await running.ended() == 2
    assert names in running.log
    assert running.log.count("\n") == 1
    assert not (running.directory / "exit.0.json").exists()


async def test_no_free_port(agents: Agents):
    with agent._bind_both(0)[0] as taken:
        taken.listen()
        port = taken.getsockname()[1]
        running = agents.start(port_range=[port, port])
        assert await running.ended() == 1
    assert f"no free port in {port} to {port}" in running.log
    assert running.exit_record.exit_code == 1


# ---------------------------------------------------------------- readiness and GPUs


async def test_service_that_falls_sick_is_unready_and_recovers(agents: Agents):
    running = agents.start(readiness=QUICK)
    await running.ready()
    async with running.connected(WATCH) as (watch, _):
        for trouble, word in (("sick", "answered 503"), ("hang", "no answer to /health")):
            (running.directory / trouble).touch()
            while json.loads(await watch.readline())["ready"]:
                pass
            status = await running.status()
            assert word in status["fault"] and status["served"]
            (running.directory / trouble).unlink()
            while not json.loads(await watch.readline())["ready"]:
                pass
        assert (await running.status())["fault"] == ""


async def test_service_that_keeps_the_probe_s_connection_open_is_ready(agents: Agents):
    running = agents.start(command=["/bin/sh", "-c", f"touch keep; exec {shlex.join(SERVICE)}"])
    await running.ready()
    assert (await running.status())["fault"] == ""


async def test_data_is_refused_while_the_service_does_not_listen(agents: Agents):
    for listen in ("socket", "port"):
        running = agents.start(command=["/bin/sleep", "60"], listen=listen)
        await running.up()
        with pytest.raises(FrontRefused) as refused:
            await running.ask("GET /")
        assert refused.value.code == "service"
        status = await running.status()
        assert (status["ready"], status["served"], status["open"]) == (False, False, 0)
        assert status["fault"]


THIEF = """
import os, pathlib, socket, time
address = ("127.0.0.1", int(os.environ["SAIA_PORT"]))
if HONEST_FIRST:
    with socket.create_server(address) as listener:
        while not pathlib.Path("steal").exists():
            link, _ = listener.accept()
            link.recv(1000)
            link.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            link.close()
os.setuid(65534)
with socket.create_server(address) as listener:
    print("stolen", flush=True)
    while True:
        listener.accept()[0].sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\nstolen")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
@pytest.mark.parametrize("honest_first", [True, False])
async def test_another_users_listener_on_our_port_gets_no_traffic(agents: Agents, honest_first: bool):
    thief = [sys.executable, "-c", THIEF.replace("HONEST_FIRST", str(honest_first))]
    running = agents.start(command=thief, listen="port", readiness=QUICK)
    if honest_first:
        await running.ready()
        (running.directory / "steal").touch()
    await eventually(lambda: "stolen" in running.log)
    await running.up()
    async with running.connected(CONTROL) as control:
        status = await status_with(control, lambda status: "another user (uid 65534)" in status["fault"])
        assert status["open"] == 0
        await status_with(control, lambda status: not status["ready"])
    with pytest.raises(FrontRefused) as refused:
        await running.ask("GET /")
    assert refused.value.code == "service"


def fake_nvidia_smi(directory: Path, body: str) -> dict[str, str]:
    program = directory / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


async def test_gpus_come_from_nvidia_smi(agents: Agents, tmp_path: Path):
    rows = "0, 35, 1000, 81920\\n1, [N/A], 12, 81920\\nFAULT\\n"
    body = f'echo "$@" > {tmp_path}/arguments; printf "{rows}"'
    running = agents.start(environment=fake_nvidia_smi(tmp_path, body))
    await running.up()
    async with running.connected(CONTROL) as control:
        status = await status_with(control, lambda status: status["gpus"])
    assert status["gpus"] == [
        {"index": 0, "utilisation": 35.0, "memory_used": 1000.0, "memory_total": 81920.0},
        {"index": 1, "utilisation": None, "memory_used": 12.0, "memory_total": 81920.0},
    ]
    assert (tmp_path / "arguments").read_text().split() == list(agent.GPU_QUERY)


@pytest.mark.parametrize("body", ["sleep 60", "echo 0, 1, 2, 3; exit 9", "echo Driver mismatch"])
async def test_broken_nvidia_smi_means_unknown_and_blocks_nothing(agents: Agents, tmp_path: Path, body: str):
    environment = fake_nvidia_smi(tmp_path, f"echo >> {tmp_path}/runs; {body}")
    running = agents.start(environment=environment, pace="agent.GPU_DEADLINE_S = agent.GPU_INTERVAL_S = 0.2")
    await running.up()
    async with running.connected(CONTROL) as control:
        while not (tmp_path / "runs").exists() or (tmp_path / "runs").read_text().count("\n") < 3:
            assert (await command(*control, "serving"))["gpus"] == []
            await asyncio.sleep(0.02)


# ---------------------------------------------------------------- data connections


async def test_half_close_is_kept_both_ways(agents: Agents):
    for listen in ("socket", "port"):
        running = agents.start(listen=listen)
        await running.ready()
        async with running.connected(DATA) as (reader, writer):
            writer.write(b"COUNT all of it\n" + b"x" * 1_000_000)
            writer.write_eof()
            assert await reader.read() == b"1000000"


async def test_slow_reader_holds_the_service_back(agents: Agents):
    size = 200_000_000
    running = agents.start()
    await running.ready()
    async with running.connected(DATA) as (_, writer):
        writer.write(f"GET /flood/{size} HTTP/1.1\r\n\r\n".encode())
        progress = running.directory / "flooded"
        await eventually(progress.exists)
        left, before = int(progress.read_text() or 0), size
        while left < before:
            await asyncio.sleep(0.3)
            left, before = int(progress.read_text() or left), left
        assert left > size * 0.8
        assert (await running.status())["open"] == 1
    async with running.connected(CONTROL) as control:
        await status_with(control, lambda status: status["open"] == 0)


async def test_bytes_survive_the_way_there_and_back(agents: Agents):
    running = agents.start()
    await running.ready()
    sent = os.urandom(5_000_000)
    async with running.connected(DATA) as (reader, writer):
        writer.write(b"ECHO it all\n" + sent)
        writer.write_eof()
        assert await reader.read() == sent


async def test_burst_of_honest_clients_is_served_whole(agents: Agents):
    running = agents.start()
    await running.ready()
    answers = await asyncio.gather(*(running.ask("GET /hello") for _ in range(300)))
    assert all(answer.endswith(b"ok") for answer in answers)
    assert (await running.status())["open"] == 0


# ---------------------------------------------------------------- who is let in


async def raw(running, *lines: bytes) -> bytes:
    """What the front answers to these bytes, each sent after a line came back for the one before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.endpoint.port)
    try:
        answer = b""
        for number, line in enumerate(lines):
            writer.write(line)
            answer = await (reader.read() if number == len(lines) - 1 else reader.readline())
        return answer
    finally:
        writer.transport.abort()


NONCE = b"0" * 32


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"GET / HTTP/1.1\r\n"], b"protocol"),
        ([b"\x00\xff\xfe\n"], b"protocol"),
        ([b"saia 2 data " + NONCE + b"\n"], b"version"),
        ([b"saia 2 something new altogether\n"], b"version"),
        ([b"saia 1 root " + NONCE + b"\n"], b"protocol"),
        ([b"saia 1 data " + NONCE.replace(b"0", b"Z") + b"\n"], b"protocol"),
        ([b"saia 1 data " + NONCE + b"\r\n"], b"protocol"),
        ([b"x" * 5000], b"protocol"),
        ([b"saia 1 data " + NONCE + b"\n", b"proof " + b"0" * 64 + b"\n"], b"proof"),
        ([b"saia 1 watch " + NONCE + b"\n", "proof é\n".encode()], b"proof"),
        ([b"saia 1 control " + NONCE + b"\n", b"y" * 300], b"protocol"),
    ],
)
async def test_who_does_not_prove_itself_is_refused(agents: Agents, lines: list[bytes], code: bytes):
    running = agents.start(command=["/bin/sleep", "60"])
    await running.up()
    assert await raw(running, *lines) == b"refused " + code + b"\n"
    assert (await running.status())["open"] == 0
    assert "Traceback" not in running.log


async def test_roles_and_generations_have_their_own_proof(agents: Agents):
    running = agents.start(generation=1)
    await running.ready()
    endpoint = running.endpoint
    wrong = [
        {"role": CONTROL, "secret": endpoint.gate_secret},
        {"role": DATA, "secret": endpoint.control_secret},
        {"role": WATCH, "generation": 0},
        {"role": DATA, "instance": INSTANCE + "x"},
        {"role": DATA, "secret": "0" * 64},
    ]
    for changes in wrong:
        with pytest.raises(FrontRefused) as refused:
            await front.connect(**running.address(changes["role"]) | changes)
        assert refused.value.code == "proof"


async def test_idle_and_dripping_connections_never_lock_anybody_out(agents: Agents):
    running = agents.start()
    await running.ready()
    crowd = [await asyncio.open_connection("127.0.0.1", running.endpoint.port) for _ in range(150)]
    for _, writer in crowd:
        writer.write(b"saia 1 da")
    assert (await running.ask("GET /hello")).endswith(b"ok")
    assert (await running.status())["open"] == 0

    async def end_of(reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    ends = await asyncio.gather(*(end_of(reader) for reader, _ in crowd))
    assert set(ends) <= {b"refused busy\n", b"refused protocol\n", b""}
    assert ends.count(b"refused protocol\n") <= agent.MAX_UNPROVEN
    for _, writer in crowd:
        writer.transport.abort()


async def test_half_a_handshake_ends_after_its_time(agents: Agents):
    running = agents.start(pace="agent.HANDSHAKE_S = 0.2")
    await running.up()
    line = b"saia 1 data " + NONCE + b"\n"
    assert (await raw(running, line)).endswith(b"\nrefused protocol\n")


async def test_garbage_from_a_proven_engine_ends_that_connection_only(agents: Agents):
    running = agents.start()
    await running.ready()
    for garbage in (b"[]\n", b'{"want":"halt"}\n', b"\xff\n", b"[" * 20000 + b"\n", b"z" * 5000):
        async with running.connected(CONTROL) as (reader, writer):
            writer.write(garbage)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
    assert (await running.status())["state"] == "serving"
    assert "Traceback" not in running.log
