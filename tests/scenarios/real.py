"""The production engine, gate and proxy on a real slurmctld and slurmd, behind the scenarios' port."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.e2e.installed import Installed
from tests.e2e.site import MODEL, SERVICE
from tests.e2e.site import Site as Chain
from tests.e2e.traffic import Answer, Traffic
from tests.scenarios.outcome import ENDED
from tests.scenarios.port import Event, Instance, Job, NeverHappened, Watched
from tests.slurm.cluster import Cluster
from tests.slurm.keeper import descendants
from tests.slurm.versions import Version

POLL_S = 3.0
REPLICAS = 2
NODES = 4
GPUS = 4
# A node each, so that one can fail without the other; replacements are due 43 s before the end.
TIMES = f"""
replicas = {REPLICAS}
min_available = 1
time_limit = "1h"
lead_floor = "10s"
min_ready = "2s"
drain_deadline = "20s"
admission_margin = "10s"
safety_margin = "5s"
"""
LOOK_EVERY_S = 1.0
ASK_EVERY_S = 0.5
CONTROLLER_AWAY_S = 4.0
NEXT_POLL_LIMIT_S = 60.0
NOTICED_S = 1.0
"""A healthy instance is one that was so from this long before a request was sent."""
HIT_WITHIN_S = 2.0
"""So soon after it is ordered, Slurm ends a job; what was sent to it by then was under way."""
LIVE = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")
QUEUE = "%A|%T|%l|%S|%N|%j"


class RealSite:
    """A cluster and a whole chain of its own. An async context manager."""

    replicas = REPLICAS
    poll_s = POLL_S

    def __init__(self, version: Version, installed: Installed) -> None:
        self.version = version
        self._cluster = Cluster(NODES, gpus=GPUS, version=version)
        self._installed = installed
        self._hit: dict[str, float] = {}
        """Instances whose jobs were ended from outside, and when that was ordered."""

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._stop, kind, exc, trace)

    def _start(self) -> None:
        self._cluster.start()
        try:
            service = SERVICE.replace('"gpu:a100:1"', f'"gpu:a100:{GPUS}"')
            polls = f'poll_interval = "{POLL_S:.0f}s"\nrpc_floor = "1s"\n'
            self._chain = Chain(self._cluster, self._installed, service + TIMES, cluster_keys=polls)
            self._chain.__enter__()
        except BaseException:
            self._cluster.stop()
            raise
        try:
            self._chain.start_engine()
            self._chain.wait_ready(self.replicas)
            self._chain.open_gate()
            self._chain.start_proxy()
        except BaseException as exc:
            self._stop(type(exc), exc, exc.__traceback__)
            raise

    def _stop(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._chain.__exit__(kind, exc, trace)
        finally:
            self._cluster.stop()

    # -- time

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))

    async def wait_until(
        self, what: str, holds: Callable[[], Awaitable[bool]], limit_s: float = 60.0
    ) -> None:
        deadline = time.monotonic() + limit_s
        while not await holds():
            if time.monotonic() > deadline:
                raise NeverHappened(f"waited {limit_s:.0f} s for {what}\n{await self.explain()}")
            await asyncio.sleep(ASK_EVERY_S)

    async def explain(self) -> str:
        """What a reader of a failure wants to know."""
        return await asyncio.to_thread(self._explain)

    def _explain(self) -> str:
        told = [f"{e['at']:.1f} {e['code']} {e['subject']}: {e['text']}" for e in self._chain.events()[-40:]]
        try:
            jobs = [str(job) for job in queue(self._chain)]
        except subprocess.SubprocessError as exc:
            jobs = [str(exc)]
        return "\n".join([*jobs, *told, self._chain.explain()])

    async def next_poll(self) -> None:
        def newest() -> float:
            return self._chain.state()["engine"]["engine"].get("snapshot_at", 0.0)

        before = await asyncio.to_thread(newest)
        deadline = time.monotonic() + NEXT_POLL_LIMIT_S
        while await asyncio.to_thread(newest) == before:
            if time.monotonic() > deadline:
                raise NeverHappened(f"no good answer of Slurm\n{await self.explain()}")
            await asyncio.sleep(0.02)

    # -- what can be seen

    async def jobs(self) -> tuple[Job, ...]:
        return await asyncio.to_thread(queue, self._chain)

    async def instances(self) -> tuple[Instance, ...]:
        rows = await asyncio.to_thread(self._chain.instances)
        rows.sort(key=lambda row: row.get("started_at") or row["since"])
        return tuple(_instance(row) for row in rows)

    async def events(self) -> tuple[Event, ...]:
        rows = await asyncio.to_thread(self._chain.events)
        return tuple(Event(row["seq"], row["code"], row["subject"], row["severity"]) for row in rows)

    async def watch(self) -> RealWatch:
        return await asyncio.to_thread(RealWatch, self._chain, self._hit)

    # -- operator

    async def scale(self, replicas: int) -> None:
        body = {"replicas": replicas, "confirm": True}
        await asyncio.to_thread(self._chain.ask, "POST", "/v1/services/chat/scale", **body)

    # -- Slurm's people

    async def requeue(self, job_id: int) -> None:
        await self._hits(lambda instance: instance.job_id == job_id)
        await self._run("scontrol", "requeue", str(job_id))

    async def hold(self, job_id: int) -> None:
        await self._run("scontrol", "hold", str(job_id))

    async def release(self, job_id: int) -> None:
        await self._run("scontrol", "release", str(job_id))

    async def set_limit(self, job_id: int, seconds: float) -> None:
        minutes = -(-int(seconds) // 60)
        await self._run("scontrol", "update", f"JobId={job_id}", f"TimeLimit={minutes}")

    async def cancel(self, job_id: int) -> None:
        await self._hits(lambda instance: instance.job_id == job_id)
        await self._run("scancel", str(job_id))

    async def drain_node(self, name: str) -> None:
        await asyncio.to_thread(self._cluster.drain_node, name)

    async def resume_node(self, name: str) -> None:
        await asyncio.to_thread(self._cluster.resume_node, name)

    async def reserve(self, node: str, after_s: float) -> None:
        window = f"starttime=now+{round(after_s)}", "duration=60", "flags=maint,ignore_jobs", "users=root"
        name = f"reservationname=maintenance-{node}"
        await self._run("scontrol", "create", "reservation", name, f"nodes={node}", *window)

    async def unreserve(self, node: str) -> None:
        await self._run("scontrol", "delete", f"reservationname=maintenance-{node}")

    # -- faults

    async def node_down(self, name: str) -> None:
        await self._hits(lambda instance: instance.node == name)
        await asyncio.to_thread(self._cut_power, name)

    def _cut_power(self, name: str) -> None:
        tasks = [
            p for p in descendants(self._cluster.keeper_pid) if _environ(p).get("SLURMD_NODENAME") == name
        ]
        keepers = {_parent(pid) for pid in tasks} - set(tasks)
        self._cluster.kill_node(name)
        # slurmstepd first, or it would tell that its task has failed.
        for pid in [*(pid for pid in keepers if b"slurmstepd" in _command(pid)), *tasks]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cluster.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=power")

    async def node_up(self, name: str) -> None:
        await asyncio.to_thread(self._cluster.start_node, name)

        async def usable() -> bool:
            shown = await self._run("sinfo", "-h", "-n", name, "-o", "%T")
            return "down" not in shown

        await self.wait_until(f"{name} to be up", usable)

    async def kill_controller(self) -> None:
        await asyncio.to_thread(self._cluster.kill_controller)
        await asyncio.sleep(CONTROLLER_AWAY_S)
        await asyncio.to_thread(self._cluster.start_controller)

    async def cold_restart(self) -> None:
        await self._hits(lambda instance: instance.state not in ENDED)
        await asyncio.to_thread(self._cluster.kill_controller)
        await asyncio.to_thread(lambda: self._cluster.start_controller(cold=True))

    async def stop_controller(self) -> None:
        await asyncio.to_thread(self._cluster.pause_controller)

    async def continue_controller(self) -> None:
        await asyncio.to_thread(self._cluster.resume_controller)

    async def _hits(self, which: Callable[[Instance], bool]) -> None:
        self._hit |= {i.id: time.time() for i in await self.instances() if which(i)}

    async def _run(self, *argv: str) -> str:
        return (await asyncio.to_thread(self._cluster.run, *argv)).stdout


def queue(chain: Chain) -> tuple[Job, ...]:
    """The site's live jobs. Raises CalledProcessError where Slurm does not answer."""
    argv = ["squeue", "-h", "-t", ",".join(LIVE), "-u", chain.engine.name, "-o", QUEUE]
    env = chain.cluster.environment | {"SLURM_TIME_FORMAT": "%s"}
    listed = subprocess.run(argv, env=env, check=True, capture_output=True, text=True, timeout=30).stdout
    return tuple(_job(*line.split("|", 5)) for line in listed.splitlines())


def _job(id_: str, state: str, limit: str, start: str, node: str, name: str) -> Job:
    days, _, rest = limit.rpartition("-")
    seconds = 0
    for part in rest.split(":"):
        seconds = seconds * 60 + int(part)
    waits = state == "PENDING"
    limit_s = seconds + int(days or 0) * 86_400
    return Job(int(id_), name, state, "" if waits else node, limit_s, 0.0 if waits else float(start))


def _instance(row: dict) -> Instance:
    return Instance(
        id=row["id"],
        state=row["state"],
        job_id=row.get("job_id", 0),
        node=row.get("node", ""),
        replaces=row.get("replaces", ""),
        generation=row.get("generation", 0),
        end=row.get("end"),
    )


# ---------------------------------------------------------------- watching


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at one moment."""

    at: float
    jobs: tuple[Job, ...] | None
    """None: Slurm did not answer."""
    healthy: frozenset[str] = field(default_factory=frozenset)
    """Instances that the engine calls ready and whose service's process runs."""


class RealWatch:
    """Clients on the proxy, and a thread that looks at Slurm's queue and at the machine's processes."""

    def __init__(self, chain: Chain, hit: dict[str, float]) -> None:
        self._chain = chain
        self._hit = hit
        self._services: dict[str, int] = {}
        self._looks: list[Look] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._traffic = Traffic(
            chain.url,
            chain.api_key,
            MODEL,
            streams=3,
            seconds=(2.0, 6.0),
            tokens_per_second=4.0,
            short_per_second=3.0,
        )
        self._thread.start()
        self._traffic.__enter__()

    async def end(self) -> Watched:
        return await asyncio.to_thread(self._end)

    def _end(self) -> Watched:
        self._traffic.finish()
        time.sleep(2 * LOOK_EVERY_S)
        self._stop.set()
        self._thread.join(60)
        queues = [
            [job for job in look.jobs if job.state != "COMPLETING"] for look in self._looks if look.jobs
        ]
        answers = [*self._traffic.streamed, *self._traffic.short]
        failed = [answer for answer in answers if not answer.whole]
        refused_by = self._refused_requests()
        for answer in failed:
            answer.instance = answer.instance or refused_by.get(answer.request_id, "")
        cut = [answer for answer in failed if self._was_cut(answer)]
        lost = [answer for answer in failed if answer not in cut and self._could_be_served(answer)]
        for answer in lost:
            print(f"lost: {answer.fault} ({answer.instance or 'no answer'}, sent at {answer.sent_at:.1f})")
        return Watched(
            most_live=max(map(len, queues), default=0),
            twins=len({name for jobs in queues for name in _twice(jobs)}),
            requests=len(answers),
            lost=len(lost),
            cut=len(cut),
        )

    def _refused_requests(self) -> dict[str, str]:
        """Request id -> the instance that had taken it, as the proxy's log tells."""
        lines = (json.loads(line) for line in self._chain.daemons.log("proxy").read_text().splitlines())
        return {line["request_id"]: line["instance"] for line in lines if line.get("status", 200) >= 500}

    def _was_cut(self, answer: Answer) -> bool:
        """Whether it was under way where the job was ended: nobody could save it."""
        ended_at = self._hit.get(answer.instance)
        return ended_at is not None and answer.sent_at < ended_at + HIT_WITHIN_S

    def _could_be_served(self, answer: Answer) -> bool:
        """Whether one instance was healthy in every look from shortly before it was sent until it failed."""
        since, until = answer.sent_at - NOTICED_S, (answer.ended_at or time.time()) + LOOK_EVERY_S
        looks = [look.healthy for look in self._looks if since <= look.at <= until]
        return bool(looks) and bool(frozenset.intersection(*looks))

    def _keep_looking(self) -> None:
        while not self._stop.is_set():
            began = time.time()
            healthy = self._healthy()
            try:
                jobs = queue(self._chain)
            except subprocess.SubprocessError:
                jobs = None
            self._looks.append(Look(began, jobs, healthy))
            self._stop.wait(max(0.0, began + LOOK_EVERY_S - time.time()))

    def _healthy(self) -> frozenset[str]:
        try:
            ready = {row["id"] for row in self._chain.instances("ready")}
        except (httpx.HTTPError, OSError):
            return frozenset()
        if any(not _runs(self._services.get(name, 0), name) for name in ready):
            self._services = services(self._chain)
        return frozenset(name for name in ready if _runs(self._services.get(name, 0), name))


def services(chain: Chain) -> dict[str, int]:
    """Instance -> process id of its service, as far as they run now."""
    found = {}
    for pid in descendants(chain.cluster.keeper_pid):
        if b"saia_engine.demo.llm" in _command(pid):
            found[_environ(pid).get("SAIA_INSTANCE", "")] = pid
    return found


def _runs(pid: int, instance: str) -> bool:
    return pid > 0 and _environ(pid).get("SAIA_INSTANCE") == instance


def _twice(jobs: list[Job]) -> set[str]:
    names = [job.name for job in jobs]
    return {name for name in names if names.count(name) > 1}


def _environ(pid: int) -> dict[str, str]:
    """Empty for a process that is gone, or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
