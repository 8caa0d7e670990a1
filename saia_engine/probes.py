"""The engine's ear at each instance: one control connection to its agent, from first endpoint to last status."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from saia_engine import agent, front
from saia_engine.edge.logs import get_logger
from saia_engine.front import Endpoint, EndpointFault, FrontError, FrontUntrusted
from saia_engine.instance_dirs import Directories
from saia_engine.model import AgentStatus, Gpu, ProbeSpec

INTERVAL_S = 2.0
DRAIN_INTERVAL_S = 0.5
"""A drain that is complete should be seen soon: its GPUs are wanted."""
RETRY_S = 1.0
SILENT_S = 10.0
"""Without a word for so long, what keeps it silent is a fault; before, it may be starting or ending."""
RECHECK_S = 5.0
"""Between two looks at an endpoint file that is known."""
REPLY_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 10.0
"""For our own request through the front, or the probe's timeout where that is longer."""
MAX_STATUS_BYTES = 64 * 1024

_BROKEN = (FrontError, OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError)
"""What a connection to an agent may end in."""

log = get_logger("probes")


@dataclass(frozen=True, slots=True)
class Target:
    """A started instance: where Slurm says it runs, and what we want of it."""

    instance: str
    generation: int
    address: str
    node_names: tuple[str, ...]
    """What its endpoint file may call its host."""
    readiness: ProbeSpec
    drain: bool = False


class Ears(Protocol):
    """What the reconciler hears of the agents; each mapping goes by instance."""

    @property
    def statuses(self) -> Mapping[str, AgentStatus]:
        """The newest word of each."""
        ...

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """What their endpoint files say, once proven."""
        ...

    @property
    def faults(self) -> Mapping[str, str]:
        """What is wrong with an endpoint file or an agent's proof."""
        ...

    @property
    def listening_since(self) -> Mapping[str, float]: ...

    def watch(self, targets: Iterable[Target]) -> None:
        """The whole set to listen to from now on."""
        ...

    async def close(self) -> None: ...


class Probes:
    """`statuses` and `endpoints` hold the newest word of each watched instance; `on_change` tells of news."""

    def __init__(
        self, dirs: Directories, now: Callable[[], float], on_change: Callable[[], None], port_range: range
    ) -> None:
        self.statuses: dict[str, AgentStatus] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.faults: dict[str, str] = {}
        """By instance: what is wrong with its endpoint file or its agent's proof."""
        self.listening_since: dict[str, float] = {}
        self._dirs = dirs
        self._now = now
        self._on_change = on_change
        self._port_range = port_range
        self._targets: dict[str, Target] = {}
        self._tasks: dict[str, tuple[Target, asyncio.Task[None], asyncio.Event]] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        """The whole set to watch from now on; what is not in it is let go."""
        wanted: Mapping[str, Target] = {t.instance: t for t in targets}
        for name, (target, task, wake) in list(self._tasks.items()):
            new = wanted.get(name)
            if new is None or (new.generation, new.address) != (target.generation, target.address):
                task.cancel()
                del self._tasks[name]
                for known in (self.statuses, self.endpoints, self.faults, self.listening_since):
                    known.pop(name, None)
            elif new.drain != self._targets[name].drain:
                wake.set()
        self._targets = dict(wanted)
        for name, target in wanted.items():
            if name not in self._tasks:
                wake = asyncio.Event()
                self.listening_since[name] = self._now()
                self._tasks[name] = (target, asyncio.create_task(self._follow(target, wake)), wake)

    async def close(self) -> None:
        tasks = [task for _, task, _ in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, target: Target, wake: asyncio.Event) -> None:
        while True:
            try:
                endpoint = self.endpoints.get(target.instance) or await self._read(target)
                if endpoint is not None:
                    await self._converse(target, endpoint, wake)
            except EndpointFault as exc:
                self._fault(target, f"endpoint file: {exc}")
            except FrontUntrusted as exc:
                self._fault(target, f"agent: {exc}")
            except _BROKEN as exc:
                if self._silent(target):
                    self._fault(target, f"agent: {exc or type(exc).__name__}")
            await asyncio.sleep(RETRY_S)

    async def _read(self, target: Target) -> Endpoint | None:
        """Port, protocol and secrets are believed; the address is Slurm's for the job's node.

        Raises EndpointFault.
        """
        endpoint = await asyncio.to_thread(self._dirs.endpoint, target.instance, target.generation)
        if endpoint is None:
            return None
        if endpoint.port not in self._port_range:
            raise EndpointFault(f"port {endpoint.port} is outside port_range")
        self._look_at_host(target, endpoint)
        return endpoint

    def _look_at_host(self, target: Target, endpoint: Endpoint) -> None:
        if endpoint.host in (*target.node_names, target.address):
            self._clear(target, "endpoint file")
            return
        self._fault(
            target,
            f"endpoint file: names host {endpoint.host}, but Slurm runs the job on"
            f" {target.node_names[0]}; its host is ignored",
        )

    async def _guard_file(self, target: Target, proven: Endpoint) -> None:
        """An agent writes its endpoint file once: what it says later is somebody else's word."""
        while True:
            await asyncio.sleep(RECHECK_S)
            try:
                now = await asyncio.to_thread(self._dirs.endpoint, target.instance, target.generation)
            except EndpointFault as exc:
                self._fault(target, f"endpoint file: changed since it was proven, and ignored: {exc}")
                continue
            if now in (proven, None):
                self._look_at_host(target, proven)
            else:
                self._fault(target, "endpoint file: changed since it was proven; the change is ignored")

    def _silent(self, target: Target) -> bool:
        status = self.statuses.get(target.instance)
        since = self.listening_since.get(target.instance, 0.0) if status is None else status.seen_at
        return self._now() - since > SILENT_S

    def _fault(self, target: Target, text: str) -> None:
        if self.faults.get(target.instance) != text:
            self.faults[target.instance] = text
            log.warning("agent_fault", instance=target.instance, fault=text)
            self._on_change()

    def _clear(self, target: Target, kind: str) -> None:
        if self.faults.get(target.instance, "").startswith(f"{kind}:"):
            del self.faults[target.instance]
            self._on_change()

    async def _converse(self, target: Target, endpoint: Endpoint, wake: asyncio.Event) -> None:
        reader, writer = await front.connect(
            target.address,
            endpoint.port,
            front.CONTROL,
            secret=endpoint.control_secret,
            instance=target.instance,
            generation=target.generation,
        )
        # A task of its own: a shared file system that hangs must not make the agent look silent.
        guard = asyncio.create_task(self._guard_file(target, endpoint))
        verified, verifying = asyncio.Event(), None
        try:
            self.endpoints[target.instance] = endpoint
            self._clear(target, "agent")
            while True:
                wake.clear()
                current = self._targets.get(target.instance, target)
                want = "draining" if current.drain else "serving"
                writer.write(json.dumps({"want": want}).encode() + b"\n")
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    line = await reader.readuntil(b"\n")
                status = parse_status(line, self._now())
                if status.draining or not status.ready:
                    # Its request would count as open, and a drain wait for it.
                    verifying = _give_up(verifying)
                elif verifying is None and not verified.is_set():
                    verifying = asyncio.create_task(self._verify(target, endpoint, verified, wake))
                self._note(target, replace(status, verified=verified.is_set()))
                await _wait(wake, DRAIN_INTERVAL_S if current.drain else INTERVAL_S)
        finally:
            guard.cancel()
            _give_up(verifying)
            writer.close()

    def _note(self, target: Target, status: AgentStatus) -> None:
        before = self.statuses.get(target.instance)
        self.statuses[target.instance] = status
        if before is None or replace(before, seen_at=0.0) != replace(status, seen_at=0.0):
            self._on_change()

    async def _verify(
        self, target: Target, endpoint: Endpoint, verified: asyncio.Event, wake: asyncio.Event
    ) -> None:
        """Beside the conversation: a service that hangs must not make its agent look silent."""
        while not await self._request_once(target, endpoint):  # noqa: ASYNC110
            await asyncio.sleep(INTERVAL_S)
        verified.set()
        wake.set()

    async def _request_once(self, target: Target, endpoint: Endpoint) -> bool:
        """One request through the front as a client's would go: proof that the way is open."""
        try:
            async with asyncio.timeout(max(REQUEST_TIMEOUT_S, target.readiness.timeout_s)):
                reader, writer = await front.connect(
                    target.address,
                    endpoint.port,
                    front.DATA,
                    secret=endpoint.gate_secret,
                    instance=target.instance,
                    generation=target.generation,
                )
                try:
                    return not await agent.put_question(reader, writer, target.readiness)
                finally:
                    _reset(writer)
        except _BROKEN:
            return False


def parse_status(line: bytes, now: float) -> AgentStatus:
    """An agent's answer on its control connection. Raises ValueError."""
    try:
        data = json.loads(line)
        state, ready, opened = data["state"], data["ready"], data["open"]
        gpus = tuple(_gpu(item) for item in data.get("gpus", [])[:64])
        fault = str(data.get("fault", ""))[:500]
        # An agent that was launched by an older engine says nothing of these.
        alive, served = data.get("alive", True), data.get("served", False)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise ValueError(f"a status that can't be read: {exc}") from exc
    truths = all(isinstance(value, bool) for value in (ready, alive, served))
    if state not in ("serving", "draining") or not truths:
        raise ValueError("a status with an unknown state")
    if type(opened) is not int or opened < 0:
        raise ValueError("a status without a count of open connections")
    return AgentStatus(now, ready, state == "draining", opened, False, gpus, fault, alive, served)


def _gpu(item: dict[str, object]) -> Gpu:
    def number(key: str) -> float | None:
        value = item.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value)

    return Gpu(
        int(number("index") or 0), number("utilisation"), number("memory_used"), number("memory_total")
    )


def _reset(writer: asyncio.StreamWriter) -> None:
    """A plain close is a half-close to the agent: a service that hangs would keep the connection open."""
    link = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _give_up(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
