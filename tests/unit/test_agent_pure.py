"""The agent's parts that need no process, and the promise to run on an old Python."""

import ast
import hashlib
import hmac
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from saia_engine import agent
from tests.unit.agent_support import launch_content

SOURCE = Path(agent.__file__).read_text()


def test_source_is_python_3_6():
    ast.parse(SOURCE, feature_version=(3, 6))
    vermin = Path(sys.executable).with_name("vermin")
    outcome = subprocess.run(
        [vermin, "--no-tips", "--violations", "-t=3.6-", agent.__file__], capture_output=True, text=True
    )
    assert outcome.returncode == 0, outcome.stdout


def test_source_imports_the_standard_library_only():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_proof_is_the_documented_hmac():
    secret = "ab" * 32
    text = f"client|data|1|k7f3.hpc.chat.ab12|4|{'0' * 32}|{'1' * 32}"
    expected = hmac.new(bytes.fromhex(secret), text.encode(), hashlib.sha256).hexdigest()
    assert agent.mac(secret, "client", "data", "k7f3.hpc.chat.ab12", 4, "0" * 32, "1" * 32) == expected


def test_launch_file_round_trip():
    launch = agent.parse_launch(json.dumps(launch_content(environment={"A": "b\n"}, later_key=1)))
    assert (launch.instance, launch.environment, launch.stop_grace_s) == (
        "k7f3.hpc.chat.ab12",
        {"A": "b\n"},
        5,
    )


@pytest.mark.parametrize("key", ["instance", "command", "script", "listen", "environment", "port_range"])
@pytest.mark.parametrize("value", [None, 1, 1.5, "\0", [None], [[]], {"a": 1}, {"": ""}, True])
def test_launch_file_with_a_wrong_type_names_the_key(key: str, value: object):
    with pytest.raises(agent.LaunchFault, match=f"'{key}'"):
        agent.parse_launch(json.dumps(launch_content(**{key: value})))


@pytest.mark.parametrize(
    "text", ["", "[]", "nul", "[" * 100_000, '{"version": 1}', '{"version": ' + "9" * 5000 + "}"]
)
def test_launch_file_that_is_no_launch_file(text: str):
    with pytest.raises(agent.LaunchFault):
        agent.parse_launch(text)


@pytest.mark.parametrize(("text", "generation"), [("", 0), ("0", 0), ("17", 17)])
def test_generation_is_slurms_restart_count(text: str, generation: int):
    assert agent.read_generation({"SLURM_RESTART_COUNT": text}) == generation
    assert agent.read_generation({}) == 0


@pytest.mark.parametrize("text", ["-1", "1.0", "1\n", "../x", "²"])
def test_generation_that_is_no_number(text: str):
    with pytest.raises(agent.LaunchFault):
        agent.read_generation({"SLURM_RESTART_COUNT": text})


def test_gpu_figures_that_nvidia_smi_does_not_know_are_none():
    assert agent.parse_gpus(b"2, [Not Supported], nan, -1\n") == [
        {"index": 2, "utilisation": None, "memory_used": None, "memory_total": None}
    ]
    assert agent.parse_gpus(b"\xff, 1, 2, 3\n1, 2\n\n, , ,\n") == []


def test_front_port_is_ours_alone_and_a_taken_one_is_passed_over():
    (first, *others) = agent.bind_front(30000, 32000)
    try:
        port = first.getsockname()[1]
        assert all(other.getsockname()[1] == port for other in others)
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError):
                rival.bind(("127.0.0.1", port))
        with pytest.raises(agent.StartFault, match="no free port"):
            agent.bind_front(port, port)
    finally:
        for opened in (first, *others):
            opened.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_own_listener_is_found_by_the_kernels_table(address: str):
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        host = agent.own_listener(listener.getsockname()[1])
        assert host == ("::1" if family == socket.AF_INET6 else "127.0.0.1")


def test_port_without_a_listener_is_not_trusted():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(agent.ServiceDown, match="nothing listens"):
            agent.own_listener(bound.getsockname()[1])


def test_record_is_private_and_replaces_whole(tmp_path: Path):
    (tmp_path / "exit.0.json").write_text("old")
    agent.write_record(tmp_path, "exit.0.json", {"version": 1})
    assert json.loads((tmp_path / "exit.0.json").read_text()) == {"version": 1}
    assert (tmp_path / "exit.0.json").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1
