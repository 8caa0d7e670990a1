import asyncio

import pytest

from saia_proxy import begun


async def test_it_runs_to_its_first_wait_at_once_and_goes_on_in_a_task():
    loop = asyncio.get_running_loop()
    bell = loop.create_future()
    said = []

    async def work():
        said.append("began")
        said.append(await bell)
        await asyncio.sleep(0)
        said.append(asyncio.current_task())

    task = begun.begin(work(), loop)
    assert task is not None
    assert said == ["began"]
    bell.set_result("rang")
    await task
    assert said == ["began", "rang", task]


async def test_what_never_waits_leaves_no_task():
    said = []

    async def work():
        said.append("done")

    assert begun.begin(work(), asyncio.get_running_loop()) is None
    assert said == ["done"]


async def test_what_fails_at_once_fails_its_caller_and_later_its_task():
    loop = asyncio.get_running_loop()

    async def work(*, wait: bool):
        if wait:
            await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ValueError):
        begun.begin(work(wait=False), loop)
    task = begun.begin(work(wait=True), loop)
    assert task is not None
    with pytest.raises(ValueError):
        await task


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancelled_at_any_time_it_cleans_up(turns):
    said = []

    async def work():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            said.append("cancelled")
            await asyncio.sleep(0)
            raise
        finally:
            said.append("cleaned up")

    task = begun.begin(work(), asyncio.get_running_loop())
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["cancelled", "cleaned up"]


async def test_a_time_limit_holds_before_there_is_a_task():
    said = []

    async def work():
        try:
            async with begun.time_limit(0.01):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            said.append("too late")

    task = begun.begin(work(), asyncio.get_running_loop())
    assert task is not None
    await task
    assert said == ["too late"]
