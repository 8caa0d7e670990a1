"""What keeps an engine running: the service manager on each host, and the operator who mends and takes over."""

from __future__ import annotations

from typing import Any

from saia_engine.simulator.hosts import EngineProcess
from saia_engine.simulator.world import World

LOOK_EVERY_S = 60.0


class Keeper:
    """Restarts what crashed, stops what no longer acts, and starts the engine on the host that should have it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.site.chance("keeper")
        self.home = "a"
        """The host whose engine should act."""
        self._due: Any = None
        self._takeover = False
        """Whether the next start at home is one; a lease that can't be read then has it tried again."""
        world.on_engine_end = self._ended
        world.site.after(LOOK_EVERY_S, self._look)

    @staticmethod
    def other(host: str) -> str:
        return "b" if host == "a" else "a"

    def _ended(self, engine: EngineProcess, how: str) -> None:
        if engine.crash_kind:
            self._world.site.fault(engine.crash_kind, f"{engine.name} at {engine.last_point}")
            engine.crash_kind = ""
        if engine.host.name == self.home and how != "host-lost":
            self._start_after(self._chance.choice([1.0, 5.0, 30.0, 300.0]) * self._chance.uniform(0.8, 1.2))

    def _start_after(self, seconds: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self._world.site.after(seconds, self._start)

    def _start(self) -> None:
        self._due = None
        host = self._world.hosts[self.home]
        if not host.up or host.locked_by:
            return
        host.refused = ""
        if self._world.start_engine(self.home, self._takeover):
            self._takeover = False
        elif "takeover" in host.refused and self._world.engine is None:
            self._takeover = True  # the operator reads what it says, and knows that no other one runs

    def restart(self, host: str, engine: EngineProcess) -> None:
        """The disk is mended: the engine that stopped acting there makes way for a new one."""
        if not engine.dead and engine.host.name == host:
            engine.die("stopped")

    def take_over(self, host: str) -> None:
        self.home = host
        self._world.clients.front_host = host
        if self._due is not None:
            self._due.cancel()
        self._takeover = True
        self._due = self._world.site.after(self._chance.uniform(1.0, 120.0), self._start)

    def mend(self) -> None:
        """For a calm: an engine acts soon, on a disk that takes its journal."""
        for host in self._world.hosts.values():
            host.disk.mend()
        self._look_once()
        if self._world.engine is None and self._due is None:
            self._start_after(2.0)

    def _look(self) -> None:
        self._world.site.after(LOOK_EVERY_S, self._look)
        self._look_once()

    def _look_once(self) -> None:
        """Whoever stopped acting is ended; a home without an engine gets one."""
        for engine in list(self._world.engines):
            if engine.dead or not engine.stopped_acting:
                continue
            if engine.host.name != self.home or self._mended(engine):
                engine.die("stopped")
        if self._due is None and not self._world.hosts[self.home].locked_by:
            self._start_after(self._chance.uniform(1.0, 60.0))

    def _mended(self, engine: EngineProcess) -> bool:
        site = self._world.site
        return not any((kind, engine.name) in site.active for kind in ("journal-full", "journal-refuses"))
