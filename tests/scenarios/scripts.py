"""The scenarios. Each starts and ends on a quiet site, and tells what it came to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.scenarios.outcome import Outcome, Trial, settled
from tests.scenarios.port import Instance, Job, Site

REQUEUE_DELAY_S = 121.0
"""Slurm starts a requeued job so long after at the earliest."""
REQUEUE_LIMIT_S = REQUEUE_DELAY_S + 60.0
MINUTE_S = 60.0
TRIES = 12


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    run: Callable[[Site, Trial], Awaitable[Outcome]]
    expected: Outcome
    remembered: bool = False
    """The engine has seen failures, and holds back for an hour: what comes next needs a fresh site."""


def expected(*states: str, live: int = 2, alarms: str = "") -> Outcome:
    return Outcome(live, doubled=0, orphans=0, lost=0, states=states, alarms=frozenset(alarms.split()))


# ---------------------------------------------------------------- what Slurm's people do


async def requeue(site: Site, trial: Trial) -> Outcome:
    """The same job comes back as a new generation; no other takes its slot meanwhile."""
    hit = trial.first[0]
    await site.requeue(hit.job_id)
    await becomes(site, hit, "pending")
    await settled(site, site.replicas, REQUEUE_LIMIT_S)
    assert [i.generation for i in await site.instances() if i.id == hit.id] == [hit.generation + 1]
    return await trial.end(hit.id, allowed=site.replicas)


async def hold(site: Site, trial: Trial) -> Outcome:
    """A held job waits for as long as it is held, and is not fought."""
    hit = trial.first[0]
    await site.requeue(hit.job_id)
    await becomes(site, hit, "pending")
    await site.hold(hit.job_id)
    await site.sleep(REQUEUE_DELAY_S + 10)
    assert (await job_of(site, hit)).state == "PENDING"
    await site.release(hit.job_id)
    await settled(site, site.replicas, REQUEUE_LIMIT_S)
    return await trial.end(hit.id, allowed=site.replicas)


async def shorter_limit(site: Site, trial: Trial) -> Outcome:
    """The end comes early, and so does the replacement."""
    hit = trial.first[0]
    await site.set_limit(hit.job_id, await age(site, hit) + brink(site))
    await becomes(site, hit, "stopped", 4 * MINUTE_S)
    return await trial.end(hit.id, allowed=site.replicas + 1)


async def longer_limit(site: Site, trial: Trial) -> Outcome:
    """An end that is put off again, before anything was done for it, needs no replacement."""
    hit = trial.first[0]
    before = (await job_of(site, hit)).limit_s
    short_end = await move_end(site, hit, await age(site, hit) + brink(site))
    await move_end(site, hit, before)
    await site.sleep(short_end - site.now())
    assert not await trial.said("launch")
    return await trial.end(hit.id, allowed=site.replicas)


async def cancel_by_hand(site: Site, trial: Trial) -> Outcome:
    """It counts as a failure, and the slot is filled anew."""
    hit = trial.first[0]
    await site.cancel(hit.job_id)
    await becomes(site, hit, "failed")
    return await trial.end(hit.id, allowed=site.replicas)


async def node_drain(site: Site, trial: Trial) -> Outcome:
    """A replacement elsewhere while the node's job still runs."""
    hit = trial.first[0]
    await site.drain_node(hit.node)
    try:
        await becomes(site, hit, "stopped")
        await settled(site, site.replicas)
        assert hit.node not in {job.node for job in await site.jobs()}
    finally:
        await site.resume_node(hit.node)
    return await trial.end(hit.id, allowed=site.replicas + 1)


async def maintenance(site: Site, trial: Trial) -> Outcome:
    """A replacement elsewhere before the window begins."""
    hit = trial.first[0]
    begins = site.now() + brink(site)
    await site.reserve(hit.node, brink(site))
    try:
        await becomes(site, hit, "stopped", 3 * MINUTE_S)
        assert site.now() < begins
        await settled(site, site.replicas)
        assert hit.node not in {job.node for job in await site.jobs()}
    finally:
        await site.unreserve(hit.node)
    return await trial.end(hit.id, allowed=site.replicas + 1)


# ---------------------------------------------------------------- what fails


async def node_down(site: Site, trial: Trial) -> Outcome:
    """Slurm requeues the job, and starts it on another node."""
    hit = trial.first[0]
    await site.node_down(hit.node)
    try:
        await becomes(site, hit, "pending")
        await settled(site, site.replicas, REQUEUE_LIMIT_S)
        assert hit.node not in {job.node for job in await site.jobs()}
    finally:
        await site.node_up(hit.node)
    return await trial.end(hit.id, allowed=site.replicas)


async def controller_killed(site: Site, trial: Trial) -> Outcome:
    """Nothing is done while Slurm says nothing, and nothing has changed after."""
    hit = trial.first[0]
    await site.kill_controller()
    await site.next_poll()
    return await trial.end(hit.id, allowed=site.replicas)


async def cold_restart(site: Site, trial: Trial) -> Outcome:
    """Slurm has forgotten all jobs, and ends them; each slot is filled once."""
    hit = trial.first[0]
    await site.cold_restart()
    await becomes(site, hit, "failed", 2 * MINUTE_S)
    await settled(site, site.replicas, 2 * MINUTE_S)
    return await trial.end(hit.id, allowed=site.replicas)


async def accept_then_timeout(site: Site, trial: Trial) -> Outcome:
    """The submit that failed has run all the same, and is not made again."""
    for _ in range(TRIES):
        await site.next_poll()
        await site.stop_controller()
        try:
            await site.scale(site.replicas + 1)
            await site.wait_until("Slurm's silence to be met", lambda: _silence_was_met(trial), 30)
        finally:
            await site.continue_controller()
        await settled(site, site.replicas + 1, 2 * MINUTE_S)
        # The poll may have come first; then the submit has met a controller that answers.
        unknown = [e.subject for e in await trial.events() if e.code == "submit-unknown"]
        await site.scale(site.replicas)
        await settled(site, site.replicas)
        if unknown:
            # It may have started before the engine saw it wait; and it, or another, is given up again.
            chance = ("pending", "draining", "stopped")
            return await trial.end(unknown[0], allowed=site.replicas + 1, but_for=chance)
    raise AssertionError(f"no submit met the stopped controller in {TRIES} tries")


async def _silence_was_met(trial: Trial) -> bool:
    return await trial.said("submit-unknown") or await trial.said("slurm-unavailable")


# ---------------------------------------------------------------- in a script's words


async def becomes(site: Site, instance: Instance, state: str, limit_s: float = 60.0) -> None:
    async def holds() -> bool:
        return any(i.id == instance.id and i.state == state for i in await site.instances())

    await site.wait_until(f"{instance.id} to be {state}", holds, limit_s)


async def job_of(site: Site, instance: Instance) -> Job:
    return next(job for job in await site.jobs() if job.id == instance.job_id)


async def age(site: Site, instance: Instance) -> float:
    return site.now() - (await job_of(site, instance)).started_at


def brink(site: Site) -> float:
    """How long an instance has left at least that is to be replaced soon: in time, but not at once."""
    return MINUTE_S + 4 * site.poll_s


async def move_end(site: Site, instance: Instance, limit_s: float) -> float:
    """The new end, once the engine knows it."""

    async def end() -> float:
        return next(i.end or 0.0 for i in await site.instances() if i.id == instance.id)

    before = await end()
    await site.set_limit(instance.job_id, limit_s)

    async def moved() -> bool:
        return await end() != before

    await site.wait_until(f"the engine to see a new end of {instance.id}", moved)
    return await end()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("requeue", requeue, expected("pending", "starting", "ready")),
        Scenario("hold", hold, expected("pending", "starting", "ready")),
        Scenario("shorter-limit", shorter_limit, expected("draining", "stopped")),
        Scenario("longer-limit", longer_limit, expected()),
        Scenario("cancel-by-hand", cancel_by_hand, expected("failed"), remembered=True),
        Scenario("node-drain", node_drain, expected("draining", "stopped")),
        Scenario("maintenance", maintenance, expected("draining", "stopped")),
        Scenario("node-down", node_down, expected("pending", "starting", "ready")),
        Scenario("controller-killed", controller_killed, expected(alarms="slurm-unavailable")),
        Scenario(
            "cold-restart",
            cold_restart,
            expected("lost", "failed", alarms="slurm-unavailable mass-absence service-down"),
            remembered=True,
        ),
        Scenario(
            "accept-then-timeout", accept_then_timeout, expected("starting", "ready", alarms="submit-unknown")
        ),
    )
}
FAULTS = ("accept-then-timeout", "cold-restart", "requeue", "shorter-limit", "node-drain")
"""Those that `make test-slurm-faults` repeats."""
