"""`curl -N` as its user would call it: each event is shown as it comes."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from saia_engine.wire.messages import Head
from saia_engine.wire.stream import Stream
from tests.unit.proxy_gate import EVENTS, Gate, instance, read_all, service
from tests.unit.proxy_running import KEY, config, running

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


async def test_curl_shows_each_event_as_it_comes(tmp_path):
    seen = asyncio.Semaphore(0)

    async def one_by_one(stream: Stream) -> None:
        await read_all(stream)
        stream.respond(Head(200, EVENTS))
        for number in range(5):
            await stream.send(b"data: %d\n\n" % number)
            await seen.acquire()  # no more before curl showed this one
        await stream.send(b"data: [DONE]\n\n")
        stream.end()

    gate = Gate([service()], [instance("one")])
    gate.answers["one"] = one_by_one
    async with running(config(tmp_path, "a"), gate) as proxy:
        curl = await asyncio.create_subprocess_exec(
            *("curl", "--no-progress-meter", "-N", "-i"),
            *("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"),
            *("-d", '{"model": "llama", "stream": true}'),
            f"http://127.0.0.1:{proxy.port}/v1/completions",
            stdout=asyncio.subprocess.PIPE,
        )
        assert curl.stdout is not None
        shown: list[bytes] = []
        async with asyncio.timeout(20):
            while line := await curl.stdout.readline():
                shown.append(line.rstrip(b"\r\n"))
                if line.startswith(b"data: ") and b"DONE" not in line:
                    seen.release()
            assert await curl.wait() == 0
    assert shown[0] == b"HTTP/1.1 200 OK"
    assert b"content-type: text/event-stream" in shown
    assert [line for line in shown if line.startswith(b"data: ")] == [
        *(b"data: %d" % number for number in range(5)),
        b"data: [DONE]",
    ]
