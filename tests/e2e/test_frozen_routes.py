"""A gate that never hears of a drain by its file: the agent alone tells it, and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.e2e.installed import Installed
from tests.e2e.site import MODEL, SERVICE, Site
from tests.e2e.traffic import INSTANCE_HEADER
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd]

TIMES = 'replicas = 2\nmin_available = 1\ntime_limit = "1h"\nmin_ready = "1s"\nlead_floor = "1m"\n'
PER_SECOND = 20
ENDS_WITHIN_S = 2.0
SECONDS = 25.0
DRAIN_AFTER_S = 5.0


@pytest.fixture
def frozen_site(slurm: Cluster, installed: Installed) -> Iterator[Site]:
    """Its gate reads a copy of routes.json that nobody writes any more."""
    with Site(slurm, installed, SERVICE + TIMES) as running:
        running.start_engine()
        running.wait_ready(2)
        running.wait("both routes", lambda: running.routes.read_text().count('"instance":') == 2)
        running.open_gate(routes=running.freeze_routes())
        running.start_proxy()
        yield running


@dataclass
class Load:
    """Short requests at a steady rate and a few streams, over connections that are kept alive."""

    site: Site
    served: list[tuple[float, str]] = field(default_factory=list)
    """(when, instance) of each answer to a short request."""
    ended: list[tuple[float, str]] = field(default_factory=list)
    """The same of each stream, at its end."""
    faults: list[str] = field(default_factory=list)

    async def run(self) -> None:
        headers = {"authorization": f"Bearer {self.site.api_key}"}
        async with (
            httpx.AsyncClient(base_url=self.site.url, headers=headers, timeout=30) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(6):
                group.create_task(self._stream(client, 90 + 10 * number))
            began = time.monotonic()
            for number in range(int(SECONDS * PER_SECOND)):
                group.create_task(self._ask(client))
                await asyncio.sleep(max(0.0, began + (number + 1) / PER_SECOND - time.monotonic()))

    async def _ask(self, client: httpx.AsyncClient) -> None:
        answer = await self._post(client, 2, 1000)
        if answer is not None:
            self.served.append((time.time(), answer))

    async def _stream(self, client: httpx.AsyncClient, tokens: int) -> None:
        answer = await self._post(client, tokens, 10)
        if answer is not None:
            self.ended.append((time.time(), answer))

    async def _post(self, client: httpx.AsyncClient, tokens: int, rate: float) -> str | None:
        """The instance that answered right; None where the answer is a fault."""
        body = {
            "model": MODEL,
            "prompt": "count",
            "max_tokens": tokens,
            "tokens_per_second": rate,
            "stream": tokens > 2,
        }
        try:
            async with client.stream("POST", "/completions", json=body) as response:
                content = (await response.aread()).decode()
        except httpx.HTTPError as exc:
            self.faults.append(f"{type(exc).__name__}: {exc}")
            return None
        wanted = [f'"text": " {i}"' for i in range(1, tokens + 1)] if tokens > 2 else ['"text": " 1 2"']
        if response.status_code != 200 or not all(text in content for text in wanted):
            self.faults.append(f"{response.status_code}: {content[-300:]}")
            return None
        return response.headers[INSTANCE_HEADER]


@pytest.mark.timeout(240)
async def test_a_drain_ends_with_its_last_stream(frozen_site: Site):
    site = frozen_site
    old = (await asyncio.to_thread(site.instances, "ready"))[0]["id"]
    load = Load(site)
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(DRAIN_AFTER_S)
    ordered_at = time.time()
    drained = await asyncio.to_thread(site.command, "drain", old)
    assert drained.returncode == 0, drained.stderr
    await loading
    await asyncio.to_thread(site.wait, "the drain to end", lambda: cancels(site, old), 20)

    assert load.faults == []
    assert len(load.served) == SECONDS * PER_SECOND
    [cancel] = cancels(site, old)
    assert cancel["text"].startswith("drained: "), (
        "it ended because nothing was open, not because time was up"
    )
    drain = next(event for event in site.events("drain") if event["subject"] == old)
    assert ordered_at <= drain["at"]
    open_then = [at for at, instance in load.ended if instance == old and at > drain["at"]]
    assert len(open_then) >= 2, "streams were open on it when its drain began"
    # The engine may hear of an end a little before this busy client does.
    assert -0.5 < cancel["at"] - max(open_then) < ENDS_WITHIN_S
    shorts = [at for at, instance in load.served if instance == old]
    assert shorts and max(shorts) < drain["at"] + 1, "no request goes to an instance that drains"


def cancels(site: Site, instance: str) -> list[dict]:
    return [event for event in site.events("cancel") if event["subject"] == instance]
