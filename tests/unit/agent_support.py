"""Runs the real agent as a process over a real small service, and leaves nothing of it behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from saia_engine import agent, front

SERVICE = [sys.executable, str(Path(__file__).with_name("agent_service.py"))]
INSTANCE = "k7f3.hpc.chat.ab12"
PATIENCE_S = 60.0

T = TypeVar("T")


def probe(**changes: Any) -> dict[str, Any]:
    """As in launch.json."""
    usual = {
        "kind": "http",
        "path": "/health",
        "model": "",
        "interval_s": 2.0,
        "timeout_s": 5.0,
        "failures": 3,
    }
    return usual | changes


def launch_content(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "instance": INSTANCE,
        "service": "chat",
        "command": SERVICE,
        "script": "",
        "listen": "socket",
        "environment": {},
        "readiness": probe(),
        "liveness": None,
        "port_range": [21000, 29999],
        "stop_grace_s": 5,
    } | changes


async def eventually(look: Callable[[], T]) -> T:
    """The first true value of `look`."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(0.02)
    return found


class RunningAgent:
    """One agent process in an instance directory of its own."""

    def __init__(self, directory: Path, generation: int, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.generation = generation
        self.process = process

    @property
    def log(self) -> str:
        return (self.directory / "output.log").read_text(errors="replace")

    @property
    def endpoint(self) -> front.Endpoint:
        return front.parse_endpoint((self.directory / front.endpoint_name(self.generation)).read_text())

    @property
    def exit_record(self) -> front.ExitRecord:
        return front.parse_exit((self.directory / front.exit_name(self.generation)).read_text())

    async def up(self) -> None:
        """Waits until the front listens."""
        path = self.directory / front.endpoint_name(self.generation)
        await eventually(lambda: path.exists() or self.process.poll() is not None)
        assert path.exists(), self.log

    async def ready(self) -> None:
        """Waits until the agent calls its service ready."""
        await self.up()
        async with self.connected(front.WATCH) as (reader, _):
            while not json.loads(await reader.readline())["ready"]:
                pass

    async def ended(self) -> int:
        await eventually(lambda: self.process.poll() is not None)
        return self.process.returncode

    def address(self, role: str) -> dict[str, Any]:
        endpoint = self.endpoint
        secret = endpoint.control_secret if role == front.CONTROL else endpoint.gate_secret
        return {
            "host": "127.0.0.1",
            "port": endpoint.port,
            "role": role,
            "secret": secret,
            "instance": INSTANCE,
            "generation": self.generation,
        }

    @asynccontextmanager
    async def connected(
        self, role: str, **changes: Any
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await front.connect(**self.address(role) | changes)
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield reader, writer
        finally:
            writer.transport.abort()

    async def ask(self, request: str) -> bytes:
        """All that comes back for one request line, over a connection of its own."""
        async with self.connected(front.DATA) as (reader, writer):
            writer.write(f"{request} HTTP/1.1\r\n\r\n".encode())
            return await reader.read()

    async def facts(self) -> dict[str, Any]:
        """What the service sees of its surroundings."""
        return json.loads((await self.ask("GET /facts")).partition(b"\r\n\r\n")[2])

    async def status(self, want: str = agent.SERVING) -> dict[str, Any]:
        async with self.connected(front.CONTROL) as (reader, writer):
            return await command(reader, writer, want)


async def command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, want: str) -> dict[str, Any]:
    writer.write(json.dumps({"want": want}).encode() + b"\n")
    return json.loads(await reader.readline())


async def status_with(
    control: tuple[asyncio.StreamReader, asyncio.StreamWriter], wanted: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """The first status that is as wanted."""
    while True:
        status = await command(*control, agent.SERVING)
        if wanted(status):
            return status
        await asyncio.sleep(0.02)


class Agents:
    """Starts agents for one test, and ends what is left of them."""

    def __init__(self) -> None:
        self._started: list[RunningAgent] = []

    def start(
        self,
        *,
        python: str = sys.executable,
        generation: int | None = None,
        surroundings: dict[str, str] | None = None,
        pace: str = "",
        pass_fds: tuple[int, ...] = (),
        **launch: Any,
    ) -> RunningAgent:
        """`launch` changes launch.json, `surroundings` are the job's environment.

        `pace` is assignments to the agent's constants, for a test that can't wait as long as they say.
        """
        directory = Path(tempfile.mkdtemp(prefix="saia-test-", dir="/tmp"))
        (directory / "tmp").mkdir()
        (directory / agent.LAUNCH_NAME).write_text(json.dumps(launch_content(**launch)))
        program = [str(shutil.copy(agent.__file__, directory / "agent.py"))]
        if pace:
            program = ["-c", f"import sys, agent; {pace}; sys.exit(agent.main(sys.argv[1:]))"]
        environment = os.environ | {"TMPDIR": str(directory / "tmp")} | (surroundings or {})
        environment.pop("SLURM_RESTART_COUNT", None)
        if generation is not None:
            environment["SLURM_RESTART_COUNT"] = str(generation)
        with (directory / "output.log").open("wb") as log:
            process = subprocess.Popen(
                [python, *program, str(directory)],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        running = RunningAgent(directory, generation or 0, process)
        self._started.append(running)
        return running

    def close(self) -> None:
        for running in self._started:
            for pid in session_members(running.process.pid):
                os.kill(pid, signal.SIGKILL)
            running.process.wait()
            shutil.rmtree(running.directory)


def session_members(session: int) -> list[int]:
    """Living processes of a session: the agent and all that came of it."""
    members = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, number = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(number) == session and state != "Z":
            members.append(int(entry.name))
    return members
