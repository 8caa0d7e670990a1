"""What a scenario may see and do: one engine with one service, and Slurm's administrator beside it.

`real` is the production engine on slurmctld and slurmd. All waiting goes through the port, so that a virtual
clock can stand behind it; nothing else in a scenario knows of time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


class NeverHappened(AssertionError):
    """A scenario waited for it in vain; the text says for what, and what was there instead."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the site's installation that has not ended, in Slurm's own words."""

    id: int
    name: str
    state: str
    """`PENDING`, `RUNNING`, `COMPLETING`, ..."""
    node: str
    """Empty while it waits."""
    limit_s: float
    started_at: float
    """0 while it waits."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as the engine tells of it."""

    id: str
    state: str
    job_id: int
    node: str
    replaces: str
    generation: int
    end: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the engine's journal. States of instances come as `instance-ready`, `drain`, ..."""

    seq: int
    """Rises from line to line."""
    code: str
    subject: str
    severity: str


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watch saw from its beginning to its end, by other eyes than the engine's."""

    most_live: int
    """Live jobs at once, those that complete left out."""
    twins: int
    """Names that two live jobs had at once."""
    requests: int
    """Sent by the clients."""
    lost: int
    """Of these, not answered whole though a healthy instance was there; `cut` is left out."""
    cut: int
    """Of these, under way on an instance when its job was ended from outside."""


class Watch(Protocol):
    """Clients that send requests all the time, and an eye on Slurm's queue."""

    async def end(self) -> Watched:
        """Send no more, wait for what is open, and tell."""
        ...


class Site(Protocol):
    """One service of `replicas` instances on at least that many nodes and one more; nothing else on them."""

    replicas: int
    poll_s: float
    """Between two of the engine's polls."""

    # -- time

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    async def wait_until(
        self, what: str, holds: Callable[[], Awaitable[bool]], limit_s: float = 60.0
    ) -> None:
        """Ask again and again until it holds. Raises NeverHappened."""
        ...

    async def next_poll(self) -> None:
        """Until the engine has just taken in an answer of Slurm."""
        ...

    # -- what can be seen

    async def jobs(self) -> tuple[Job, ...]: ...

    async def instances(self) -> tuple[Instance, ...]:
        """All that the engine knows, those that ended a short while ago included."""
        ...

    async def events(self) -> tuple[Event, ...]:
        """The newest, in the order in which they happened."""
        ...

    async def watch(self) -> Watch: ...

    # -- what an operator of saia does

    async def scale(self, replicas: int) -> None: ...

    # -- what Slurm's users and administrators do

    async def requeue(self, job_id: int) -> None: ...

    async def hold(self, job_id: int) -> None:
        """Of a job that waits."""
        ...

    async def release(self, job_id: int) -> None: ...

    async def set_limit(self, job_id: int, seconds: float) -> None:
        """Of the whole time limit; Slurm rounds up to minutes."""
        ...

    async def cancel(self, job_id: int) -> None: ...

    async def drain_node(self, name: str) -> None: ...

    async def resume_node(self, name: str) -> None: ...

    async def reserve(self, node: str, after_s: float) -> None:
        """For an hour of maintenance; its jobs are not asked."""
        ...

    async def unreserve(self, node: str) -> None: ...

    # -- what fails

    async def node_down(self, name: str) -> None:
        """It loses its power, with all that runs there, and Slurm notices."""
        ...

    async def node_up(self, name: str) -> None: ...

    async def kill_controller(self) -> None:
        """`kill -9`; it is started again a few seconds later, with its state."""
        ...

    async def cold_restart(self) -> None:
        """`kill -9`; it is started again without its state: it knows no job."""
        ...

    async def stop_controller(self) -> None:
        """It takes in what it is asked, and answers nothing, until `continue_controller`."""
        ...

    async def continue_controller(self) -> None: ...
