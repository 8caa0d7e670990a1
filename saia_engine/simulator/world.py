"""One seed's whole world, and its calm life: foreign jobs that come and go, an engine on host a, clients."""

from __future__ import annotations

import asyncio

from saia_engine.simulator import wishes
from saia_engine.simulator.agents import Agents, Character
from saia_engine.simulator.cluster import CPU, GPU, MIN_JOB_AGE_S, Cluster
from saia_engine.simulator.gates import Clients, Gate, Traffic
from saia_engine.simulator.hosts import EngineProcess, Host, Surroundings, Watchers
from saia_engine.simulator.shared_files import SharedFiles, SharedLease
from saia_engine.simulator.site import CLUSTER, INSTALLATION, SHARED_DELAY_S, USER, Site
from saia_engine.simulator.slurm_window import COMMAND_TIMEOUT_S, MESSAGE_TIMEOUT_S, POLL_S, Window
from saia_engine.simulator.truth import Began, Configured, Event, Observer

FOREIGN_JOBS = 100
FOREIGN_LASTS_S = 3600.0
GPU_SHARE = 0.25
STRANGE_NAMES = (
    "train",
    "x\n99|RUNNING|1795516645|1795516646|1795520246|1:00:00|0|1|1|1|svc|gpu|gpu01",
    "saia.other.hpc.chat.ab12cd34",
    "saia.k7f3.hpc.chat",
    "job|\x1b[31m",
    "saia",
)


class World:
    """Everything of one seed. `run_until` lets time pass."""

    def __init__(
        self,
        seed: int,
        observers: list[Observer],
        dialect: str = "",
        *,
        tables: dict[str, wishes.Table] | None = None,
        foreign_jobs: int = FOREIGN_JOBS,
    ) -> None:
        """`tables` are the services of the configuration; the reference ones by default."""
        self.foreign_jobs = foreign_jobs
        self.site = Site(seed, observers)
        self.chance = self.site.chance("world")
        self.cluster = Cluster(self.site)
        self.shared = SharedFiles(self.site)
        self.lease = SharedLease(self.site)
        self.window = Window(self.site, self.cluster, self.shared)
        self.agents = Agents(self.site, self.cluster, self.shared)
        self.agents.characters = {name: Character(load_s) for name, load_s in wishes.LOAD_S.items()}
        self.file = wishes.ConfigFile(tables or wishes.reference())
        self.hosts = {name: Host(name, self.site) for name in ("a", "b")}
        self.gates = {name: Gate(self.site, host, self.agents) for name, host in self.hosts.items()}
        self.clients = Clients(self.site, self.gates, self.agents)
        self.watchers = Watchers()
        self.around = Surroundings(
            site=self.site,
            window=self.window,
            agents=self.agents,
            shared=self.shared,
            lease=self.lease,
            dialect=dialect,
            watchers=self.watchers,
            on_start=self._engine_started,
            on_wishes=self.tell_wish,
            file=self.file,
        )
        self.home = self.hosts["a"]
        """Whose engine acted last: its overrides count."""
        self.engines: list[EngineProcess] = []
        self.on_engine_end = lambda engine, how: None
        self.crowded = True
        """Whether foreign jobs still ask for GPUs."""

    def begin(self) -> None:
        """The first moment: a cluster in use, and the engine's first start."""
        self.site.emit(
            Began(
                self.site.now,
                self.site.seed,
                INSTALLATION,
                CLUSTER,
                USER,
                POLL_S,
                COMMAND_TIMEOUT_S,
                MESSAGE_TIMEOUT_S,
                SHARED_DELAY_S,
                MIN_JOB_AGE_S,
            )
        )
        for _ in range(self.foreign_jobs):
            self._foreign(self.chance.uniform(0.0, 1.0))
        if self.foreign_jobs:
            self._next_foreign()
        self.configured()
        self.start_engine("a")

    # -- foreign jobs

    def _next_foreign(self) -> None:
        delay = self.chance.expovariate(self.foreign_jobs / FOREIGN_LASTS_S)
        self.site.after(delay, self._foreign_comes)

    def _foreign_comes(self) -> None:
        self._next_foreign()
        if self.cluster.up:
            self._foreign(1.0)

    def _foreign(self, left: float) -> None:
        """One job; `left` is how much of its work is still to be done."""
        chance = self.chance
        gpus = chance.choice([1, 1, 2, 4]) if self.crowded and chance.random() < GPU_SHARE else 0
        strange = chance.random() < 0.1
        lasts_s = chance.expovariate(1.0 / FOREIGN_LASTS_S) * left + 10.0
        self.cluster.accept(
            chance.choice(STRANGE_NAMES) if strange else f"job{chance.randint(1, 999)}",
            USER if chance.random() < 0.02 else f"user{chance.randint(1, 20)}",
            partition=GPU if gpus else CPU,
            gpus=gpus,
            limit_s=lasts_s * chance.uniform(0.9, 3.0) + 300.0,
            priority=chance.choice([1000, 3000, 6000]),
            lasts_s=lasts_s,
        )

    # -- engines and what is wanted

    def start_engine(self, host: str, takeover: bool = False) -> EngineProcess | None:
        """None where it is refused."""
        engine = EngineProcess(self.hosts[host], self.around, lambda e, how: self.on_engine_end(e, how))
        if not engine.start(takeover):
            return None
        self.engines.append(engine)
        return engine

    @property
    def engine(self) -> EngineProcess | None:
        """The newest that lives."""
        self.engines = [engine for engine in self.engines if not engine.dead]
        return self.engines[-1] if self.engines else None

    def _engine_started(self, engine: EngineProcess) -> None:
        before, now = self.home, engine.host
        lost = (before.overrides, before.pins, before.paused) != (now.overrides, now.pins, now.paused)
        self.home = now
        if lost or engine.host.journal_lost:
            engine.host.journal_lost = False
            self.configured()

    def configured(self) -> None:
        """The file has changed for good, or an override has: engines hear of it, clients follow."""
        self.tell_wish()
        self.clients.use({name: Traffic() for name in self.file.services})
        for engine in self.engines:
            engine.configure()

    def tell_wish(self) -> None:
        file, home = self.file, self.home
        wanted = wishes.wishes(file.services, home.overrides, home.paused, home.pins, home.specs)
        self.site.emit(Configured(self.site.now, wanted, file.submits_per_hour))

    # -- time

    def run_until(self, at: float) -> None:
        self.site.loop.run_until(at)

    def close(self) -> None:
        for engine in self.engines:
            engine.die("stopped")
        self.site.observers.clear()
        self.site.loop.run_until(self.site.now + 1.0)
        for task in asyncio.all_tasks(self.site.loop):  # of an engine that was started in the meantime
            task.cancel()
        self.site.loop.run_until(self.site.now)
        for host in self.hosts.values():
            host.disk.close()
        self.file.close()
        self.site.loop.close()


class Recorder:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def see(self, event: Event) -> None:
        self.events.append(event)

    def finish(self, at: float) -> None:
        pass
