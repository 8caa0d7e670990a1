"""A request costs the HPC side no process: one relay carries them all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from tests.e2e.site import MODEL, Site
from tests.slurm.keeper import descendants

pytestmark = [pytest.mark.real_slurm, pytest.mark.real_sshd]

REQUESTS = 1000
AT_ONCE = 20


@dataclass(frozen=True)
class Process:
    pid: int
    started: int
    children_faults: int
    """Page faults of the children that it has waited for: the kernel's mark of each process that ended."""


def processes(*roots: int, without: tuple[str, ...]) -> dict[int, Process]:
    """All that descend from the roots, but for the programs of these names and what descends from them."""
    named = {pid: command_line(pid) for root in roots for pid in descendants(root)}
    left_out = {pid for pid, line in named.items() if any(name in line for name in without)}
    left_out |= {below for pid in left_out for below in descendants(pid)}
    return {pid: _process(pid) for pid in named.keys() - left_out}


def command_line(pid: int) -> str:
    """Empty for one that has just gone, as the engine's children do."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def _process(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(pid, int(fields[19]), int(fields[8]))


async def ask_all(site: Site, number: int) -> list[str]:
    """The answers to so many requests, each streamed or not."""
    places = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(base_url=site.url, api_key=site.api_key, max_retries=0) as client:

        async def ask() -> str:
            async with places:
                answer = await client.completions.create(
                    model=MODEL, prompt="count", max_tokens=3, extra_body={"tokens_per_second": 1000}
                )
                return answer.choices[0].text

        return await asyncio.gather(*(ask() for _ in range(number)))


@pytest.mark.timeout(240)
async def test_a_thousand_requests_start_no_process(site: Site):
    await asyncio.to_thread(site.wait_settled, 2)
    assert await ask_all(site, AT_ONCE) == [" 1 2 3"] * AT_ONCE
    roots = (site.daemons.pid, site.cluster.keeper_pid)
    # The engine asks Slurm all the time, and the proxy is another machine's.
    aside = ("saia-engine", "saia-proxy")
    before = processes(*roots, without=aside)
    assert await ask_all(site, REQUESTS) == [" 1 2 3"] * REQUESTS
    after = processes(*roots, without=aside)
    lines = [command_line(pid) for pid in after]
    for part in ("saia_engine.gate", "sshd", "agent.py", "saia_engine.demo.llm", "slurmd", "slurmctld"):
        assert any(part in line for line in lines), f"{part} was not counted"
    assert after == before, "a process was started, has ended, or has waited for a child"
