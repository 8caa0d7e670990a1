"""Sockets' files, who may open them, and whom the engine believes the caller to be."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from saia_engine.api import sockets
from saia_engine.api.access import Operators
from saia_engine.api.port import Refused
from saia_engine.api.server import serving
from tests.unit.fake_engine import FakeEngine, served

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.fixture
def directory():
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="saia-sock."))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


async def curl(path: Path, call: str, *options: str, uid: int | None = None) -> tuple[int, str]:
    """(exit code, body and status) of a real curl, as another user where asked."""
    other = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        *(
            "curl",
            "-s",
            "-m",
            "5",
            "-w",
            " %{http_code}",
            "--unix-socket",
            str(path),
            *options,
            f"http://saia{call}",
        ),
        stdout=subprocess.PIPE,
        cwd="/",
        **other,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_files_have_their_modes_and_go_at_the_end():
    async with served() as api:
        assert mode(api.directory / "run") == 0o711
        assert mode(api.operator.parent) == mode(api.gate.parent) == 0o750
        assert mode(api.operator) == mode(api.gate) == 0o660
        operator = api.operator
        assert stat.S_ISSOCK(operator.lstat().st_mode)
    assert not operator.exists()


async def test_curl_works():
    async with served() as api:
        code, output = await curl(api.operator, "/v1/health")
        assert code == 0
        assert output == '{"api":1,"version":"0.1.0","acting":true,"slurm_fault":""} 200'
        body = '{"replicas":3}'
        code, output = await curl(api.operator, "/v1/services/chat/scale", "-d", body)
        assert output == '{"service":"chat","replicas":3} 200'
        assert api.engine.overrides == {"chat": (3, os.geteuid())}


async def test_the_gate_socket_takes_no_intents():
    async with served() as api:
        for call in ("/v1/state", "/v1/stream", "/v1/plan", "/v1/services/chat/scale"):
            _, output = await curl(api.gate, call, "-d", '{"replicas":0,"confirm":true}')
            assert output.endswith(" 404"), call
        assert api.engine.overrides == {}


@as_root
async def test_another_user_is_refused_by_the_permissions():
    async with served() as api:
        for path in (api.operator, api.gate):
            code, output = await curl(path, "/v1/health", uid=NOBODY)
            assert code == 7, "curl could connect"
            assert output == " 000"


@as_root
async def test_another_user_is_refused_by_authorize_where_permissions_failed():
    async with served() as api:
        api.operator.parent.chmod(0o755)
        api.operator.chmod(0o666)
        for call, *options in (
            ("/v1/state",),
            ("/v1/stream",),
            ("/v1/plan",),
            ("/v1/health",),
            ("/v1/services/chat/scale", "-d", '{"replicas":3}'),
            ("/v1/services/chat/override", "-X", "DELETE"),
            ("/v1/instances/i1.hpc.chat.aaaa0001/drain", "-d", "{}"),
            ("/v1/proxies/cloud/maintenance", "-d", '{"on":true}'),
        ):
            _, output = await curl(api.operator, call, *options, uid=NOBODY)
            assert output.endswith(" 403"), (call, output)
            assert '"not_allowed"' in output
            assert "uid 65534 is not an operator" in output
        assert (api.engine.overrides, api.engine.drained) == ({}, [])
        assert api.engine.in_maintenance == {"cloud": False}


@as_root
async def test_a_member_of_the_group_may_and_the_engine_hears_its_uid():
    async with served(operators_group="nogroup") as api:
        assert api.operator.lstat().st_gid == api.operator.parent.stat().st_gid == NOBODY
        _, output = await curl(api.operator, "/v1/services/chat/scale", "-d", '{"replicas":4}', uid=NOBODY)
        assert output.endswith(" 200")
        assert api.engine.overrides == {"chat": (4, NOBODY)}


@as_root
async def test_the_gates_group_opens_the_gate_socket_only():
    async with served(gate_group="nogroup") as api:
        _, output = await curl(api.gate, "/v1/report", "-d", "{}", uid=NOBODY)
        assert output.endswith(" 400")
        code, _ = await curl(api.operator, "/v1/health", uid=NOBODY)
        assert code == 7


def test_operators_are_root_the_engine_and_the_group():
    operators = Operators(NOBODY)
    operators.authorize(0, "scale", "chat")
    operators.authorize(os.geteuid(), "scale", "chat")
    operators.authorize(NOBODY, "scale", "chat")
    for uid in (1, 4_000_000):
        with pytest.raises(Refused) as refused:
            operators.authorize(uid, "scale", "chat")
        assert refused.value.status == 403
        assert "may not scale chat" in refused.value.message
    with pytest.raises(Refused):
        Operators(None).authorize(NOBODY, "scale", "chat")


def test_the_socket_of_a_dead_engine_is_replaced(directory: Path):
    path = directory / "run" / "operator" / "operator.sock"
    sockets.bind(path, None).socket.close()
    assert path.exists()
    listener = sockets.bind(path, None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


async def test_the_socket_of_a_living_engine_is_refused_and_left_alone():
    async with served() as api:
        before = api.operator.lstat().st_ino
        with pytest.raises(sockets.SocketTaken, match=r"another engine answers at .*operator\.sock"):
            async with serving(FakeEngine(), operator_socket=api.operator, gate_socket=api.gate):
                pass
        assert api.operator.lstat().st_ino == before
        assert (await curl(api.operator, "/v1/health"))[0] == 0


async def test_the_first_socket_is_given_up_when_the_second_is_taken(directory: Path):
    gate = directory / "run" / "gate" / "gate.sock"
    operator = directory / "run" / "operator" / "operator.sock"
    other = sockets.bind(gate, None)
    with pytest.raises(sockets.SocketTaken):
        async with serving(FakeEngine(), operator_socket=operator, gate_socket=gate):
            pass
    assert not operator.exists()
    other.close()


def test_closing_leaves_a_successors_socket(directory: Path):
    path = directory / "run" / "operator" / "operator.sock"
    first = sockets.bind(path, None)
    path.rename(path.with_name("old.sock"))
    second = sockets.bind(path, None)
    first.close()
    assert path.exists()
    second.close()


def test_a_symbolic_link_in_place_of_a_directory_is_refused(directory: Path):
    (directory / "elsewhere").mkdir(mode=0o700)
    (directory / "run").symlink_to(directory / "elsewhere")
    with pytest.raises(sockets.SocketFault, match="run is a symbolic link"):
        sockets.bind(directory / "run" / "operator" / "operator.sock", None)
    assert mode(directory / "elsewhere") == 0o700
    assert list((directory / "elsewhere").iterdir()) == []


def test_a_link_to_the_inner_directory_is_refused(directory: Path):
    (directory / "run").mkdir()
    (directory / "elsewhere").mkdir()
    (directory / "run" / "operator").symlink_to(directory / "elsewhere")
    with pytest.raises(sockets.SocketFault, match="operator is a symbolic link"):
        sockets.bind(directory / "run" / "operator" / "operator.sock", None)


@as_root
def test_a_directory_of_another_user_is_refused(directory: Path):
    inner = directory / "run" / "operator"
    inner.mkdir(parents=True)
    os.chown(inner, NOBODY, -1)
    with pytest.raises(sockets.SocketFault, match=f"belongs to uid {NOBODY}"):
        sockets.bind(inner / "operator.sock", None)


def test_a_file_in_place_of_the_socket_is_refused_and_kept(directory: Path):
    path = directory / "run" / "operator" / "operator.sock"
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(sockets.SocketFault, match="not a socket"):
        sockets.bind(path, None)
    assert path.read_text() == "precious"


def test_an_unknown_group_is_a_clear_error():
    with pytest.raises(sockets.SocketFault, match="there is no group nosuchgroup"):
        sockets.group_id("nosuchgroup")
    assert sockets.group_id("") is None
    assert sockets.group_id("12") == 12


def test_too_long_a_path_is_a_clear_error(directory: Path):
    with pytest.raises(sockets.SocketFault, match="cannot make the socket"):
        sockets.bind(directory / ("d" * 100) / "operator" / "operator.sock", None)


async def test_the_end_comes_soon_though_streams_are_open():
    loop = asyncio.get_running_loop()
    async with served() as api:
        reader, writer = await asyncio.open_unix_connection(str(api.operator))
        writer.write(b"GET /v1/stream HTTP/1.1\r\nhost: saia\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        began = loop.time()
    assert loop.time() - began < 1.5
    writer.close()
