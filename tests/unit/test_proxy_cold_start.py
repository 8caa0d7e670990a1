"""A client that asks before its service is ready: the official client, the proxy's program, the real gate and agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from openai import AsyncOpenAI

from tests.unit.agent_support import eventually
from tests.unit.openai_site import KEY, Chain, chain

HELLO = [{"role": "user", "content": "good morning"}]


@pytest.fixture
def site() -> Iterator[Chain]:
    with chain(starting=True, more='[queue]\nmax_wait = "10m"\nheartbeat = "1s"\n') as site:
        yield site


async def test_who_asks_before_anything_is_ready_gets_all_of_the_answer(site: Chain):
    options = {"base_url": f"{site.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 60}
    async with AsyncOpenAI(**options) as client:
        asked = client.chat.completions.create(model="llama", messages=HELLO)
        whole = asyncio.create_task(asked)
        # Its head comes with the first comment.
        stream = await client.chat.completions.create(
            model="llama",
            messages=HELLO,
            stream=True,
            max_tokens=300,
            extra_headers={"x-request-id": "early"},
        )
        assert stream.response.headers["x-request-id"] == "early"
        assert not whole.done()
        await site.agent.ready()
        site.publish()
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "".join(f"{number} " for number in range(300))
        assert (await whole).choices[0].message.content == HELLO[0]["content"]

    def logged() -> list[dict]:
        return [json.loads(line) for line in site.log.splitlines() if '"request_id":"early"' in line]

    [line] = await eventually(logged)
    assert (line["status"], line["outcome"], line["service"]) == (200, "ok", "chat")
    assert line["ms"] > 1000
