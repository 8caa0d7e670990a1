"""Slurm as one engine meets it: delays, lost answers and lies on the way, then the port or its commands' text."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from saia_engine.model import Snapshot
from saia_engine.simulator import slurm_text
from saia_engine.simulator.cluster import CPU, GPU, Cluster
from saia_engine.simulator.shared_files import Hazard, SharedFiles
from saia_engine.simulator.site import USER, Site
from saia_engine.simulator.truth import Answered, CancelCalled, SubmitCalled, SubmitRefused
from saia_engine.slurm import text
from saia_engine.slurm.cli import SlurmCli
from saia_engine.slurm.port import (
    JobRequest,
    Slurm,
    SlurmError,
    SlurmUnavailable,
    SubmitRejected,
    SubmitUnknown,
)
from saia_engine.slurm.process import Finished, NotFinished

COMMAND_TIMEOUT_S = 30.0
MESSAGE_TIMEOUT_S = 10.0
POLL_S = 15.0
CALLS = 4
"""Commands of one observation."""
YOUNG_S = MESSAGE_TIMEOUT_S + POLL_S
_NONCE = re.compile("[0-9a-f]{16}")
DELAYED_S = 45.0, 240.0
"""A busy controller answers questions, and lets a submit wait for its turn."""
UNREACHABLE = "Unable to contact slurm controller (connect failure)"


@dataclass(slots=True)
class Luck:
    """What is going to befall the next commands; each is used up by one."""

    squeue_failed: int = 0
    squeue_empty: int = 0
    squeue_stale: int = 0
    squeue_truncated: int = 0
    squeue_slow: int = 0
    squeue_late: int = 0
    sbatch_timeout: int = 0
    """Accepted, but the answer never comes."""
    sbatch_delayed: int = 0
    """Not answered, and accepted when nobody expects it any more."""
    sbatch_lost: int = 0
    """Neither accepted nor answered."""
    sbatch_rejected: int = 0
    sbatch_slow: int = 0
    scancel_lost: int = 0
    scancel_failed: int = 0

    def take(self, kind: str) -> bool:
        left = getattr(self, kind)
        if left:
            setattr(self, kind, left - 1)
        return bool(left)


LOOKS = ("failed", "empty", "stale", "truncated", "slow", "late")


class Window:
    """What lies between all engines and the cluster's controller."""

    def __init__(self, site: Site, cluster: Cluster, shared: SharedFiles) -> None:
        self.shared = shared
        self.site = site
        self.cluster = cluster
        self.luck = Luck()
        self.chance = site.chance("window")
        self.past: deque[Snapshot] = deque(maxlen=4)
        """For answers that are stale."""

    def revision_of(self, name: str) -> str:
        return self.shared.revisions.get(name, "")

    def draw_look(self) -> str:
        """How the next observation goes."""
        for kind in LOOKS:
            if self.luck.take(f"squeue_{kind}"):
                self.site.fault(f"squeue-{kind}", "slurm")
                return kind
        return "good"

    @property
    def stopped(self) -> bool:
        return self.site.now < self.cluster.paused_until

    @property
    def young(self) -> bool:
        return self.site.now - self.cluster.restarted_at < YOUNG_S

    def present(self) -> Snapshot:
        cluster = self.cluster
        return Snapshot(
            self.site.now,
            cluster.job_rows(),
            cluster.node_rows(),
            cluster.boot,
            cluster.reservation_rows(),
            cluster.partition_rows,
            float(int(self.site.now)),
        )

    def answered(self, engine: str, look: str, began: float) -> None:
        quality = "good" if look == "slow" else look
        if quality == "good" and self.young:
            quality = "young"
        self.site.emit(Answered(self.site.now, engine, quality, began, CALLS))


class EngineSlurm:
    """The Slurm port of one engine."""

    def __init__(
        self, window: Window, engine: str, hazard: Hazard, wrong_clock: Callable[[], bool] = lambda: False
    ) -> None:
        """`wrong_clock` tells of the engine's whether an answer that comes now shows that it is wrong."""
        self._window = window
        self._engine = engine
        self._hazard = hazard
        self._wrong_clock = wrong_clock
        self._chance = window.chance

    async def observe(self) -> Snapshot:
        window = self._window
        began, look = window.site.now, window.draw_look()
        try:
            await self.delay(look)
            snapshot = self._seen(look)
        except SlurmUnavailable:
            window.answered(self._engine, look if look not in ("good", "slow") else "failed", began)
            raise
        self._told(look, began)
        window.past.append(snapshot)
        return snapshot

    async def delay(self, look: str) -> None:
        """Raises SlurmUnavailable where no answer comes."""
        window, chance = self._window, self._chance
        if look == "slow":
            await asyncio.sleep(chance.uniform(3.0, COMMAND_TIMEOUT_S - 1.0))
        if look == "late":
            await asyncio.sleep(COMMAND_TIMEOUT_S)
            raise SlurmUnavailable("squeue did not answer within 30 s")
        await asyncio.sleep(chance.uniform(0.05, 0.5))
        if window.stopped:
            await asyncio.sleep(MESSAGE_TIMEOUT_S)
        if not window.cluster.up or window.stopped:
            raise SlurmUnavailable(f"squeue failed (exit code 1): {UNREACHABLE}")
        if look == "failed":
            raise SlurmUnavailable("squeue failed (exit code 1): Socket timed out on send/recv operation")

    def _told(self, look: str, began: float) -> None:
        """A whole answer has come."""
        self._window.answered(self._engine, "clock" if self._wrong_clock() else look, began)

    def _seen(self, look: str) -> Snapshot:
        window = self._window
        if look == "truncated":
            raise SlurmUnavailable("saia cannot read what Slurm answered: the last row is cut short")
        if look == "stale" and window.past:
            return replace(window.past[-1], controller_now=float(int(window.site.now)))
        present = window.present()
        if look == "empty":
            return replace(present, jobs=())
        return present

    async def submit(self, request: JobRequest) -> int:
        self._hazard("sbatch")
        window = self._window
        window.site.emit(
            SubmitCalled(
                window.site.now,
                self._engine,
                request.name,
                float(request.spec.time_limit_s),
                window.revision_of(request.name),
            )
        )
        answer = asyncio.get_running_loop().create_future()
        delay_s = self._chance.uniform(0.05, 0.6)
        if window.luck.take("sbatch_slow"):
            window.site.fault("sbatch-slow", request.name)
            delay_s = self._chance.uniform(8.0, COMMAND_TIMEOUT_S - 2.0)
        window.site.after(delay_s, self._arrived, request, answer)
        self._hazard("sbatch-sent")
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                job_id = await answer
        except TimeoutError:
            raise SubmitUnknown("sbatch did not answer within 30 s") from None
        self._hazard("sbatch-done")
        return job_id

    def _arrived(self, request: JobRequest, answer: asyncio.Future[int]) -> None:
        """The request is at the controller's door; whoever sent it may be dead by now."""
        window, site = self._window, self._window.site
        if window.stopped:
            # It lies in the socket's queue, and is taken up when the controller goes on.
            self._answer_later(answer, MESSAGE_TIMEOUT_S, SubmitUnknown("sbatch failed: Socket timed out"))
            again = window.cluster.paused_until - site.now + self._chance.uniform(0.1, 1.0)
            site.fault("sbatch-queued", request.name)
            site.after(again, self._take, request, None)
        elif not window.cluster.up:
            site.emit(SubmitRefused(site.now, self._engine, request.name, False))
            self._answer_later(answer, 4.0, SubmitUnknown(f"sbatch failed: {UNREACHABLE}"))
        elif window.luck.take("sbatch_rejected"):
            site.fault("sbatch-rejected", request.name)
            site.emit(SubmitRefused(site.now, self._engine, request.name))
            self._answer_later(
                answer, 0.1, SubmitRejected("sbatch failed (exit code 1): Invalid qos specification")
            )
        elif window.luck.take("sbatch_lost"):
            site.fault("sbatch-lost", request.name)
            site.emit(SubmitRefused(site.now, self._engine, request.name, False))
        elif window.luck.take("sbatch_delayed"):
            site.fault("sbatch-delayed", request.name)
            site.after(self._chance.uniform(*DELAYED_S), self._take, request, None)
        elif window.luck.take("sbatch_timeout"):
            site.fault("sbatch-timeout", request.name)
            self._take(request, None)
        else:
            self._take(request, answer)

    def _take(self, request: JobRequest, answer: asyncio.Future[int] | None) -> None:
        window = self._window
        spec = request.spec
        if not window.cluster.up:
            window.site.emit(SubmitRefused(window.site.now, self._engine, request.name, False))
            return
        gpus = text.gpus(spec.gres)[1]
        job = window.cluster.accept(
            request.name,
            USER,
            spec=spec,
            partition=spec.partition or (GPU if gpus else CPU),
            gpus=gpus,
            limit_s=spec.time_limit_s,
            engine=self._engine,
            answered=answer is not None,
        )
        if answer is not None:
            window.site.after(self._chance.uniform(0.02, 0.3), _set, answer, job.id)

    def _answer_later(self, answer: asyncio.Future[int], delay_s: float, fault: SlurmError) -> None:
        self._window.site.after(delay_s, _set, answer, fault)

    async def cancel(self, job_id: int, name: str) -> None:
        self._hazard("scancel")
        window, site = self._window, self._window.site
        site.emit(CancelCalled(site.now, self._engine, job_id, name, USER))
        lost = window.luck.take("scancel_lost")
        failed = not lost and window.luck.take("scancel_failed")
        if lost or failed:
            site.fault("scancel-lost" if lost else "scancel-failed", str(job_id))
        else:
            site.after(self._chance.uniform(0.02, 0.3), self._cancelled, job_id, name)
        self._hazard("scancel-sent")
        await asyncio.sleep(self._chance.uniform(0.05, 0.5))
        self._hazard("scancel-done")
        if failed or not window.cluster.up or window.stopped:
            await asyncio.sleep(4.0)
            raise SlurmError(f"scancel failed (exit code 8): {UNREACHABLE}")

    def _cancelled(self, job_id: int, name: str) -> None:
        window = self._window
        if window.cluster.up and not window.stopped:
            window.cluster.cancel(job_id, name, USER, "engine")

    async def close(self) -> None:
        pass


class Commands(EngineSlurm):
    """The same behind Slurm's own commands: what they print, for the real adapter and its reader."""

    def __init__(
        self,
        window: Window,
        engine: str,
        hazard: Hazard,
        dialect: str,
        wrong_clock: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(window, engine, hazard, wrong_clock)
        self._dialect = dialect
        self._look, self._began = "good", 0.0

    def adapter(self) -> Slurm:
        chance = self._chance
        cli = SlurmCli(
            USER,
            command_timeout_s=COMMAND_TIMEOUT_S,
            clock=lambda: self._window.site.now,
            runner=self.run,
            nonce=lambda: f"{chance.getrandbits(64):016x}",
            offload=_inline,
        )
        return _Mixed(cli, self)

    async def run(self, argv: Sequence[str], extra: Mapping[str, str]) -> Finished:
        """One of the commands of an observation. Raises NotFinished."""
        window = self._window
        try:
            return await self._printed(argv)
        except SlurmUnavailable as exc:
            look = self._look if self._look not in ("good", "slow") else "failed"
            window.answered(self._engine, look, self._began)
            if look == "late":
                raise NotFinished(str(exc)) from exc
            return Finished(1, "", f"slurm_load_jobs error: {exc}\n")

    async def _printed(self, argv: Sequence[str]) -> Finished:
        window = self._window
        if argv[0] == "squeue":
            self._began, self._look = window.site.now, window.draw_look()
            await self.delay(self._look)
            return Finished(0, self._queue(_nonce_of(argv)), "")
        await self.delay("good")
        if argv[0] == "sinfo":
            return Finished(
                0, slurm_text.sinfo(window.cluster.node_rows(), _nonce_of(argv), self._dialect), ""
            )
        if "reservation" in argv:
            return Finished(0, slurm_text.show_reservations(window.cluster.reservation_rows()), "")
        if self._look != "truncated":
            self._told(self._look, self._began)
        return Finished(0, slurm_text.show_config(window.cluster.boot, window.site.now), "")

    def _queue(self, nonce: str) -> str:
        window = self._window
        present = window.present()
        jobs = present.jobs
        if self._look == "stale" and window.past:
            jobs = window.past[-1].jobs
        elif self._look == "empty":
            jobs = ()
        window.past.append(present)
        printed = slurm_text.squeue(jobs, nonce, self._dialect)
        if self._look == "truncated" and printed:
            window.answered(self._engine, self._look, self._began)
            return self._cut_short(printed)
        return printed

    def _cut_short(self, printed: str) -> str:
        """In the middle of a row: between two it could not be told from a shorter queue."""
        rows = printed.splitlines()
        last = self._chance.randrange(len(rows))
        return "\n".join([*rows[:last], rows[last][: self._chance.randrange(1, len(rows[last]))]])


class _Mixed:
    """Observing through the commands' text, acting directly."""

    def __init__(self, cli: SlurmCli, direct: EngineSlurm) -> None:
        self.observe = cli.observe
        self.submit = direct.submit
        self.cancel = direct.cancel
        self.close = direct.close


async def _inline(act, /, *args, **kwargs):
    return act(*args, **kwargs)


def _nonce_of(argv: Sequence[str]) -> str:
    return next(column for column in argv[-1].split("|") if _NONCE.fullmatch(column))


def _set(answer: asyncio.Future[int], result: int | SlurmError) -> None:
    if answer.done():
        return
    if isinstance(result, SlurmError):
        answer.set_exception(result)
        answer.exception()  # nobody may be there to fetch it
    else:
        answer.set_result(result)
