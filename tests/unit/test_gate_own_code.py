"""A gate notices that other code than its own is installed, and asks its proxy for a new connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from saia_engine.gate import own_code
from saia_engine.wire.messages import Control, Open, Renew, Routes
from saia_engine.wire.mux import Mux, StreamReset
from tests.unit.gate_support import Site, eventually

PACKAGE = Path(own_code.__file__).parents[1]
LOOK_S = 0.02


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> list[Path]:
    """What the process is made to believe it runs."""
    files = [tmp_path / name for name in ("relay.py", "mux.py")]
    for file in files:
        file.write_text("1")
    monkeypatch.setattr(own_code, "loaded", lambda: [str(file) for file in files])
    return files


@pytest.fixture(autouse=True)
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(own_code, "LOOK_S", LOOK_S)
    monkeypatch.setattr(own_code, "SETTLED_S", LOOK_S)


@asynccontextmanager
async def following() -> AsyncIterator[list[str]]:
    said: list[str] = []
    before = own_code._stamps(own_code.loaded())
    task = asyncio.create_task(own_code.follow(before, lambda: said.append("replaced")))
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_change_of_a_file_is_said_once(files):
    async with following() as said:
        await asyncio.sleep(5 * LOOK_S)
        assert said == []
        files[0].write_text("22")
        await eventually(lambda: said)
        files[1].unlink()
        await eventually(lambda: len(said) == 2)
        await asyncio.sleep(5 * LOOK_S)
        assert len(said) == 2


async def test_a_directory_that_is_swapped_behind_a_link_is_another_installation(tmp_path, monkeypatch):
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "relay.py").write_text("same size")
    (tmp_path / "current").symlink_to("old")
    monkeypatch.setattr(own_code, "loaded", lambda: [str(tmp_path / "current" / "relay.py")])
    async with following() as said:
        (tmp_path / "next").symlink_to("new")
        (tmp_path / "next").rename(tmp_path / "current")
        await eventually(lambda: said)


async def test_an_installation_half_way_is_waited_for(files, monkeypatch):
    monkeypatch.setattr(own_code, "SETTLED_S", 0.5)
    async with following() as said:
        for number in range(2, 30):
            files[0].write_text("x" * number)
            await asyncio.sleep(0.03)
            assert said == []
        await eventually(lambda: said)


def test_what_is_watched_is_our_own_code_and_all_of_it():
    code = (
        "from saia_engine.gate import own_code, start\n"
        "assert set(own_code.loaded()) <= set(own_code.installed())\n"
        "print(*own_code.loaded(), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    watched = {str(Path(line).relative_to(PACKAGE)) for line in done.stdout.split()}
    assert {"gate/relay.py", "gate/own_code.py", "wire/mux.py", "routes.py", "agent.py"} <= watched


async def test_code_that_was_replaced_while_it_was_loaded_is_known_as_such(files):
    said: list[str] = []
    before = own_code._stamps(own_code.loaded())
    files[0].write_text("22")
    task = asyncio.create_task(own_code.follow(before, lambda: said.append("replaced")))
    await eventually(lambda: said)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------- the program


@asynccontextmanager
async def relay(
    python_path: Path | None,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Mux, list[Control]]]:
    """A relay as a process, from a copy of the package where one is given."""
    site = Site()
    site.publish()
    run = f"import sys; sys.path.insert(0, {str(python_path)!r}); " if python_path else ""
    run += "from saia_engine.gate import own_code; own_code.LOOK_S = own_code.SETTLED_S = 0.05; "
    run += "code = own_code.installed(); from saia_engine.gate.start import start; "
    run += f"sys.exit(start({str(site.path)!r}, 'cloud', code))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", f"import sys; {run}",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    told: list[Control] = []
    mux = Mux(process.stdin.write, program="proxy", on_control=told.append)
    reading = asyncio.create_task(_read(process.stdout, mux))
    try:
        await eventually(lambda: any(isinstance(message, Routes) for message in told))
        yield process, mux, told
    finally:
        mux.close("the test is over")
        process.stdin.close()
        assert await process.wait() == 0
        await reading
        site.close()


async def _read(stdout: asyncio.StreamReader, mux: Mux) -> None:
    while data := await stdout.read(65536):
        mux.data_received(data)
    mux.connection_lost()


async def still_serves(mux: Mux) -> None:
    stream = mux.open(Open("k7f3.hpc.chat.0000", "GET", "/v1/x"))
    stream.end()
    with pytest.raises(StreamReset, match="no such instance"):
        await stream.response()


async def test_a_hang_up_signal_asks_for_a_new_connection_and_all_goes_on():
    async with relay(None) as (process, mux, told):
        assert Renew() not in told
        os.kill(process.pid, signal.SIGHUP)
        await eventually(lambda: Renew() in told)
        await still_serves(mux)


async def test_new_code_on_disk_asks_for_a_new_connection_and_all_goes_on(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "saia_engine", ignore=shutil.ignore_patterns("__pycache__"))
    async with relay(tmp_path) as (_, mux, told):
        await asyncio.sleep(0.5)
        assert Renew() not in told
        with (tmp_path / "saia_engine" / "wire" / "mux.py").open("a") as module:
            module.write("# newer\n")
        await eventually(lambda: Renew() in told)
        await still_serves(mux)
