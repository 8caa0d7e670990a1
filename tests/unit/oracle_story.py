"""Stories that tests tell the oracle."""

from __future__ import annotations

from dataclasses import replace

from saia_engine.simulator import truth
from saia_engine.simulator.oracle import Oracle
from saia_engine.simulator.truth import ReadRoute, Wish

POLL_S = 15.0
CHAT = Wish(
    "chat",
    replicas=1,
    min_available=0,
    time_limit_s=7200.0,
    revision="r1",
    lead_floor_s=600.0,
    lead_cap_s=1200.0,
    min_ready_s=10.0,
    drain_deadline_s=300.0,
    admission_margin_s=120.0,
    safety_margin_s=30.0,
)
BEGAN = truth.Began(1000.0, 0, "k7f3", "hpc", "svc", POLL_S, 30.0, 10.0, 60.0, 300.0)
EARLIEST_S = 1200 + 10 + 300 + 30 + 2 * POLL_S
"""So long before its end an instance's replacement may be submitted at the earliest."""
LATEST_S = EARLIEST_S - 600
ADMIT_S = 150.0
"""So long before its end an instance admits no more."""


class Story:
    """Tells the oracle what happens, second by second. `host` is where the engine runs."""

    def __init__(self, *wishes: Wish, per_hour: int = 120, host: str = "a") -> None:
        self.oracle = Oracle()
        self.at = BEGAN.at
        self.epoch = 0
        self.engine = ""
        self.next_id = 1
        self.jobs: dict[str, truth.JobChanged] = {}
        self.oracle.see(BEGAN)
        self.per_hour = per_hour
        self.wish(*(wishes or (CHAT,)))
        self.start(host)
        self.poll()

    def tell(self, kind: type, *values: object, **named: object) -> None:
        self.oracle.see(kind(self.at, *values, **named))

    def wait(self, seconds: float) -> None:
        self.at += seconds

    def broken(self) -> set[int]:
        self.oracle.finish(self.at + 16)
        return {violation.promise for violation in self.oracle.violations}

    # -- what is wanted, and engines

    def wish(self, *wishes: Wish) -> None:
        self.tell(truth.Configured, {w.name: w for w in wishes}, self.per_hour)

    def order(self, verb: str, instance: str = "", service: str = "chat", confirmed: bool = True) -> None:
        self.tell(truth.OperatorOrdered, verb, service, name(instance) if instance else "", confirmed)

    def start(self, host: str, takeover: bool = False, journal: str = "kept", wait_s: float = 0.0) -> str:
        self.epoch += 1
        self.engine = f"{host}{self.epoch}"
        self.tell(truth.LeaseWritten, self.engine, host, self.epoch)
        self.wait(wait_s)
        self.tell(truth.EngineStarted, self.engine, host, self.epoch, takeover, journal)
        return self.engine

    def end(self, how: str = "crashed") -> None:
        self.tell(truth.EngineEnded, self.engine, how)

    def poll(self, quality: str = "good", times: int = 1, calls: int = 3) -> None:
        for _ in range(times):
            self.wait(POLL_S)
            self.tell(truth.Answered, self.engine, quality, self.at - 0.2, calls)

    def polls_until(self, at: float) -> None:
        while self.at + POLL_S < at:
            self.poll()
        self.at = at

    # -- jobs and agents

    def submit(self, short: str, service: str = "chat", revision: str = "r1") -> None:
        """An engine calls sbatch."""
        self.tell(truth.SubmitCalled, self.engine, token(short, service), 7200.0, revision)

    def submit_in_vain(self, short: str) -> None:
        """Lost on its way, without an answer."""
        self.submit(short)
        self.wait(30)
        self.tell(truth.SubmitRefused, self.engine, token(short), False)

    def accept(
        self, short: str, answered: bool = True, service: str = "chat", engine: str | None = None
    ) -> None:
        by = self.engine if engine is None else engine
        name_ = token(short, service)
        self.tell(truth.JobAccepted, self.next_id, name_, "svc", self.at, answered, by)
        self.jobs[short] = truth.JobChanged(
            self.at, self.next_id, name_, "svc", "PENDING", "", None, None, 7200.0, 0, self.at, "slurm"
        )
        self.next_id += 1

    def change(self, short: str, **fields: object) -> None:
        self.jobs[short] = replace(self.jobs[short], at=self.at, **fields)  # type: ignore[arg-type]
        self.oracle.see(self.jobs[short])

    def run(self, short: str, lasts_s: float = 7200.0, node: str = "gpu01") -> None:
        """It starts, and its agent with it."""
        self.change(short, state="RUNNING", node=node, start=self.at, end=self.at + lasts_s, cause="slurm")
        self.agent(short, "starting")

    def agent(self, short: str, state: str) -> None:
        job = self.jobs[short]
        service = job.name.split(".")[3]
        self.tell(truth.AgentChanged, job.name[5:], job.restarts, service, job.job_id, state)

    def reach(self, short: str, reachable: bool) -> None:
        job = self.jobs[short]
        self.tell(truth.AgentReachable, job.name[5:], job.restarts, reachable)

    def requeue(self, short: str) -> None:
        self.agent(short, "gone")
        self.change(
            short,
            state="PENDING",
            node="",
            start=None,
            end=None,
            restarts=self.jobs[short].restarts + 1,
            cause="fault",
        )

    def drain(self, short: str, draining: bool = True) -> None:
        job = self.jobs[short]
        self.tell(truth.DrainHeard, job.name[5:], job.restarts, draining)

    def cancel(self, short: str, **fields: object) -> None:
        job = self.jobs[short]
        call = truth.CancelCalled(self.at, self.engine, job.job_id, job.name, "svc")
        self.oracle.see(replace(call, **fields))  # type: ignore[arg-type]

    def finish(self, short: str, state: str = "CANCELLED", cause: str = "engine") -> None:
        if self.jobs[short].state == "RUNNING":
            self.agent(short, "gone")
        self.change(short, state=state, end=self.at, cause=cause)

    def begin(self, short: str, service: str = "chat", lasts_s: float = 7200.0, revision: str = "r1") -> None:
        """Submitted, taken and started, all at once."""
        self.submit(short, service, revision)
        self.accept(short, service=service)
        self.run(short, lasts_s)

    def launch(
        self, short: str, service: str = "chat", lasts_s: float = 7200.0, revision: str = "r1"
    ) -> None:
        """The same, up to readiness."""
        self.begin(short, service, lasts_s, revision)
        self.agent(short, "ready")

    def serve(self, short: str, service: str = "chat", lasts_s: float = 7200.0, for_s: float = 120.0) -> None:
        """Launched, and known to the engine for long."""
        self.launch(short, service, lasts_s)
        self.poll(times=int(for_s // POLL_S))

    def forget(self, short: str) -> None:
        """A controller has lost its state."""
        job = self.jobs[short]
        self.tell(truth.JobForgotten, job.job_id, job.name, job.state, True)

    # -- gates and clients

    def routes(self, *shorts: str, host: str = "a", **fields: object) -> None:
        self.tell(truth.RoutesRead, host, tuple(self.route(short, **fields) for short in shorts))

    def route(self, short: str, **fields: object) -> ReadRoute:
        job = self.jobs[short]
        end = job.end or 4e9
        known = ReadRoute(job.name[5:], job.restarts, "chat", end - ADMIT_S, end, False, True)
        return replace(known, **fields)  # type: ignore[arg-type]

    def open(self, short: str, stream: int = 1) -> None:
        job = self.jobs[short]
        self.tell(truth.RequestOpened, stream, "chat", job.name[5:], job.restarts)

    def cut(self, stream: int = 1, cause: str = "engine") -> None:
        self.tell(truth.RequestEnded, stream, "cut", cause)

    def end_of(self, short: str) -> float:
        end = self.jobs[short].end
        assert end is not None
        return end


def name(short: str, service: str = "chat") -> str:
    return f"k7f3.hpc.{service}.{short}"


def token(short: str, service: str = "chat") -> str:
    return f"saia.{name(short, service)}"


def wants(**fields: object) -> Wish:
    return replace(CHAT, **fields)  # type: ignore[arg-type]
