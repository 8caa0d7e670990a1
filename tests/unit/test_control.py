"""The engine's loops: who hangs in an act still hears and tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from saia_engine.control import Control, Pace
from saia_engine.model import Override, State
from saia_engine.slurm.port import JobRequest
from tests.unit.memory_slurm import Bench


class Published:
    """In place of the publisher: which instances were ready when."""

    def __init__(self) -> None:
        self.ready: list[frozenset[str]] = []

    def publish(self, *, instances, **rest) -> None:
        self.ready.append(frozenset(i.id for i in instances.values() if i.state is State.READY))

    def withdraw(self, **rest) -> None:
        pass


async def test_while_a_submit_hangs_who_stops_serving_leaves_the_routes(bench: Bench) -> None:
    (ill, well) = await bench.settled()
    hangs, going_on = asyncio.Event(), asyncio.Event()

    async def submit(request: JobRequest) -> int:
        hangs.set()
        await going_on.wait()
        return 99

    bench.slurm.submit = submit  # type: ignore[method-assign]
    published, wake = Published(), asyncio.Event()
    control = Control(
        bench.reconciler,
        bench.ears,  # type: ignore[arg-type]
        published,  # type: ignore[arg-type]
        {},
        wake=wake,
        pace=Pace(60.0, react_at_most_s=0.05, react_at_least_s=0.01),
        now=lambda: bench.slurm.now,
    )
    loops = [asyncio.ensure_future(loop) for loop in control.loops()]
    try:
        async with asyncio.timeout(5.0):
            while not published.ready or bench.reconciler.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            bench.reconciler.set_override(Override("chat", 3, 0, bench.slurm.now))
            wake.set()
            await hangs.wait()  # in a reaction: the next poll is a minute away
            bench.ears.statuses[ill.id] = replace(bench.ears.statuses[ill.id], ready=False)
            wake.set()
            while frozenset({well.id}) not in published.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not going_on.is_set() and bench.reconciler.busy
    finally:
        going_on.set()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
