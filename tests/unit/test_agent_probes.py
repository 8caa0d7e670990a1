"""How the agent asks its service whether it can work and whether it lives, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from saia_engine import agent, front
from tests.unit.agent_support import Agents, RunningAgent, command, eventually, probe, status_with
from tests.unit.test_agent import PYTHONS

CHAT = "/v1/chat/completions"
COMPLETION = agent.Probe(agent.COMPLETION, CHAT, "llama", 0.01, 0.5, 3)
GET = agent.Probe(agent.HTTP, "/health", "", 0.01, 0.5, 3)
CHOICES = b'{"choices": [{"index": 0}]}'


@pytest.fixture
def agents() -> Iterator[Agents]:
    started = Agents()
    yield started
    started.close()


class Scripted:
    """A service that takes note of each request and answers with the script's next bytes, then with its last.

    None: it accepts and never answers.
    """

    def __init__(self, *script: bytes | None, closes: bool = True) -> None:
        self.asked: list[bytes] = []
        self._script = list(script)
        self._closes = closes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
        self.asked.append(head + body)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if answer is not None:
            for start in range(0, len(answer), 10_000):
                writer.write(answer[start : start + 10_000])
                await asyncio.sleep(0)
        if answer is None or not self._closes:
            await reader.read()
        writer.close()


@asynccontextmanager
async def served(service: Scripted) -> AsyncIterator[agent.Front]:
    """A front before the service."""
    way = agent.SocketService()
    try:
        async with await asyncio.start_unix_server(service, way.address):
            yield agent.Front("k7f3.hpc.chat.ab12", 0, way, agent.Gpus({}))
    finally:
        way.remove()


async def verdict(answer: bytes | None, asked: agent.Probe = COMPLETION, *, closes: bool = True) -> str:
    async with served(Scripted(answer, closes=closes)) as before:
        return await agent.ask(before.service, asked)


def answered(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


# ---------------------------------------------------------------- one question


async def test_a_completion_is_asked_for_one_token_of_the_model() -> None:
    service = Scripted(answered(CHOICES))
    async with served(service) as before:
        assert await agent.ask(before.service, COMPLETION) == ""
        assert await agent.ask(before.service, COMPLETION._replace(path="/v1/completions")) == ""
    (chat, chat_body), (plain, plain_body) = (request.split(b"\r\n\r\n") for request in service.asked)
    assert chat.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in chat
    message = {"role": "user", "content": "Hi"}
    assert json.loads(chat_body) == {"model": "llama", "max_tokens": 1, "messages": [message]}
    assert plain.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert json.loads(plain_body) == {"model": "llama", "max_tokens": 1, "prompt": "Hi"}


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize(
    "answer",
    [answered(CHOICES), answered(CHOICES, "201 Created"), chunked(CHOICES[:5], CHOICES[5:])],
)
async def test_a_completion_with_choices_is_good(answer: bytes, closes: bool) -> None:
    """Whether the service closes its connection, as it is asked to, or keeps it."""
    assert await verdict(answer, closes=closes) == ""


async def test_a_completion_that_ends_with_its_connection_is_good() -> None:
    assert await verdict(b"HTTP/1.0 200 OK\r\n\r\n" + CHOICES) == ""


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answered(b"boom", "500 Internal Server Error"), f"{CHAT} answered 500"),
        (answered(CHOICES, "404 Not Found"), f"{CHAT} answered 404"),
        (answered(CHOICES, "302 Found"), f"{CHAT} answered 302"),
        (answered(b"<html>"), f"{CHAT} answered no JSON"),
        (answered(b"\xff"), f"{CHAT} answered no JSON"),
        (answered(b"[" * 60_000), f"{CHAT} answered no JSON"),
        (answered(b""), f"{CHAT} answered no JSON"),
        (answered(b"[]"), f"{CHAT} answered without choices"),
        (answered(b'{"choices": []}'), f"{CHAT} answered without choices"),
        (answered(b'{"choices": "x"}'), f"{CHAT} answered without choices"),
        (answered(b'{"error": {}}'), f"{CHAT} answered without choices"),
        (answered(CHOICES)[:-3], f"{CHAT}: the answer ended in its middle"),
        (chunked(CHOICES)[:-9], f"{CHAT}: the answer ended in its middle"),
        (b"HTTP/1.1 200 OK\r\nContent-", f"{CHAT}: the answer ended in its middle"),
        (answered(b" " * 70_000 + CHOICES), f"{CHAT}: the answer is longer than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", f"{CHAT}: no HTTP answer: "),
        (b"SSH-2.0-OpenSSH\r\n", f"{CHAT} gave no HTTP answer"),
        (b"", f"{CHAT} gave no HTTP answer"),
        (b"x" * 70_000, f"{CHAT}: "),
        (None, f"no answer to {CHAT} within 0.5 s"),
    ],
    ids=range(20),
)
async def test_what_is_no_completion_is_told_in_a_sentence(answer: bytes | None, fault: str) -> None:
    found = await verdict(answer)
    assert found.startswith(fault)
    assert len(found) < 200 and "\n" not in found


async def test_an_answer_that_drips_for_ever_ends_with_the_probe() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.02)

    way = agent.SocketService()
    async with await asyncio.start_unix_server(drip, way.address):
        began = time.monotonic()
        assert await agent.ask(way, COMPLETION) == f"no answer to {CHAT} within 0.5 s"
        assert time.monotonic() - began < 2
    way.remove()


# ---------------------------------------------------------------- many in a row

OK, SICK = answered(b""), answered(b"", "503 Sick")


async def seen(
    watch: Callable[[agent.Front, agent.Probe], Any], look: Callable[[agent.Front], object], *script: bytes
) -> list[object]:
    """What `look` sees of the front at each question, until the script has ended."""
    states: list[object] = []
    service = Scripted(*script)
    async with served(service) as before:
        before.served.set()

        class Noted(list):
            def append(self, request: bytes) -> None:
                states.append(look(before))
                super().append(request)

        service.asked = Noted()
        task = asyncio.ensure_future(watch(before, GET))
        await eventually(lambda: len(service.asked) > len(script))
        task.cancel()
    return states[1 : len(script) + 1]


async def test_readiness_falls_with_the_last_failure_of_a_row_and_rises_with_one_success() -> None:
    ready = await seen(
        agent.watch_readiness, lambda front: front.ready, OK, SICK, SICK, OK, SICK, SICK, SICK, OK
    )
    assert ready == [True, True, True, True, True, True, False, True]


async def test_life_ends_with_the_last_failure_of_a_row_and_comes_back_with_one_success() -> None:
    alive = await seen(
        agent.watch_liveness, lambda front: front.alive, SICK, SICK, OK, SICK, SICK, SICK, SICK, OK
    )
    assert alive == [True, True, True, True, True, False, False, True]


async def test_while_it_is_not_ready_a_service_is_asked_more_often() -> None:
    service = Scripted(SICK)
    async with served(service) as before:
        task = asyncio.ensure_future(agent.watch_readiness(before, GET._replace(interval_s=60.0)))
        await eventually(lambda: len(service.asked) > 2)
        task.cancel()


# ---------------------------------------------------------------- the agent as a process

IMPATIENT = {"interval_s": 0.05, "timeout_s": 0.2, "failures": 3}


async def steer(running: RunningAgent, trouble: str, there: bool) -> None:
    file = running.directory / trouble
    file.touch() if there else file.unlink()


@pytest.mark.parametrize("listen", ["socket", "port"])
@pytest.mark.parametrize("python", PYTHONS)
async def test_a_service_that_accepts_and_never_answers_is_not_alive_but_still_drains(
    agents: Agents, python: str, listen: str
) -> None:
    running = agents.start(
        python=python, listen=listen, readiness=probe(interval_s=60), liveness=probe(**IMPATIENT)
    )
    await running.ready()
    status = await running.status()
    assert (status["alive"], status["fault"]) == (True, "")
    await steer(running, "hang", True)
    async with running.connected(front.CONTROL) as control:
        status = await status_with(control, lambda status: not status["alive"])
        assert status["fault"] == "liveness probe failed 3 times in a row: no answer to /health within 0.2 s"
        assert (status["ready"], status["open"]) == (True, 0)
        status = await command(*control, agent.DRAINING)
        assert (status["state"], status["open"], status["alive"]) == ("draining", 0, False)
        for hangs in (False, True):  # and is asked on while it drains
            await steer(running, "hang", hangs)
            async with asyncio.timeout(10):
                while (await command(*control, agent.DRAINING))["alive"] is hangs:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
    running.process.terminate()
    await running.ended()
    assert running.exit_record.stopped_by == "term"
    assert running.log.count("alive again") == 1
    assert "Traceback" not in running.log


async def test_a_service_that_answers_500_is_not_alive(agents: Agents) -> None:
    running = agents.start(liveness=probe(**IMPATIENT))
    await running.ready()
    await steer(running, "sick", True)
    async with running.connected(front.CONTROL) as control:
        status = await status_with(control, lambda status: not status["alive"])
    assert status["fault"] == "liveness probe failed 3 times in a row: /health answered 503"


async def test_a_service_that_still_loads_is_not_asked_whether_it_lives(agents: Agents) -> None:
    running = agents.start(command=["/bin/sleep", "60"], liveness=probe(**IMPATIENT))
    await running.up()
    await asyncio.sleep(1)
    status = await running.status()
    assert (status["ready"], status["alive"]) == (False, True)


@pytest.mark.parametrize("python", PYTHONS)
async def test_a_completion_of_the_demos_model(agents: Agents, python: str) -> None:
    server = [sys.executable, "-m", "saia_engine.demo.llm", "--uds", "{socket}", "--model", "count"]
    asked = {"kind": "completion", "path": CHAT, "model": "count"}
    running = agents.start(
        python=python, command=server, readiness=probe(**asked), liveness=probe(**asked, **IMPATIENT)
    )
    await running.ready()
    await asyncio.sleep(1)
    status = await running.status()
    assert (status["ready"], status["alive"], status["fault"]) == (True, True, "")
    assert "Traceback" not in running.log


async def test_a_model_that_the_service_does_not_know_is_never_ready(agents: Agents) -> None:
    server = [sys.executable, "-m", "saia_engine.demo.llm", "--uds", "{socket}", "--model", "count"]
    running = agents.start(
        command=server, readiness=probe(kind="completion", path=CHAT, model="other", **IMPATIENT)
    )
    await running.up()
    async with running.connected(front.CONTROL) as control:
        status = await status_with(control, lambda status: "answered 404" in status["fault"])
    assert not status["ready"]
